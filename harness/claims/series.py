"""How an effect goes with size: predicates of one claim that ask the same of runs of several sizes.

A smaller run closes no claim. What a series adds is whether the effect moves toward the claim or away from it between
the sizes that were run; it says nothing about any other size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.claims.answer import ALPHA, Answer
from harness.claims.effects import effect_of
from harness.claims.estimates import Estimate, slope_over_size
from harness.claims.quantities import Number, Truth
from harness.stats import holm_levels, two_sided

# Between sizes nearer than this a slope for a doubling would be a multiple of any noise.
LEAST_SPAN = 1.25


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeEffect:
    """The effect at one size.

    Attributes:
        num_params: stored parameters of the runs, geometric mean of both sides.
        estimate: the effect with its error.
        alpha: level that its predicate was asked at.
        truth: what that answered.
        eval_modes: how the runs were scored.
    """

    num_params: int
    estimate: Estimate
    alpha: float
    truth: Truth
    eval_modes: tuple[str, ...] = ()

    @property
    def effect(self) -> Number:
        """The effect within its interval at the level of the answer."""
        return self.estimate.at(self.alpha)

    @property
    def sign(self) -> int:
        """1 or -1 where there is an effect beyond chance, else 0."""
        none = self.estimate.at_no_effect
        return (self.effect.low > none) - (self.effect.high < none)


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """An effect at several sizes and the line through it.

    Attributes:
        name: of the series, in its claim.
        asks: what its predicates ask but for the runs.
        is_above: whether the claim says that the effect is above a number, not below.
        sizes: effects from the smallest to the largest; predicates without runs are left out.
        slope: what a doubling of the stored parameters adds to the effect, to its logarithm where it is a ratio; None
            for fewer than two sizes, and where they were scored in unlike modes.
        p_value: of no slope; None without one.
        alpha: level of the slope's interval, corrected for the number of slopes of one file (Holm).
    """

    name: str
    asks: str
    is_above: bool
    sizes: tuple[SizeEffect, ...]
    slope: Estimate | None = None
    p_value: float | None = None
    alpha: float = ALPHA

    @property
    def per_doubling(self) -> Number | None:
        """What a doubling adds to the effect, or multiplies a ratio by, within its interval."""
        return self.slope.at(self.alpha) if self.slope else None

    @property
    def trend(self) -> str:
        """The trend in words, no more than the interval allows."""
        if self.slope is None:
            return self._no_slope
        moves = self.per_doubling
        assert moves is not None
        if moves.low <= self.slope.at_no_effect <= moves.high:
            return "no trend beyond chance"
        rises = moves.value > self.slope.at_no_effect
        toward = "toward the claim" if rises == self.is_above else "away from the claim"
        return f"{_movement(self.sizes[0].sign, self.sizes[-1].sign, rises=rises)} with size, {toward}"

    @property
    def _no_slope(self) -> str:
        if not self.sizes:
            return "not run"
        return "no trend: sizes scored in unlike modes" if _num_modes(self.sizes) > 1 else "no trend: one size"


def _num_modes(sizes: Sequence[SizeEffect]) -> int:
    return len({mode for size in sizes for mode in size.eval_modes})


def _movement(smallest: int, largest: int, *, rises: bool) -> str:
    """Say how an effect moves that is of these signs at its ends: it grows only where it is known to be there."""
    if smallest * largest < 0:
        return "turns round"
    if not (smallest or largest):
        return "rises" if rises else "falls"
    return "grows" if rises == ((smallest or largest) > 0) else "shrinks"


def find_series(answers: Sequence[Answer]) -> list[Series]:
    """Return the series of a claim, not yet corrected for their number.

    Args:
        answers: of the claim's predicates.
    """
    names = dict.fromkeys(each.predicate.series for each in answers if each.predicate.series)
    return [_series(name, [each for each in answers if each.predicate.series == name]) for name in names]


def _series(name: str, answers: Sequence[Answer]) -> Series:
    effect = effect_of(answers[0].predicate.tree)
    assert effect is not None  # read_claims() refuses a series of another form
    sizes = sorted((found for each in answers if (found := _size(each))), key=lambda size: size.num_params)
    series = Series(name=name, asks=effect.asks, is_above=effect.is_above, sizes=tuple(sizes))
    if not sizes or sizes[-1].num_params < LEAST_SPAN * sizes[0].num_params or _num_modes(sizes) > 1:
        return series
    slope = slope_over_size([size.num_params for size in sizes], [size.estimate for size in sizes])
    return replace(series, slope=slope, p_value=two_sided(slope.value, slope.error, slope.degrees))


def _size(answer: Answer) -> SizeEffect | None:
    for item in answer.items:  # the form of a series has one fetch
        if item.estimate and item.num_params and not answer.missing:
            return SizeEffect(
                num_params=item.num_params,
                estimate=item.estimate,
                alpha=answer.alpha,
                truth=answer.truth,
                eval_modes=item.eval_modes,
            )
    return None


def correct_series(by_claim: Sequence[Sequence[Series]]) -> list[list[Series]]:
    """Give every slope of a file its level, corrected for how many there are (Holm); those of predicates stay as is.

    Args:
        by_claim: series of each claim of a file.
    """
    p_values = [each.p_value for series in by_claim for each in series if each.p_value is not None]
    levels = iter(holm_levels(p_values, ALPHA))
    return [
        [each if each.p_value is None else replace(each, alpha=next(levels)) for each in series] for series in by_claim
    ]
