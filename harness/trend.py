"""How a difference between two contenders goes with size: a straight line through the sizes, with its error.

The line is fitted to the differences in bits per byte over log2 of the stored parameters. It says whether a gap grows
or shrinks between the smallest and the largest size that were run, and nothing about any other size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from harness.comparison import ALPHA, Comparison, Group, Relation
from harness.errors import UsageError
from harness.stats import (
    Interval,
    bootstrap_difference,
    combined_error,
    half_width,
    holm,
    paired_interval,
    slope_weights,
    two_sided,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """A comparison at one size.

    Attributes:
        size: name of the size.
        comparison: at this size; its groups are named alike at all sizes.
    """

    size: str
    comparison: Comparison

    def group(self, name: str) -> Group | None:
        """Return a contender, None where it has no complete run at this size."""
        return next((group for group in self.comparison.groups if group.name == name), None)

    def relation(self, first: str, second: str) -> Relation | None:
        """Return the relation of two contenders, whichever is named first in it."""
        pair = {first, second}
        return next((each for each in self.comparison.relations if {each.first, each.second} == pair), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trend:
    """How far contender A is from B at each size, and the line through that.

    Attributes:
        first: name of A.
        second: name of B.
        sizes: names of the sizes that both have runs at, from small to large.
        num_params: stored parameters at each, geometric mean of the two contenders.
        num_seeds: seeds that both have at each of these sizes.
        differences: bits per byte A - B at each, mean over these seeds.
        slope: bits per byte of A - B more for each doubling of the stored parameters.
        over_seeds: interval of the slope over seeds; None for a single seed.
        over_text: interval of the slope by a block bootstrap over the test text.
        low: lower end of the 95% interval of the slope by both errors; None for a single seed.
        high: upper end.
        p_holm: of no slope, corrected for the number of trends (Holm); None for a single seed.
        better_at_ends: name of the contender that is better beyond chance at the smallest and at the largest size; None
            where that is not settled.
    """

    first: str
    second: str
    sizes: tuple[str, ...]
    num_params: tuple[float, ...]
    num_seeds: int
    differences: tuple[float, ...]
    slope: float
    over_seeds: Interval | None
    over_text: Interval
    better_at_ends: tuple[str | None, str | None]
    low: float | None = None
    high: float | None = None
    p_holm: float | None = None

    @property
    def verdict(self) -> str:
        """The trend in words."""
        if self.p_holm is None:
            return "not settled: one seed"
        if self.p_holm >= ALPHA:
            return "not settled"
        at_smallest, at_largest = self.better_at_ends
        if at_smallest and at_largest and at_smallest != at_largest:
            return "the order turns round"
        is_rising = self.slope > 0
        # below zero A is better: where the better one is known, its lead is the gap
        match at_smallest or at_largest:
            case None:
                return f"A - B {'rises' if is_rising else 'falls'}"
            case leader:
                return "the gap grows" if is_rising == (leader == self.second) else "the gap shrinks"


def find_trends(rungs: Sequence[Rung]) -> list[Trend]:
    """Return the trend of each pair that has runs at two sizes or more with a seed in common."""
    names = dict.fromkeys(group.name for rung in rungs for group in rung.comparison.groups)
    return _correct([found for pair in combinations(names, 2) if (found := _trend(rungs, *pair)) is not None])


def _trend(rungs: Sequence[Rung], first: str, second: str) -> Trend | None:
    pairs = []
    for rung in rungs:
        groups = rung.group(first), rung.group(second)
        if groups[0] is not None and groups[1] is not None and (number := _num_params(groups[0], groups[1])):
            pairs.append((number, rung.size, groups[0], groups[1]))
    pairs.sort(key=lambda pair: pair[0])
    seeds = sorted(set.intersection(*(pair[2].runs.keys() & pair[3].runs.keys() for pair in pairs))) if pairs else []
    if len({pair[0] for pair in pairs}) < 2 or not seeds:
        return None
    weights = slope_weights([number for number, *_ in pairs])
    by_seed = np.array([[a.score(seed) - b.score(seed) for _, _, a, b in pairs] for seed in seeds])
    slopes = by_seed @ weights
    return Trend(
        first=first,
        second=second,
        sizes=tuple(size for _, size, _, _ in pairs),
        num_params=tuple(number for number, *_ in pairs),
        num_seeds=len(seeds),
        differences=tuple(map(float, by_seed.mean(axis=0))),
        slope=float(slopes.mean()),
        over_seeds=paired_interval(slopes.tolist()) if len(seeds) > 1 else None,
        over_text=_over_text([(a, b) for _, _, a, b in pairs], seeds, weights),
        better_at_ends=_better_at_ends(rungs, pairs[0][1], pairs[-1][1], first, second),
    )


def _better_at_ends(
    rungs: Sequence[Rung], smallest: str, largest: str, first: str, second: str
) -> tuple[str | None, str | None]:
    relations = {rung.size: rung.relation(first, second) for rung in rungs}
    ends = (relations[smallest], relations[largest])
    found = tuple(None if end is None else end.better for end in ends)
    return found[0], found[1]


def _num_params(first: Group, second: Group) -> float | None:
    stored = first.mean("stored"), second.mean("stored")
    return math.sqrt(stored[0] * stored[1]) if stored[0] and stored[1] else None


def _over_text(pairs: Sequence[tuple[Group, Group]], seeds: Sequence[int], weights: NDArray[np.float64]) -> Interval:
    """Resample blocks of the text; each is drawn for all sizes at once, since all were scored on the same text."""
    blocks = [group.runs[seed].blocks for pair in pairs for group in pair for seed in seeds]
    if any(not np.array_equal(each.block_bytes, blocks[0].block_bytes) for each in blocks):
        raise UsageError("the sizes were not scored on the same text in the same blocks, so they make no ladder")
    if len({(each.context, each.stride) for each in blocks}) > 1:
        raise UsageError("the sizes were scored in unlike eval modes, so they make no ladder; start a new one")
    # the slope is a weighted sum over sizes of nats of A less those of B
    sides = [
        sum(
            weight * np.mean([pair[side].runs[seed].blocks.block_nats for seed in seeds], axis=0)
            for weight, pair in zip(weights, pairs, strict=True)
        )
        for side in (0, 1)
    ]
    return bootstrap_difference(sides[0], blocks[0].block_bytes, sides[1], blocks[0].block_bytes)


def _correct(trends: Sequence[Trend]) -> list[Trend]:
    """Test each trend by both of its errors, corrected for their number."""
    tested = [(trend, trend.over_seeds) for trend in trends if trend.over_seeds is not None]
    errors = [combined_error((over_seeds, trend.over_text)) for trend, over_seeds in tested]
    p_values = holm([two_sided(trend.slope, *error) for (trend, _), error in zip(tested, errors, strict=True)])
    found = {}
    for (trend, _), error, p_holm in zip(tested, errors, p_values, strict=True):
        margin = half_width(*error, num_tests=1)
        found[trend.first, trend.second] = replace(
            trend, low=trend.slope - margin, high=trend.slope + margin, p_holm=p_holm
        )
    return [found.get((trend.first, trend.second), trend) for trend in trends]
