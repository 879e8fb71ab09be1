"""Statistics of comparisons (scipy)."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
