"""Curves of score against bytes: the lower envelope of points, values between them, the area between two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def lower_envelope(points: Sequence[tuple[float, float]]) -> tuple[Floats, Floats]:
    """Return the points that no smaller one beats, by rising bytes: bytes, and falling scores."""
    kept: list[tuple[float, float]] = []
    for num_bytes, bpb in sorted(points):
        if not kept or bpb < kept[-1][1]:
            kept.append((num_bytes, bpb))
    sizes, scores = zip(*kept, strict=True)
    return np.array(sizes, np.float64), np.array(scores, np.float64)


def interpolate(x: float, xs: Floats, ys: Floats) -> float | None:
    """Interpolate linearly between points of rising x; None below them.

    Beyond the last point its y holds: a smaller file, or a better score, was reached already.
    """
    return float(np.interp(x, xs, ys)) if x >= xs[0] else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Area:
    """The area between two curves A and B, as means over the range that both cover.

    Source: Bjontegaard, VCEG-M33, with straight lines between points for his polynomials.

    Attributes:
        bpb: bits per byte A - B, mean over log bytes; None where the curves have no sizes in common.
        bytes_ratio: bytes of A over those of B at equal score, geometric mean over scores; None where they have none in
            common.
    """

    bpb: float | None
    bytes_ratio: float | None


def area_between(first: Sequence[tuple[float, float]], second: Sequence[tuple[float, float]]) -> Area:
    """Measure the area between the lower envelopes of two sets of points (bytes, bits per byte).

    Both envelopes are straight between their points, over the logarithm of bytes.
    """
    (log_a, bpb_a), (log_b, bpb_b) = ((np.log(sizes), bpb) for sizes, bpb in map(lower_envelope, (first, second)))
    log_ratio = _mean_difference((bpb_a[::-1], log_a[::-1]), (bpb_b[::-1], log_b[::-1]))
    return Area(
        bpb=_mean_difference((log_a, bpb_a), (log_b, bpb_b)),
        bytes_ratio=None if log_ratio is None else math.exp(log_ratio),
    )


def _mean_difference(first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> float | None:
    """Mean of y_A - y_B over the x that both cover; each is (x rising, y)."""
    (x_a, y_a), (x_b, y_b) = first, second
    low, high = max(x_a[0], x_b[0]), min(x_a[-1], x_b[-1])
    if low >= high:
        return None
    from scipy.integrate import trapezoid

    # the difference is straight between the points of both, so trapezoids are exact
    knots = np.unique(np.clip(np.concatenate((x_a, x_b)), low, high))
    difference = np.interp(knots, x_a, y_a) - np.interp(knots, x_b, y_b)
    return float(trapezoid(difference, knots) / (high - low))
