"""A figure of our runs with its standard error, and the slope of several over the size of what was run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.claims.quantities import Number, between
from harness.stats import Interval, combined_error, half_width, slope_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A figure with its standard error.

    Attributes:
        value: the figure.
        error: standard error; 0 where it is exact.
        degrees: of freedom of the error (Student's t).
        is_log: whether `value` and `error` are those of the logarithm.
    """

    value: float
    error: float
    degrees: float
    is_log: bool = False

    @property
    def at_no_effect(self) -> float:
        """What `at` gives where there is no effect: 1 for a ratio, 0 for a difference."""
        return 1.0 if self.is_log else 0.0

    def at(self, alpha: float) -> Number:
        """Return the figure within its two-sided interval at level 1 - alpha."""
        margin = half_width(self.error, self.degrees, num_tests=1, alpha=alpha) if self.error else 0.0
        low, value, high = self.value - margin, self.value, self.value + margin
        return between(*((math.exp(low), math.exp(high), math.exp(value)) if self.is_log else (low, high, value)))


def error_part(error: float, degrees: float) -> Interval:
    """Return a standard error as a part of `combined_error`, around nothing."""
    return Interval(low=-math.inf, high=math.inf, standard_error=error, degrees=degrees)


def slope_over_size(num_params: Sequence[float], estimates: Sequence[Estimate]) -> Estimate:
    """Return what a doubling of the parameters adds to a figure, by a straight line over log2 of the parameters.

    Errors of the sizes are taken as independent. They share the text that they were scored on: where it moves all sizes
    one way the interval is wider than it has to be, where they share runs it is narrower.

    Args:
        num_params: of each size, two or more that are not all one.
        estimates: the figure at each; of ratios all, then a doubling multiplies, or none.
    """
    weights = slope_weights(num_params)
    pairs = list(zip(weights.tolist(), estimates, strict=True))
    error, degrees = combined_error([error_part(abs(weight) * each.error, each.degrees) for weight, each in pairs])
    # about the mean: figures that are all one have a slope of 0, not of a rounding
    middle = fmean(each.value for each in estimates)
    value = math.fsum(weight * (each.value - middle) for weight, each in pairs)
    return Estimate(value=value, error=error, degrees=degrees, is_log=estimates[0].is_log)
