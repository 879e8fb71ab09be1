"""What a set of finished runs says about methods: spread over seeds, paired differences, fronts, a winner or none.

Two errors are kept apart: that of the seeds (initial weights and data order; paired t-test, since every method has the
same seeds) and that of the test text (block bootstrap over `scores.npz`). A difference counts when both exclude zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from harness.errors import UsageError
from harness.records.native import read_record
from harness.records.schema import Record
from harness.records.scores import BlockScores, read_scores
from harness.stats import Interval, bootstrap_difference, holm, paired_interval

LEVEL = 0.95
# What a smaller score is weighed against, on a Pareto front each.
AXES: Mapping[str, str] = {
    "bytes": "file bytes",
    "params": "stored parameters",
    "seconds": "seconds",
    "memory": "peak memory",
}


class Run(NamedTuple):
    """A complete record with its block scores."""

    record: Record
    blocks: BlockScores


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """The runs of one contender.

    Attributes:
        name: of the contender.
        runs: by seed, at least one.
    """

    name: str
    runs: Mapping[int, Run]

    @property
    def scores(self) -> list[float]:
        """Bits per byte of the test split, a seed each."""
        return [_score(run) for run in self.runs.values()]

    @property
    def mean_bpb(self) -> float:
        """Mean over seeds."""
        return fmean(self.scores)

    @property
    def sd_bpb(self) -> float | None:
        """Standard deviation over seeds; None for one."""
        return stdev(self.scores) if len(self.runs) > 1 else None

    def mean(self, figure: Callable[[Record], float | None]) -> float | None:
        """Mean of a figure over seeds; None where a run lacks it."""
        found = [figure(run.record) for run in self.runs.values()]
        known = [value for value in found if value is not None]
        return fmean(known) if len(known) == len(found) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation:
    """How one contender scores against another, bits per byte of A - B; below zero A is better.

    Attributes:
        first: name of A.
        second: name of B.
        num_seeds: seeds that both have.
        difference: mean over these seeds.
        over_seeds: interval and p-value of the paired t-test over seeds; None for a single seed.
        over_text: interval of the block bootstrap over the test text, mean of the same seeds.
        p_holm: p-value over seeds, corrected for the number of relations (Holm).
    """

    first: str
    second: str
    num_seeds: int
    difference: float
    over_seeds: Interval | None
    over_text: Interval
    p_holm: float | None

    @property
    def visible_bpb(self) -> float | None:
        """The smallest difference that these seeds would show: half of the interval's width."""
        return None if self.over_seeds is None else (self.over_seeds.high - self.over_seeds.low) / 2

    @property
    def is_settled(self) -> bool:
        """Whether the sign of the difference is beyond the seeds' and the text's chance."""
        if self.over_seeds is None or self.p_holm is None:
            return False
        same_side = self.over_text.low > 0 or self.over_text.high < 0
        return same_side and self.p_holm < 1 - LEVEL and self.difference * self.over_text.low > 0

    @property
    def verdict(self) -> str:
        """The relation in words."""
        if self.over_seeds is None:
            return "not settled: one seed"
        if not self.is_settled:
            return "not settled"
        return f"{self.first if self.difference < 0 else self.second} is better"


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Groups by rising mean score, the relation of each pair, and on which fronts each group is."""

    groups: tuple[Group, ...]
    relations: tuple[Relation, ...]
    fronts: Mapping[str, tuple[str, ...]]

    @property
    def winner(self) -> str | None:
        """The contender that is better than each other one beyond chance; None where there is none."""
        if not self.groups:
            return None
        best = self.groups[0].name
        own = [relation for relation in self.relations if best in (relation.first, relation.second)]
        return best if own and all(relation.is_settled for relation in own) else None


def read_run(folder: Path) -> Run:
    """Read a complete record and its block scores."""
    return Run(read_record(folder), read_scores(folder))


def compare(groups: Sequence[Group]) -> Comparison:
    """Compare groups of complete runs.

    Raises:
        UsageError: runs were scored on other text or in another eval mode.
    """
    _check_comparable(groups)
    ordered = tuple(sorted(groups, key=lambda group: (group.mean_bpb, group.name)))
    relations = [found for pair in combinations(ordered, 2) if (found := _relate(*pair)) is not None]
    corrected = iter(holm([each.over_seeds.p_value for each in relations if each.over_seeds is not None]))
    return Comparison(
        groups=ordered,
        relations=tuple(
            each if each.over_seeds is None else replace(each, p_holm=next(corrected)) for each in relations
        ),
        fronts={axis: _front(ordered, FIGURES[axis]) for axis in AXES},
    )


def _artifact_bytes(record: Record) -> float | None:
    return record.artifact.artifact_bytes if record.artifact else None


def _stored(record: Record) -> float | None:
    return record.params.stored if record.params else None


def _seconds(record: Record) -> float:
    return total_spent(record, "seconds")


def _memory(record: Record) -> float | None:
    return record.progress.peak_memory_bytes if record.progress else None


FIGURES: Mapping[str, Callable[[Record], float | None]] = {
    "bytes": _artifact_bytes,
    "params": _stored,
    "seconds": _seconds,
    "memory": _memory,
}


def total_spent(record: Record, kind: str) -> float:
    """What a run spent of a budget's quantity, its ancestors' part included."""
    return math.fsum(
        [getattr(record.budget.spent, kind), *(getattr(ancestor.spent, kind) for ancestor in record.lineage)]
    )


def _score(run: Run) -> float:
    assert run.record.metrics.test is not None, "only complete records are compared"
    return run.record.metrics.test.val_bpb


def _check_comparable(groups: Sequence[Group]) -> None:
    first = ""
    for group in groups:
        for run in group.runs.values():
            test, data = run.record.metrics.test, run.record.data
            assert test is not None, "only complete records are compared"
            mode = test.eval_mode
            key = f"{data.splits.test.sha256}, eval {mode.mode} {mode.context}/{mode.stride}, partial {test.partial}"
            first = first or key
            if key != first:
                raise UsageError(
                    f"{group.name} was scored on other text or in another eval mode than {groups[0].name}, so the two "
                    f"cannot share a table ({key} against {first})"
                )


def _relate(first: Group, second: Group) -> Relation | None:
    seeds = sorted(first.runs.keys() & second.runs.keys())
    if not seeds:
        return None
    differences = [_score(first.runs[seed]) - _score(second.runs[seed]) for seed in seeds]
    blocks = [(first.runs[seed].blocks, second.runs[seed].blocks) for seed in seeds]
    return Relation(
        first=first.name,
        second=second.name,
        num_seeds=len(seeds),
        difference=fmean(differences),
        over_seeds=paired_interval(differences, level=LEVEL) if len(seeds) > 1 else None,
        over_text=bootstrap_difference(
            [(a.block_nats, b.block_nats) for a, b in blocks], blocks[0][0].block_bytes, level=LEVEL
        ),
        p_holm=None,
    )


def _front(groups: Sequence[Group], figure: Callable[[Record], float | None]) -> tuple[str, ...]:
    """Name the groups that no other one beats in both the mean score and the mean of a figure."""
    points = [(group.name, group.mean_bpb, value) for group in groups if (value := group.mean(figure)) is not None]
    return tuple(
        name
        for name, bpb, value in points
        if not any(
            other_bpb <= bpb and other <= value and (other_bpb, other) != (bpb, value) for _, other_bpb, other in points
        )
    )
