"""What `harness evaluate` says: scores on random windows beside those of the whole split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.record_views import Found, read_records
from harness.records.native import ARTIFACT_FILE
from harness.scoring import EvalMode, Sampling, ScoreRequest, score_in_fresh_process
from harness.tables import Table, View, fmt


def parse_samples(text: str, seed: int) -> Sampling:
    """Read `20x8`: twenty batches of eight windows.

    Raises:
        UsageError: it is not of that form.
    """
    if (match := re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", text)) is None:
        raise UsageError(f"--samples {text}: write it as batches x windows, for example 20x8")
    return Sampling(num_batches=int(match[1]), batch_windows=int(match[2]), seed=seed)


def samples_view(paths: Sequence[Path], sampling: Sampling, *, data_dir: Path | None, device: str) -> View:
    """Score the stored file of every complete record at or below the paths on random windows of its test split.

    Raises:
        UsageError: a path holds no record, or a record is not complete.
        RecordError: a record cannot be read.
        ArtifactError: its file makes no network.
    """
    from harness.training.ranks import choose_device

    torch_device = choose_device(device)
    rows, data = [], []
    for found in read_records(paths):
        exact = found.record.metrics.test
        if exact is None or found.record.status != "complete":
            raise UsageError(f"{found.folder}: the record is {found.record.status}; finish it with --resume")
        mode = EvalMode.of_record(found.record)
        sampled = _score(found, sampling, data_dir, torch_device)
        whole = {
            "loss_nats": exact.loss_nats,
            "token_accuracy": exact.token_accuracy,
            "eval_mode": asdict(mode),
        }
        data.append({"folder": str(found.folder), "seed": sampling.seed, "sampled": sampled, "whole_split": whole})
        rows.append(
            (
                str(found.folder),
                f"{mode.mode} {mode.context}/{mode.stride}",
                fmt(exact.loss_nats),
                f"{fmt(sampled['loss_nats'])} +- {fmt(sampled['loss_nats_se'])}",
                f"{exact.token_accuracy:.2%}",
                f"{sampled['token_accuracy']:.2%} +- {sampled['token_accuracy_se']:.2%}",
                fmt(sampled["num_tokens"]),
            )
        )
    table = Table(
        title=f"{sampling.num_batches} random batches of {sampling.batch_windows} windows (seed {sampling.seed}), no "
        "context before a window, +- one standard error, beside the whole test split",
        columns=("record", "whole split: eval", "nats/token", "sampled", "accuracy", "sampled", "sampled tokens"),
        rows=rows,
        right=frozenset(range(2, 7)),
    )
    return View(tables=[table], data=data)


def _score(found: Found, sampling: Sampling, data_dir: Path | None, device: str) -> dict[str, Any]:
    context = EvalMode.of_record(found.record).context
    request = ScoreRequest.for_record(
        found.record,
        found.folder / ARTIFACT_FILE,
        data_dir=data_dir,
        device=device,
        eval_mode=EvalMode(context=context, stride=context),
        sampling=sampling,
    )
    result: dict[str, Any] = score_in_fresh_process(request)["metrics"]["test"]
    return result
