"""Contenders of a table: runs that differ by their seeds only, with everything they cost, and their curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from harness.comparison import FIGURES, find_front
from harness.record_views import Found, describe_machine
from harness.stats import half_width
from reports.curves import read_curve
from reports.places import Places


def describe_group(members: Mapping[str, Sequence[Found]], places: Places) -> dict[str, Any]:
    """Describe the contenders of a table whose scores may stand beside each other.

    Args:
        members: complete, scored records of each contender, all of one text and eval mode.
        places: names of folders.

    Returns:
        JSON values; `seconds` only where all runs were on one machine. Seconds of unlike machines share no table.
    """
    records = [found.record for runs in members.values() for found in runs]
    machines = sorted(
        {describe_machine(part) for each in records for part in (each.environment, *each.earlier_environments)}
    )
    contenders = [_describe(name, runs, places, has_seconds=len(machines) == 1) for name, runs in members.items()]
    contenders.sort(key=lambda each: (each["mean_bpb"], each["name"]))
    points = [(each["name"], each["mean_bpb"], size) for each in contenders if (size := each["artifact_bytes"])]
    front = find_front(points)
    first = records[0]
    return {
        "data": first.data.name,
        "test_bytes": first.data.splits.test.num_bytes,
        "corpus_sha256": first.data.corpus_sha256,
        "eval_mode": first.metrics.test.eval_mode.model_dump(),  # type: ignore[union-attr]
        "is_partial": first.metrics.test.partial,  # type: ignore[union-attr]
        "machines": machines,
        "num_runs": len(records),
        "contenders": [{**each, "is_on_front": each["name"] in front} for each in contenders],
        "curves": [_describe_curves(each["name"], members[each["name"]], places) for each in contenders],
    }


def _describe(name: str, runs: Sequence[Found], places: Places, *, has_seconds: bool) -> dict[str, Any]:
    ordered = sorted(runs, key=lambda found: found.record.seed)
    scores = [found.record.metrics.test.val_bpb for found in ordered]  # type: ignore[union-attr]
    mean_bpb, sd_bpb = fmean(scores), stdev(scores) if len(scores) > 1 else None
    half = None
    if sd_bpb is not None:
        half = half_width(sd_bpb / math.sqrt(len(scores)), len(scores) - 1, num_tests=1)
    record = ordered[0].record
    return {
        "name": name,
        "method": record.method.name,
        "kind": record.method.kind,
        "preset": record.preset,
        "budget": record.budget.text,
        "n": len(scores),
        "seeds": [
            {"seed": found.record.seed, "folder": places.label(found.folder), "val_bpb": score}
            for found, score in zip(ordered, scores, strict=True)
        ],
        "mean_bpb": mean_bpb,
        "sd_bpb": sd_bpb,
        "low_bpb": None if half is None else mean_bpb - half,
        "high_bpb": None if half is None else mean_bpb + half,
        **{key: _mean(key, ordered) if key != "seconds" or has_seconds else None for key in FIGURES},
        "parts": _mean_parts(ordered),
    }


def _mean(key: str, runs: Sequence[Found]) -> float | None:
    values = [FIGURES[key](found.record) for found in runs]
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _mean_parts(runs: Sequence[Found]) -> list[dict[str, Any]]:
    """Stored bytes by part, mean over seeds; a list, since names of parts are free."""
    artifacts = [found.record.artifact for found in runs if found.record.artifact is not None]
    names = sorted({name for artifact in artifacts for name in artifact.parts})
    return [{"part": name, "bytes": fmean(artifact.parts.get(name, 0) for artifact in artifacts)} for name in names]


def _describe_curves(name: str, runs: Sequence[Found], places: Places) -> dict[str, Any]:
    return {
        "name": name,
        "tokenizer_sha256": runs[0].record.data.tokenizer.sha256,
        "runs": [
            {"folder": places.label(found.folder), "seed": found.record.seed, "points": read_curve(found.folder)}
            for found in sorted(runs, key=lambda found: found.record.seed)
        ],
    }
