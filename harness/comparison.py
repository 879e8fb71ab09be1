"""What a set of finished runs says about methods: spread over seeds, paired differences, fronts, a winner or none.

A difference has two independent errors: that of the seeds (initial weights and data order; paired, since every method
has the same seeds) and that of the test text (block bootstrap over `scores.npz`). Both are shown; the test uses their
sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from harness.errors import RecordError, UsageError
from harness.method import BYTES_TOLERANCE
from harness.record_views import describe_machine
from harness.records.native import read_record
from harness.records.schema import Record
from harness.records.scores import BlockScores, read_scores
from harness.stats import Interval, bootstrap_difference, combined_error, half_width, holm, paired_interval, two_sided

ALPHA = 0.05
# A quantity is matched when all runs have it within this part of the largest; so is a budget of time.
TOLERANCE = 0.005


class Run(NamedTuple):
    """A complete record with its block scores."""

    record: Record
    blocks: BlockScores


Figure = Callable[[Record], float | None]


def spent(kind: str) -> Figure:
    """Return the figure of what a run spent of a budget's quantity, its ancestors' part included."""

    def total(record: Record) -> float | None:
        ancestors = [ancestor.spent for ancestor in record.lineage]
        if None in ancestors:
            return None  # nobody knows what the training of a pretrained model cost
        return math.fsum(getattr(part, kind) for part in (record.budget.spent, *ancestors))

    return total


def _params(kind: str) -> Figure:
    return lambda record: getattr(record.params, kind) if record.params else None


def _test(key: str) -> Figure:
    return lambda record: getattr(record.metrics.test, key) if record.metrics.test else None


# Every quantity that is printed beside the score, in the order of the table.
FIGURES: Mapping[str, Figure] = {
    "loss_nats": _test("loss_nats"),
    "token_accuracy": _test("token_accuracy"),
    "artifact_bytes": lambda record: record.artifact.artifact_bytes if record.artifact else None,
    "stored": _params("stored"),
    "effective": _params("effective"),
    "active": _params("active"),
    "steps": spent("steps"),
    "tokens": spent("tokens"),
    "flops": spent("flops"),
    "seconds": spent("seconds"),
    "peak_memory_bytes": lambda record: record.progress.peak_memory_bytes if record.progress else None,
}
# What a smaller score is weighed against, on a Pareto front each.
AXES = ("artifact_bytes", "stored", "seconds", "peak_memory_bytes")
# What may be matched, with how much of it may differ.
MATCHABLE = {
    **dict.fromkeys(("seconds", "steps", "tokens", "flops"), TOLERANCE),
    **dict.fromkeys(("artifact_bytes", "stored"), BYTES_TOLERANCE),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """The runs of one contender, by seed, at least one."""

    name: str
    runs: Mapping[int, Run]

    @property
    def scores(self) -> list[float]:
        """Bits per byte of the test split, a seed each."""
        return [self.score(seed) for seed in self.runs]

    def score(self, seed: int) -> float:
        """Bits per byte of the test split of one seed."""
        test = self.runs[seed].record.metrics.test
        assert test is not None, "only complete records are compared"
        return test.val_bpb

    @property
    def mean_bpb(self) -> float:
        """Mean over seeds."""
        return fmean(self.scores)

    @property
    def sd_bpb(self) -> float | None:
        """Standard deviation over seeds; None for one."""
        return stdev(self.scores) if len(self.runs) > 1 else None

    def figures(self, name: str) -> list[float | None]:
        """Return a figure of every run."""
        return [FIGURES[name](run.record) for run in self.runs.values()]

    def mean(self, name: str) -> float | None:
        """Mean of a figure over seeds; None where a run lacks it."""
        known = [value for value in self.figures(name) if value is not None]
        return fmean(known) if len(known) == len(self.runs) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation:
    """How one contender scores against another, bits per byte of A - B; below zero A is better.

    Attributes:
        first: name of A.
        second: name of B.
        num_seeds: seeds that both have.
        difference: mean over these seeds.
        over_seeds: interval of the paired differences over seeds; None for a single seed.
        over_text: interval of the block bootstrap over the test text, mean of the same seeds.
        p_value: of no difference, by both errors together; None for a single seed.
        p_holm: the same, corrected for the number of relations (Holm).
        visible_bpb: the smallest difference that these seeds would settle, whatever the other pairs show.
    """

    first: str
    second: str
    num_seeds: int
    difference: float
    over_seeds: Interval | None
    over_text: Interval
    p_value: float | None = None
    p_holm: float | None = None
    visible_bpb: float | None = None

    @property
    def better(self) -> str | None:
        """Name of the one that is better beyond chance; None where that is not settled."""
        if self.p_holm is None or self.p_holm >= ALPHA:
            return None
        return self.first if self.difference < 0 else self.second

    @property
    def verdict(self) -> str:
        """The relation in words."""
        if self.over_seeds is None:
            return "not settled: one seed"
        return f"{self.better} is better" if self.better else "not settled"


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Groups by rising mean score, the relation of each pair, fronts, and how fair it is.

    Attributes:
        groups: by rising mean score.
        relations: of each pair with a common seed.
        fronts: names of the groups that no other one beats in both the score and a figure, by figure.
        matched: the quantities that all runs have alike.
        problems: what stands against naming a winner.
    """

    groups: tuple[Group, ...]
    relations: tuple[Relation, ...]
    fronts: Mapping[str, tuple[str, ...]]
    matched: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def winner(self) -> str | None:
        """The contender that is better than each other one beyond chance, in a fair comparison; else None."""
        if self.problems or not self.matched:
            return None
        for group in self.groups:
            own = [each for each in self.relations if group.name in (each.first, each.second)]
            if own and len(own) == len(self.groups) - 1 and all(each.better == group.name for each in own):
                return group.name
        return None


def read_run(folder: Path) -> Run:
    """Read a complete record and its block scores.

    Raises:
        RecordError: one cannot be read; names the folder.
    """
    try:
        return Run(read_record(folder), read_scores(folder))
    except RecordError as error:
        raise RecordError(f"{folder}: {error}" if str(folder) not in str(error) else str(error)) from error


def compare(groups: Sequence[Group], *, target_params: int = 0) -> Comparison:
    """Compare groups of complete runs.

    Args:
        groups: one for each contender.
        target_params: stored parameters that all were to have; 0 for none.

    Raises:
        UsageError: runs were scored on other text or in another eval mode.
    """
    _check_comparable(groups)
    ordered = tuple(sorted(groups, key=lambda group: (group.mean_bpb, group.name)))
    relations = [found for pair in combinations(ordered, 2) if (found := _relate(*pair)) is not None]
    is_one_machine = len(machines(ordered)) == 1
    return Comparison(
        groups=ordered,
        relations=tuple(_correct(relations)),
        fronts={axis: _front(ordered, axis) for axis in AXES if axis != "seconds" or is_one_machine},
        matched=tuple(
            name for name in MATCHABLE if _is_matched(ordered, name) and (name != "seconds" or is_one_machine)
        ),
        problems=(*_problems(ordered), *_off_params(ordered, target_params)),
    )


def machines(groups: Sequence[Group]) -> set[str]:
    """Name the machines of all runs, those before a resume included."""
    records = [run.record for group in groups for run in group.runs.values()]
    return {describe_machine(part) for record in records for part in (record.environment, *record.earlier_environments)}


def match_problem(record: Record) -> str | None:
    """Say why a run does not match others at its own budget or size; None where it does."""
    budget, progress = record.budget, record.progress
    if budget.kind in ("seconds", "gpu_seconds") and progress is not None:
        tolerance, step_seconds = TOLERANCE * budget.amount, progress.median_step_seconds or 0.0
        if step_seconds > tolerance:
            return f"a step takes {step_seconds:.3g} s, more than 0.5% of the budget; give a larger --budget"
        amount = budget.spent.seconds if budget.kind == "seconds" else budget.spent.gpu_seconds
        if abs(amount - budget.amount) > max(tolerance, step_seconds):
            return f"{amount:.1f} s of {budget.amount:.1f} s were spent"
        if record.contended:
            return "contended: the machine's speed drifted by more than 5%"
    target_bytes = record.settings.export.get("target_bytes")
    if isinstance(target_bytes, int) and target_bytes > 0 and record.artifact is not None:
        below = 1 - record.artifact.artifact_bytes / target_bytes
        if not 0 <= below <= BYTES_TOLERANCE:
            return f"its file is {below:.1%} below {target_bytes:,} bytes; the network is too small for that size"
    return None


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
    differences = [first.score(seed) - second.score(seed) for seed in seeds]
    return Relation(
        first=first.name,
        second=second.name,
        num_seeds=len(seeds),
        difference=fmean(differences),
        over_seeds=paired_interval(differences) if len(seeds) > 1 else None,
        over_text=_over_text([first.runs[seed].blocks for seed in seeds], [second.runs[seed].blocks for seed in seeds]),
    )


def _over_text(first: Sequence[BlockScores], second: Sequence[BlockScores]) -> Interval:
    if len({blocks.block_nats.size for blocks in (*first, *second)}) > 1:
        raise UsageError("the records were not scored on the same text, so their blocks cannot be paired")
    import numpy as np

    nats_a, nats_b = (np.mean([blocks.block_nats for blocks in each], axis=0) for each in (first, second))
    return bootstrap_difference(nats_a, first[0].block_bytes, nats_b, second[0].block_bytes)


def _correct(relations: Sequence[Relation]) -> Iterator[Relation]:
    """Test each relation by both of its errors, corrected for their number."""
    tested = {}
    for each in relations:
        if each.over_seeds is not None:
            tested[each.first, each.second] = combined_error((each.over_seeds, each.over_text))
    p_values = [
        two_sided(each.difference, *tested[each.first, each.second])
        for each in relations
        if (each.first, each.second) in tested
    ]
    found = iter(zip(p_values, holm(p_values), strict=True))
    for each in relations:
        if (error := tested.get((each.first, each.second))) is None:
            yield each
        else:
            p_value, p_holm = next(found)
            visible = half_width(*error, num_tests=len(p_values))
            yield replace(each, p_value=p_value, p_holm=p_holm, visible_bpb=visible)


def _front(groups: Sequence[Group], figure: str) -> tuple[str, ...]:
    return find_front(
        [(group.name, group.mean_bpb, value) for group in groups if (value := group.mean(figure)) is not None]
    )


def find_front(points: Sequence[tuple[str, float, float]]) -> tuple[str, ...]:
    """Return the names of the points (name, score, cost) that no other one beats in both, less being better."""
    return tuple(
        name
        for name, bpb, value in points
        if not any(
            other_bpb <= bpb and other <= value and (other_bpb, other) != (bpb, value) for _, other_bpb, other in points
        )
    )


def _is_matched(groups: Sequence[Group], name: str) -> bool:
    values = [value for group in groups for value in group.figures(name)]
    known = [value for value in values if value is not None]
    return bool(known) and len(known) == len(values) and max(known) - min(known) <= MATCHABLE[name] * max(known)


def params_error(group: Group, target_params: int) -> float | None:
    """Return how far the stored parameters of a contender are above a target, as a part of it; None if not counted."""
    stored = group.mean("stored")
    return None if stored is None else stored / target_params - 1


def _off_params(groups: Sequence[Group], target_params: int) -> Iterator[str]:
    for group in groups if target_params else ():
        if (error := params_error(group, target_params)) is None or abs(error) > BYTES_TOLERANCE:
            off = "not known" if error is None else f"{error:+.1%} of the target"
            yield f"not matched: {group.name}: stored parameters are {off}"


def _problems(groups: Sequence[Group]) -> Iterator[str]:
    for group in groups:
        for seed, run in group.runs.items():
            if problem := match_problem(run.record):
                yield f"not matched: {group.name}, seed {seed}: {problem}"
    is_timed = any(
        run.record.budget.kind in ("seconds", "gpu_seconds") for group in groups for run in group.runs.values()
    )
    if is_timed and len(machines(groups)) > 1:
        yield "not matched: budgets of time on unlike machines"
    if len({frozenset(group.runs) for group in groups}) > 1:
        yield "the contenders have unlike seeds: means and fronts mix what pairs do not"
