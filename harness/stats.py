"""Statistics of comparisons (scipy)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedDifference:
    """Difference B - A of two scores on the same text, with its error from sampling the text.

    Attributes:
        num_blocks: blocks of text in the test.
        difference: bits per byte, B - A.
        standard_error: of the difference, over blocks.
        low: lower end of the 95% interval (Student's t).
        high: upper end of the 95% interval.
        p_value: two-sided p-value of no difference.
    """

    num_blocks: int
    difference: float
    standard_error: float
    low: float
    high: float
    p_value: float


def compare_blocks(
    nats_a: NDArray[np.float64],
    bytes_a: NDArray[np.int64],
    nats_b: NDArray[np.float64],
    bytes_b: NDArray[np.int64],
) -> PairedDifference:
    """Compare two scores block by block of the same text (a ratio estimator: blocks weigh by their bytes).

    Blocks are counted where a token's text begins, so that two tokenizers may differ by a few bytes a block; the
    residuals of each side use its own bytes. The seeds' own spread is not in this error.

    Args:
        nats_a: float64 (blocks,), summed nats of record A.
        bytes_a: int64 (blocks,), bytes of text of these blocks.
        nats_b: as `nats_a`, for record B.
        bytes_b: as `bytes_a`, for record B.

    Raises:
        UsageError: other numbers of blocks or other text, or fewer than two blocks.
    """
    from scipy import stats

    if nats_a.size != nats_b.size or bytes_a.sum() != bytes_b.sum():
        raise UsageError("the two records were not scored on the same text, so their blocks cannot be paired")
    n = nats_a.size
    if n < 2:
        raise UsageError("one block of text is too little for a paired test")
    total_bytes = float(bytes_a.sum())
    bpb_a, bpb_b = (float(nats.sum()) / math.log(2) / total_bytes for nats in (nats_a, nats_b))
    residuals = (nats_b / math.log(2) - bpb_b * bytes_b) - (nats_a / math.log(2) - bpb_a * bytes_a)
    standard_error = math.sqrt(n / (n - 1) * float((residuals**2).sum())) / total_bytes
    difference = bpb_b - bpb_a
    margin = float(stats.t.ppf(0.975, n - 1)) * standard_error
    if standard_error == 0:
        p_value = 1.0 if difference == 0 else 0.0
    else:
        p_value = float(2 * stats.t.sf(abs(difference) / standard_error, n - 1))
    return PairedDifference(
        num_blocks=n,
        difference=difference,
        standard_error=standard_error,
        low=difference - margin,
        high=difference + margin,
        p_value=p_value,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A two-sided 95% confidence interval.

    Attributes:
        low: lower end.
        high: upper end.
        standard_error: of what it is around.
        degrees: of freedom of the standard error.
    """

    low: float
    high: float
    standard_error: float
    degrees: float


def paired_interval(differences: Sequence[float]) -> Interval:
    """Return the interval of the mean of paired differences (Student's t, one sample).

    Raises:
        UsageError: fewer than two pairs.
    """
    from scipy import stats

    n = len(differences)
    if n < 2:
        raise UsageError("one pair has no spread; run more seeds")
    standard_error, mean = stdev(differences) / math.sqrt(n), fmean(differences)
    margin = float(stats.t.ppf(0.975, n - 1)) * standard_error
    return Interval(low=mean - margin, high=mean + margin, standard_error=standard_error, degrees=n - 1)


def bootstrap_difference(
    nats_a: NDArray[np.float64],
    bytes_a: NDArray[np.int64],
    nats_b: NDArray[np.float64],
    bytes_b: NDArray[np.int64],
    *,
    num_resamples: int = 9_999,
) -> Interval:
    """Return the interval of bits per byte A - B from resampling blocks of the text (percentiles, a fixed seed).

    A block is drawn for A and B at once, which keeps them paired.

    Args:
        nats_a: float64 (blocks,), mean over seeds.
        bytes_a: int64 (blocks,), bytes of text of these blocks.
        nats_b: as `nats_a`, for B.
        bytes_b: as `bytes_a`, for B.
        num_resamples: draws.

    Raises:
        UsageError: other numbers of blocks or other text, or fewer than two blocks.
    """
    from scipy import stats

    if nats_a.size != nats_b.size or bytes_a.sum() != bytes_b.sum():
        raise UsageError("the records were not scored on the same text, so their blocks cannot be paired")
    if nats_a.size < 2 or (bytes_a <= 0).any() or (bytes_b <= 0).any():
        raise UsageError("a bootstrap needs two blocks of text or more, none of them empty")

    def difference(*samples: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        bits_a, size_a, bits_b, size_b = (sample.sum(axis) for sample in samples)
        found: NDArray[np.float64] = bits_a / size_a - bits_b / size_b
        return found

    bits_a, bits_b = nats_a / math.log(2), nats_b / math.log(2)
    found = stats.bootstrap(
        (bits_a, bytes_a.astype(np.float64), bits_b, bytes_b.astype(np.float64)),
        difference,
        paired=True,
        vectorized=True,
        n_resamples=num_resamples,
        batch=256,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return Interval(
        low=float(found.confidence_interval.low),
        high=float(found.confidence_interval.high),
        standard_error=float(found.standard_error),
        degrees=nats_a.size - 1,
    )


def combined_error(parts: Sequence[Interval]) -> tuple[float, float]:
    """Return the standard error of a mean with several independent errors, and its degrees (Welch-Satterthwaite)."""
    variances = [part.standard_error**2 for part in parts]
    total = math.fsum(variances)
    if total == 0:
        return 0.0, min(part.degrees for part in parts)
    degrees = total**2 / math.fsum(v**2 / part.degrees for v, part in zip(variances, parts, strict=True))
    return math.sqrt(total), degrees


def two_sided(difference: float, standard_error: float, degrees: float) -> float:
    """Return the p-value of no difference (Student's t)."""
    from scipy import stats

    if standard_error == 0:
        return 0.0 if difference else 1.0
    return float(2 * stats.t.sf(abs(difference) / standard_error, degrees))


def half_width(standard_error: float, degrees: float, *, num_tests: int, alpha: float = 0.05) -> float:
    """Return the difference that is beyond chance at 5%, whatever else is tested (Bonferroni, Holm's first step)."""
    from scipy import stats

    return float(stats.t.ppf(1 - alpha / 2 / num_tests, degrees)) * standard_error


def slope_weights(num_params: Sequence[float]) -> NDArray[np.float64]:
    """Return what each size weighs in the least-squares slope over log2 of the parameters.

    Args:
        num_params: of each size, two or more that are not all one.
    """
    positions = np.log2(np.array(num_params, np.float64))
    centred = positions - positions.mean()
    weights: NDArray[np.float64] = centred / (centred**2).sum()
    return weights


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the given order (Holm 1979, step-down Bonferroni)."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def holm_levels(p_values: Sequence[float], alpha: float) -> list[float]:
    """Return the level of each test by Holm's step-down, in the given order: from the first that fails on, one for all.

    A p-value is below its level where `holm` corrects it to one below `alpha`.
    """
    levels = [alpha] * len(p_values)
    level, has_failed = alpha, False
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if not has_failed:
            level = alpha / (len(p_values) - rank)
            has_failed = p_values[i] > level
        levels[i] = level
    return levels
