"""The quantisers of published records, symbol for symbol, so that their numbers can be repeated.

Both families scale each row by a clip value and put a floor of 1/top under the scale: rows whose largest
number is below 1 then use far fewer levels than the width says. `-nofloor` leaves the floor out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.artifact.schemes import Scheme

Floats = NDArray[np.float32]

# The clip quantile of the challenge's train_gpt.py: INT8_CLIP_PERCENTILE = 99.99984.
CHALLENGE_QUANTILE = 0.9999984
# The clip candidates of the Frugendorff record's int6 quantiser; 1.0 is the row's maximum.
FRUGENDORFF_QUANTILES = (0.999, 0.9995, 0.9999, 0.99999, 1.0)

# The normal range of float16; below it the relative error of a scale would grow.
HALF_SMALLEST = float(np.finfo(np.float16).tiny)
HALF_LARGEST = float(np.finfo(np.float16).max)


def row_quantile(magnitude_RC: Floats, q: float) -> Floats:
    """Quantile of each row by linear interpolation in float32, by the two branches of torch.quantile."""
    last = magnitude_RC.shape[1] - 1
    rank = np.float32(q) * np.float32(last)
    low = int(np.floor(rank))
    high = min(low + 1, last)
    weight = np.float32(rank - np.float32(low))
    part_RC = np.partition(magnitude_RC, (low, high), axis=1)
    below, above = part_RC[:, low], part_RC[:, high]
    if weight < np.float32(0.5):
        return below + weight * (above - below)
    return above - (above - below) * (np.float32(1) - weight)


def store_scale(scale: NDArray[np.generic]) -> NDArray[np.generic]:
    """Round scales to float16; to float32 where a scale lies outside the normal range of float16."""
    exact = np.asarray(scale, dtype=np.float32)
    used = exact[exact != 0]
    if used.size and (used.min() < HALF_SMALLEST or used.max() > HALF_LARGEST):
        return exact
    return exact.astype(np.float16)


def _symbols(weight_RC: Floats, scale_R: Floats, top: int) -> NDArray[np.int8]:
    divisor_R = np.where(scale_R > 0, scale_R, np.float32(np.inf))
    symbols_RC: NDArray[np.int8] = np.clip(np.rint(weight_RC / divisor_R[:, None]), -top, top).astype(np.int8)
    return symbols_RC


def _with_floor(scale_R: Floats, scheme: Scheme) -> Floats:
    return np.maximum(scale_R, np.float32(1) / np.float32(scheme.top)) if scheme.floor else scale_R


def _challenge(weight_RC: Floats, scheme: Scheme) -> tuple[NDArray[np.int8], Floats]:
    clip_R = row_quantile(np.abs(weight_RC), CHALLENGE_QUANTILE)
    scale_R = _with_floor(clip_R / np.float32(scheme.top), scheme)
    # The symbols come from the float32 scale although its float16 rounding is what gets stored: as published.
    return _symbols(np.clip(weight_RC, -clip_R[:, None], clip_R[:, None]), scale_R, scheme.top), scale_R


def _frugendorff_matrix(weight_RC: Floats, scheme: Scheme) -> tuple[NDArray[np.int8], Floats]:
    best_error, best = np.inf, None
    for q in FRUGENDORFF_QUANTILES:
        scale_R = row_quantile(np.abs(weight_RC), q) / np.float32(scheme.top)
        stored_R = store_scale(_with_floor(scale_R, scheme)).astype(np.float32)
        symbols_RC = _symbols(weight_RC, stored_R, scheme.top)
        error = float(np.mean((weight_RC - symbols_RC * stored_R[:, None]) ** 2, dtype=np.float64))
        if best is None or error < best_error:
            best_error, best = error, (symbols_RC, stored_R)
    assert best is not None
    return best


def quantise_published(weight_RC: Floats, scheme: Scheme, matrix_rows: int) -> tuple[NDArray[np.int8], Floats]:
    """Quantise rows by a published rule.

    Args:
        weight_RC: float32, at least one column.
        scheme: a scheme of kind "published".
        matrix_rows: rows of one matrix; the Frugendorff clip is chosen for each matrix of a stack by itself.

    Returns:
        Symbols of the same shape and float32 scales, one a row.

    Source: train_gpt.py of the 16 MB challenge; train_gpt.py of the Frugendorff record.
    """
    if not scheme.name.startswith("frugendorff"):
        return _challenge(weight_RC, scheme)
    starts = range(0, weight_RC.shape[0], matrix_rows)
    parts = [_frugendorff_matrix(weight_RC[start : start + matrix_rows], scheme) for start in starts]
    return np.concatenate([symbols for symbols, _ in parts]), np.concatenate([scale for _, scale in parts])
