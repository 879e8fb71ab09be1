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
    """A two-sided confidence interval, and the p-value of zero where the method gives one.

    Attributes:
        low: lower end.
        high: upper end.
        p_value: two-sided; NaN where none is made.
    """

    low: float
    high: float
    p_value: float = math.nan


def paired_interval(differences: Sequence[float], *, level: float) -> Interval:
    """Return the interval of the mean of paired differences, and its p-value (Student's t, one sample).

    Args:
        differences: one a pair, at least two.
        level: of confidence, in (0, 1).

    Raises:
        UsageError: fewer than two pairs.
    """
    from scipy import stats

    if len(differences) < 2:
        raise UsageError("one pair has no spread; run more seeds")
    n, mean = len(differences), fmean(differences)
    standard_error = stdev(differences) / math.sqrt(n)
    margin = float(stats.t.ppf((1 + level) / 2, n - 1)) * standard_error
    if standard_error == 0:
        return Interval(low=mean, high=mean, p_value=0.0 if mean else 1.0)
    p_value = float(2 * stats.t.sf(abs(mean) / standard_error, n - 1))
    return Interval(low=mean - margin, high=mean + margin, p_value=p_value)


def bootstrap_difference(
    nats: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    block_bytes: NDArray[np.int64],
    *,
    level: float,
    num_resamples: int = 9_999,
) -> Interval:
    """Return the interval of bits per byte A - B, mean over seeds, from resampling blocks of the text.

    Percentile bootstrap with a fixed seed; a block is drawn for A, B and all seeds at once, which keeps them paired.

    Args:
        nats: float64 (blocks,) of A and of B, a pair for each seed.
        block_bytes: int64 (blocks,), bytes of these blocks.
        level: of confidence, in (0, 1).
        num_resamples: draws.

    Raises:
        UsageError: unlike numbers of blocks, or fewer than two.
    """
    from scipy import stats

    if any(each.size != block_bytes.size for pair in nats for each in pair):
        raise UsageError("the records were not scored on the same text, so their blocks cannot be paired")
    if block_bytes.size < 2:
        raise UsageError("one block of text is too little for a bootstrap")
    bits = np.mean([a - b for a, b in nats], axis=0) / math.log(2)

    def bpb(bits_XN: NDArray[np.float64], bytes_XN: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        total: NDArray[np.float64] = bits_XN.sum(axis) / bytes_XN.sum(axis)
        return total

    found = stats.bootstrap(
        (bits, block_bytes.astype(np.float64)),
        bpb,
        paired=True,
        vectorized=True,
        n_resamples=num_resamples,
        batch=256,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return Interval(low=float(found.confidence_interval.low), high=float(found.confidence_interval.high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the given order (Holm 1979, step-down Bonferroni)."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected
