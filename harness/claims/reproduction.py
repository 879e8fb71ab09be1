"""Our own runs as evidence: which match, and what they say of a figure, with the errors of seeds and of text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.claims.estimates import Estimate, error_part
from harness.compare_views import is_trial
from harness.comparison import FIGURES, Figure, Run, read_run
from harness.errors import RecordError, UsageError, suggest
from harness.records.native import RECORD_FILE, read_record
from harness.records.schema import Record
from harness.stats import Interval, bootstrap_difference, combined_error
from harness.verify.across import settings_key

# Figures of the test split whose error over the text is known from block scores.
_BLOCKS = {
    "val_bpb": ("block_nats", "block_bytes", 1 / math.log(2)),
    "loss_nats": ("block_nats", "block_tokens", 1.0),
    "token_accuracy": ("block_correct", "block_tokens", 1.0),
}


def _lost_in_export(record: Record) -> float | None:
    """Bits per byte of the tune split that the stored file scores worse than the trained network did."""
    stored, trained = record.metrics.tune, record.metrics.tune_before_export
    return stored.val_bpb - trained.val_bpb if stored and trained else None


_FIGURES: Mapping[str, Figure] = {
    "val_bpb": lambda record: record.metrics.test.val_bpb if record.metrics.test else None,
    "bpb_lost_in_export": _lost_in_export,
    **FIGURES,
}

# Figures of the ways beside a record: beside.truncated SVD.more_nats
_BESIDE = "beside."
_BESIDE_FIGURES = ("num_params", "relative_error", "perplexity", "more_nats")
SEED_SUFFIX = re.compile(r"-seed[0-9]+$")


class MissingEvidenceError(UsageError):
    """Evidence that a predicate needs is not there: it stays undecided."""


class Found(NamedTuple):
    """A record and its folder."""

    folder: Path
    record: Record


class Runs:
    """The complete records under some folders, chosen by method, preset and what else a text says.

    Args:
        folders: searched at any depth for records.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._read: dict[Path, Run] = {}

    @cached_property
    def _found(self) -> list[Found]:
        places = sorted(path.parent.resolve() for folder in self._folders for path in folder.rglob(RECORD_FILE))
        found = []
        for place in dict.fromkeys(places):
            try:
                record = read_record(place)
            except RecordError:
                continue  # a stranger's file of that name; `harness verify` says what is wrong with it
            if record.status == "complete" and not is_trial(place):
                found.append(Found(place, record))
        return found

    def select(self, text: str) -> dict[int, Path]:
        """Return the folders of the runs that match `METHOD/PRESET, key=value, ...`, by seed.

        Keys are budget, data, claim (that the run was sealed for), from (the parent's name without its seed; runs with
        a parent match only with it) and settings such as model.chi; of a list the parts are joined by `+`, of one
        within it by `:`.

        Raises:
            UsageError: the text is not of that form.
            MissingEvidenceError: none matches, or those that do are not seeds of one thing.
        """
        name, *filters = (part.strip() for part in text.split(","))
        wanted = dict(part.partition("=")[::2] for part in filters)
        if "/" not in name or any("=" not in part for part in filters):
            raise UsageError(f"{text!r}: write METHOD/PRESET, then key=value, parted by commas")
        method, _, preset = name.partition("/")
        chosen: dict[int, Found] = {}
        for folder, record in self._found:
            if (record.method.name, record.preset) != (method, preset) or not _matches(record, wanted):
                continue
            if record.seed in chosen:
                first = chosen[record.seed].folder
                raise MissingEvidenceError(f"{text!r}: {first.name} and {folder.name} have one seed; say more")
            chosen[record.seed] = Found(folder, record)
        if not chosen:
            raise MissingEvidenceError(f"no complete run matches {text!r}")
        _check_alike(text, list(chosen.values()))
        return {seed: chosen[seed].folder for seed in sorted(chosen)}

    def places(self, text: str) -> str:
        """Name the folders of the runs of `select`: where they lie below what was searched, then each."""
        found = list(self.select(text).values())
        parents = dict.fromkeys(self._label(path.parent) for path in found)
        names = {parent: [path.name for path in found if self._label(path.parent) == parent] for parent in parents}
        return ", ".join(f"{parent}: {', '.join(members)}" for parent, members in names.items())

    def _label(self, place: Path) -> str:
        """The path of a folder from the searched one on, which it names."""
        root = next(folder for folder in self._folders if place.is_relative_to(folder.resolve()))
        return Path(root.resolve().name, place.relative_to(root.resolve())).as_posix()

    def read(self, text: str) -> dict[int, Run]:
        """Read the runs of `select`, by seed."""
        return {seed: self._run(folder) for seed, folder in self.select(text).items()}

    def _run(self, folder: Path) -> Run:
        if folder not in self._read:
            self._read[folder] = read_run(folder)
        return self._read[folder]

    def mean(self, text: str, figure: str) -> Estimate:
        """Return the mean over seeds with its standard error.

        Raises:
            MissingEvidenceError: fewer than two runs.
        """
        values = [figure_of(run.record, figure) for run in self.read(text).values()]
        return Estimate(
            value=fmean(values), error=_spread(text, values) / math.sqrt(len(values)), degrees=len(values) - 1
        )

    def one_run(self, text: str, figure: str, num_tokens: int | None) -> Estimate:
        """Return where one more run would lie: the spread over seeds, and the sampling error of a metric.

        Args:
            text: which runs.
            figure: of the test split.
            num_tokens: of the sample that the other run was scored on; None for the whole split.
        """
        runs = self.read(text)
        values = [figure_of(run.record, figure) for run in runs.values()]
        n = len(values)
        error = _spread(text, values) * math.sqrt(1 + 1 / n)
        parts = [error_part(error, n - 1)]
        if num_tokens is not None:
            parts.append(sampling_error(list(runs.values()), figure, num_tokens))
        total, degrees = combined_error(parts)
        return Estimate(value=fmean(values), error=total, degrees=degrees)

    def difference(self, first: str, second: str, figure: str) -> Estimate:
        """Return the mean difference A - B over common seeds, by the errors of seeds and of text."""
        pairs = self._pairs(first, second)
        values = [figure_of(a.record, figure) - figure_of(b.record, figure) for a, b in pairs]
        return self._paired(f"{first} - {second}", values, pairs, figure, 1.0, 1.0)

    def ratio(self, first: str, second: str, figure: str) -> Estimate:
        """Return A over B, geometric mean over common seeds, by the errors of seeds and of text."""
        pairs = self._pairs(first, second)
        if any(figure_of(run.record, figure) <= 0 for pair in pairs for run in pair):
            raise MissingEvidenceError(f"{figure} is not above 0 in every run, so it has no ratio")
        values = [math.log(figure_of(a.record, figure) / figure_of(b.record, figure)) for a, b in pairs]
        # d log(A / B) = (dA - A / B dB) / A
        means = [fmean(figure_of(run.record, figure) for run in side) for side in zip(*pairs, strict=True)]
        found = self._paired(f"{first} / {second}", values, pairs, figure, means[0] / means[1], 1 / means[0])
        return Estimate(value=found.value, error=found.error, degrees=found.degrees, is_log=True)

    def _pairs(self, first: str, second: str) -> list[tuple[Run, Run]]:
        left, right = self.read(first), self.read(second)
        if not (seeds := sorted(left.keys() & right.keys())):
            raise MissingEvidenceError(f"{first!r} and {second!r} have no seed in common")
        return [(left[seed], right[seed]) for seed in seeds]

    def _paired(
        self,
        text: str,
        values: Sequence[float],
        pairs: Sequence[tuple[Run, Run]],
        figure: str,
        weight: float,
        factor: float,
    ) -> Estimate:
        """Join the spread of paired values over seeds with `factor` times the text's error of A - weight B."""
        n = len(values)
        parts = [error_part(_spread(text, values) / math.sqrt(n), n - 1)]
        if figure in _BLOCKS:
            (a, size), (b, size_b) = (_mean_blocks([pair[side] for pair in pairs], figure) for side in (0, 1))
            nats_a, nats_b = a * math.log(2), weight * b * math.log(2)  # the bootstrap divides by it
            over_text = bootstrap_difference(nats_a, size, nats_b, size_b)
            parts.append(error_part(factor * over_text.standard_error, over_text.degrees))
        error, degrees = combined_error(parts)
        return Estimate(value=fmean(values), error=error, degrees=degrees)


def _check_alike(text: str, found: Sequence[Found]) -> None:
    """Refuse runs that are not seeds of one thing."""
    for folder, record in found[1:]:
        if _kind(record) != _kind(found[0].record):
            raise MissingEvidenceError(
                f"{text!r}: {found[0].folder.name} and {folder.name} differ in settings, text or eval mode; say more"
            )


def _kind(record: Record) -> tuple[object, ...]:
    mode = record.metrics.test.eval_mode if record.metrics.test else None
    return settings_key(record), record.data.splits.test.sha256, mode


def figure_of(record: Record, figure: str) -> float:
    """Return a figure of a record by its name in `record.json`.

    Raises:
        UsageError: there is no such figure.
        MissingEvidenceError: the record lacks it.
    """
    if figure.startswith(_BESIDE):
        return _beside(record, figure)
    if figure not in _FIGURES:
        raise UsageError(f"no figure '{figure}'. {suggest(figure, _FIGURES)}")
    value = _FIGURES[figure](record)
    if value is None:
        raise MissingEvidenceError(f"{record.name} has no {figure}")
    return value


def _beside(record: Record, figure: str) -> float:
    """Return a figure of a way that the compression of a pretrained model was compared with, beside.WAY.FIGURE."""
    way, _, key = figure.removeprefix(_BESIDE).rpartition(".")
    if key not in _BESIDE_FIGURES:
        raise UsageError(f"no figure '{key}' of a way beside a record. {suggest(key, _BESIDE_FIGURES)}")
    names = [part.name for part in record.beside]
    if way not in names:
        raise MissingEvidenceError(f"{record.name} has no '{way}' beside it. {suggest(way, names)}")
    value: float | None = getattr(record.beside[names.index(way)], key)
    if value is None:
        raise MissingEvidenceError(f"{record.name} has no {key} of '{way}'")
    return value


def sampling_error(runs: Sequence[Run], figure: str, num_tokens: int) -> Interval:
    """Return the error of a figure scored on a random sample of the text, from the spread between its blocks.

    Raises:
        UsageError: the figure is no mean over the text.
    """
    if figure not in _BLOCKS:
        raise UsageError(f"{figure} has no sampling error; its choices are {', '.join(_BLOCKS)}")
    sums, sizes = _mean_blocks(runs, figure)
    blocks = runs[0].blocks
    n = len(sums)
    residuals = sums - sums.sum() / sizes.sum() * sizes
    whole = math.sqrt(n / (n - 1) * float((residuals**2).sum())) / float(sizes.sum())
    return error_part(whole * math.sqrt(float(blocks.block_tokens.sum()) / num_tokens), n - 1)


def _mean_blocks(runs: Sequence[Run], figure: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    numerator, denominator, factor = _BLOCKS[figure]
    sizes = {tuple(getattr(run.blocks, denominator).tolist()) for run in runs}
    if len(sizes) > 1:
        raise UsageError("runs that were scored on other text, or in other blocks, cannot be compared")
    sums = np.mean([getattr(run.blocks, numerator) for run in runs], axis=0) * factor
    return sums, np.array(sizes.pop(), np.int64)


def _spread(text: str, values: Sequence[float]) -> float:
    if len(values) < 2:
        raise MissingEvidenceError(f"{text}: one run has no spread; run more seeds")
    return stdev(values)


def _matches(record: Record, wanted: Mapping[str, str]) -> bool:
    parent = SEED_SUFFIX.sub("", record.lineage[-1].name) if record.lineage else ""
    claim = record.seal.claim if record.seal else ""
    known = {"budget": record.budget.text, "data": record.data.name, "from": parent, "claim": claim}
    for section in ("model", "train", "export"):
        known |= {f"{section}.{key}": _plain(value) for key, value in getattr(record.settings, section).items()}
    if unknown := sorted(wanted.keys() - known.keys()):
        # settings of another method: no match, but a key that no record has is a mistake that stays unseen otherwise
        if not any(key.partition(".")[0] in ("model", "train", "export") for key in unknown):
            raise UsageError(f"no key '{unknown[0]}' to choose runs by. {suggest(unknown[0], list(known)[:3])}")
        return False
    return parent == wanted.get("from", "") and all(known[key] == value for key, value in wanted.items())


def _plain(value: object, inner: str = "+") -> str:
    """A setting as `--set` takes it, a list without brackets and commas."""
    if isinstance(value, (list, tuple)):
        return inner.join(_plain(part, inner=":") for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
