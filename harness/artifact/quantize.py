"""Weights to symbols and scales, and back: what a file stores of a tensor, before any entropy coding.

Every quantiser works on rows: the last axis is a row, all axes before it are flattened. Symbols are chosen
against the scale as it is stored, so that what is measured here is what a reader of the file gets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.artifact.published import quantise_published, store_scale
from harness.artifact.schemes import Scheme, known_schemes, parse_scheme
from harness.errors import RunError

__all__ = [
    "Quantised",
    "dequantise",
    "known_schemes",
    "narrow",
    "num_rows",
    "parse_scheme",
    "quantise",
    "squared_error",
]

Floats = NDArray[np.float32]
Array = NDArray[np.generic]

# float32 holds every whole number up to 2**24; symbols beyond it would not survive the way back.
MAX_SYMBOL = 2**24
LARGEST_STEP_COUNT = 2**20
_CHUNK_NUMBERS = 1 << 18
_COARSE_CLIPS = np.linspace(0.2, 1.0, 9)
_FINE_CLIPS = np.linspace(-0.08, 0.08, 9)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Quantised:
    """A tensor as a file stores it.

    Attributes:
        symbols: int8, int16 or int32 of the tensor's shape; float16 or float32 for float schemes.
        scale: 1-D float16 or float32, one number a row or one for the tensor; None where the scheme has none.
        scheme: name of the scheme.
    """

    symbols: Array
    scale: Array | None
    scheme: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.symbols.shape


def num_rows(shape: tuple[int, ...]) -> int:
    """Count the rows of a tensor: the product of all axes but the last; 0 for a tensor without numbers."""
    size = int(np.prod(shape, dtype=object))
    return size // int(shape[-1]) if size and shape else min(size, 1)


def quantise(weight: NDArray[np.generic], scheme: str, *, name: str = "tensor") -> Quantised:
    """Quantise a tensor of any shape.

    Args:
        weight: numbers, taken as float32.
        scheme: name of a scheme, see `harness.artifact.schemes`.
        name: what an error calls the tensor.

    Raises:
        UsageError: unknown scheme.
        RunError: the tensor holds NaN or infinities, or numbers that the scheme cannot hold.
    """
    parsed = parse_scheme(scheme)
    values = np.asarray(weight, dtype=np.float32)
    if not np.isfinite(values).all():
        count = int(values.size - np.isfinite(values).sum())
        raise RunError(f"{name}: {count} of {values.size} numbers are NaN or infinite; nothing to export")
    if parsed.kind == "float":
        return Quantised(symbols=_as_float(values, parsed, name), scale=None, scheme=scheme)
    if parsed.kind == "integers":
        return Quantised(symbols=_as_integers(values, name), scale=None, scheme=scheme)
    if values.size == 0:
        return Quantised(symbols=np.zeros(values.shape, np.int8), scale=np.zeros(0, np.float16), scheme=scheme)
    rows_RC = values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
    if parsed.kind == "published":
        published_RC, scale_R = quantise_published(rows_RC, parsed, values.shape[-2] if values.ndim > 1 else 1)
        symbols = published_RC.reshape(values.shape)
        return Quantised(symbols=symbols, scale=store_scale(scale_R), scheme=scheme)
    if parsed.group == "tensor":
        rows_RC = rows_RC.reshape(1, -1) if parsed.kind != "step" else rows_RC
    scale = store_scale(_choose_scale(rows_RC, parsed, name))
    symbols_RC = _round_to(rows_RC, scale, None if parsed.kind == "step" else parsed.top, name)
    return Quantised(symbols=symbols_RC.reshape(values.shape), scale=scale, scheme=scheme)


def dequantise(quantised: Quantised) -> Floats:
    """Rebuild the float32 tensor: symbol times scale, one rounding, the same on every machine."""
    out = quantised.symbols.astype(np.float32, order="C")
    if quantised.scale is not None and out.size:
        rows_RC = out.reshape(quantised.scale.size, -1)
        rows_RC *= quantised.scale.astype(np.float32)[:, None]
    return out


def squared_error(weight: NDArray[np.generic], quantised: Quantised) -> float:
    """Sum of squared differences between a tensor and its rebuilt form, in float64."""
    difference = np.asarray(weight, dtype=np.float64) - dequantise(quantised)
    return float(np.sum(difference * difference))


def _as_float(values: Floats, scheme: Scheme, name: str) -> Array:
    if scheme.bits == 32:
        return values.copy()
    largest = float(np.abs(values).max(initial=0.0))
    if largest > 65504:
        raise RunError(f"{name}: {largest:g} does not fit in fp16 (at most 65504); store it as fp32")
    return values.astype(np.float16)


def _as_integers(values: Floats, name: str) -> Array:
    if (np.rint(values) != values).any() or np.abs(values).max(initial=0.0) > MAX_SYMBOL:
        raise RunError(f"{name}: scheme 'integers' needs whole numbers of at most {MAX_SYMBOL}")
    return narrow(values.astype(np.int32))


def narrow(symbols: NDArray[np.int32]) -> Array:
    """Return whole numbers in the narrowest of int8, int16 and int32 that holds them all."""
    largest = int(np.abs(symbols).max(initial=0))
    if largest <= 127:
        return symbols.astype(np.int8)
    return symbols.astype(np.int16) if largest <= 32767 else symbols


def _row_chunks(rows_RC: Floats) -> Iterator[slice]:
    """Slices of rows small enough that a search over them stays in the cache."""
    step = max(1, _CHUNK_NUMBERS // rows_RC.shape[1])
    for start in range(0, rows_RC.shape[0], step):
        yield slice(start, start + step)


def _divisor(scale: Array) -> Floats:
    """The scale as a column to divide by; a scale of zero becomes infinite, which makes its symbols zero."""
    column = scale.astype(np.float32)
    return np.where(column > 0, column, np.float32(np.inf)).reshape(-1, 1)


def _round_to(rows_RC: Floats, scale: Array, top: int | None, name: str) -> Array:
    largest_symbol = float(np.max(np.abs(rows_RC).max(axis=1, keepdims=True) / _divisor(scale)))
    if top is None and not largest_symbol < MAX_SYMBOL:
        raise RunError(f"{name}: {largest_symbol:.3g} steps from zero, at most {MAX_SYMBOL}; use a wider step")
    symbols_RC = np.empty(rows_RC.shape, np.int8 if top is not None else np.int32)
    for part in _row_chunks(rows_RC):
        divisor = _divisor(scale[part] if scale.size == len(rows_RC) else scale)
        rounded_RC = np.rint(rows_RC[part] / divisor)
        symbols_RC[part] = rounded_RC if top is None else np.clip(rounded_RC, -top, top, out=rounded_RC)
    return symbols_RC if top is not None else narrow(symbols_RC.astype(np.int32))


def _choose_scale(rows_RC: Floats, scheme: Scheme, name: str) -> NDArray[np.float32]:
    if scheme.kind == "ternary":
        return _ternary_scale(rows_RC)
    if scheme.kind == "step":
        return _find_step(rows_RC, scheme, name)
    largest_R = np.abs(rows_RC).max(axis=1) / np.float32(scheme.top)
    return _search_scale(rows_RC, largest_R, scheme.top) if scheme.search else largest_R


def _ternary_scale(rows_RC: Floats) -> Floats:
    """The mean of the k largest magnitudes, for the k of least squared error (k maximises sum**2 / k)."""
    scale_R = np.empty(len(rows_RC), np.float32)
    for part in _row_chunks(rows_RC):
        sums_RC = np.cumsum(-np.sort(-np.abs(rows_RC[part]), axis=1), axis=1, dtype=np.float64)
        count_C = np.arange(1, rows_RC.shape[1] + 1)
        best_R = np.argmax(sums_RC * sums_RC / count_C, axis=1)
        scale_R[part] = np.take_along_axis(sums_RC, best_R[:, None], axis=1)[:, 0] / (best_R + 1)
    return scale_R


def _row_errors(rows_RC: Floats, scale_R: Floats, top: int) -> NDArray[np.float64]:
    stored_R = store_scale(scale_R)
    symbols_RC = np.clip(np.rint(rows_RC / _divisor(stored_R)), -top, top)
    symbols_RC *= stored_R.astype(np.float32)[:, None]
    symbols_RC -= rows_RC
    return np.asarray(np.einsum("rc,rc->r", symbols_RC, symbols_RC, dtype=np.float64, casting="same_kind"))


def _search_scale(rows_RC: Floats, largest_R: Floats, top: int) -> Floats:
    """Scale of each row by search: clips from 0.2 to 1.0 of the maximum, then finer around the best."""
    best_R = largest_R.copy()
    for part in _row_chunks(rows_RC):
        chunk_RC, start_R = rows_RC[part], largest_R[part]
        clip_R, least_R = np.ones(len(chunk_RC)), _row_errors(chunk_RC, start_R, top)
        for offsets in (_COARSE_CLIPS - 1.0, _FINE_CLIPS):
            around_R = clip_R.copy()
            for offset in offsets:
                trial_R = np.minimum(around_R + offset, 1.0)
                error_R = _row_errors(chunk_RC, (start_R * trial_R).astype(np.float32), top)
                better_R = error_R < least_R
                clip_R, least_R = np.where(better_R, trial_R, clip_R), np.where(better_R, error_R, least_R)
        best_R[part] = start_R * clip_R
    return best_R


def _step_error(rows_RC: Floats, step: np.float32) -> float:
    total = 0.0
    for part in _row_chunks(rows_RC):
        rounded_RC = np.rint(rows_RC[part] / step)
        rounded_RC *= step
        rounded_RC -= rows_RC[part]
        total += float(np.einsum("rc,rc->", rounded_RC, rounded_RC, dtype=np.float64, casting="same_kind"))
    return total


def _find_step(rows_RC: Floats, scheme: Scheme, name: str) -> NDArray[np.float32]:
    """The common step: as given, or the one with the squared error of the per-row scheme of that width."""
    if scheme.step:
        return np.array([scheme.step], np.float32)
    by_row = quantise(rows_RC, f"int{scheme.bits}-row{'-search' if scheme.search else ''}", name=name)
    assert by_row.scale is not None
    target = squared_error(rows_RC, by_row)
    scales_R = by_row.scale.astype(np.float64)
    # Rows of a number or two are rounded almost exactly, at which no common step can be wide enough to use.
    smallest = float(np.abs(rows_RC).max()) / LARGEST_STEP_COUNT
    step = max(float(np.sqrt(np.mean(scales_R * scales_R))), smallest)
    if not np.float32(step):
        return np.zeros(1, np.float32)
    for _ in range(8):
        error = _step_error(rows_RC, np.float32(step))
        if error <= 0 or abs(error / max(target, 1e-300) - 1) < 1e-3:
            break
        # Squared error grows as the square of the step, while steps are small beside the weights.
        step = max(step * float(np.clip(np.sqrt(target / error), 0.5, 2.0)), smallest)
    return np.array([step], np.float32)
