"""GPTQ: symbols chosen one input feature after the other, the error of each passed on to those still to come.

The scales are those of the scheme; only the choice of symbols differs from plain rounding. What is minimised is the
error of the outputs on calibration inputs, tr((W - Q) M (W - Q)^T) with M = E[x x^T].

Source: Frantar et al. 2022, arXiv:2210.17323, algorithm 1.
Shape letters: O out features (rows), I in features (columns), B columns of a block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.artifact.published import FRUGENDORFF_QUANTILES, row_quantile, store_scale
from harness.artifact.quantize import Quantised, dequantise, narrow, quantise
from harness.artifact.schemes import Scheme, parse_scheme
from harness.errors import RunError, UsageError

Doubles = NDArray[np.float64]
Order = Literal["descending", "ascending", "stored"]
Spread = Literal["cholesky", "inverse"]

# A moment whose smallest eigenvalues are rounding errors below zero is damped more, by tens, up to its mean.
_MAX_DAMPING = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class GptqSettings:
    """How symbols are chosen.

    Attributes:
        damping: added to the diagonal of the moment, in units of its mean.
        block: columns after which the errors are passed on to all later blocks at once; changes rounding only.
        order: columns by their diagonal entry ("descending" is act-order), or as stored.
        spread: what an error is passed on with: the Cholesky factor of the inverse moment, as in the paper, or the
            inverse itself, as in the code of the Micro Crawler record.
        keeps_better_rows: a row whose output error is smaller under plain rounding is rounded plainly.
    """

    damping: float = 0.01
    block: int = 128
    order: Order = "descending"
    spread: Spread = "cholesky"
    keeps_better_rows: bool = True


# Symbol for symbol as the published code of the Micro Crawler, given `micro_crawler_scale`.
MICRO_CRAWLER = GptqSettings(damping=0.002, block=64, order="ascending", spread="inverse", keeps_better_rows=False)


def quantise_gptq(
    weight_OI: NDArray[np.generic],
    moment_II: NDArray[np.generic],
    scheme: str,
    settings: GptqSettings | None = None,
    *,
    scale_O: NDArray[np.float32] | None = None,
    name: str = "tensor",
) -> Quantised:
    """Quantise a matrix by GPTQ.

    Args:
        weight_OI: taken as float32, at least one row and column.
        moment_II: second moments of the inputs, symmetric; features that never fire (zero diagonal) are rounded.
        scheme: a scheme with a scale: grid, ternary, published or step.
        settings: by default those of the paper.
        scale_O: float32, symbols are chosen against these scales instead of the scheme's own as stored.
        name: what an error calls the matrix.

    Raises:
        UsageError: unknown scheme, or one without a scale; scales of the caller with `keeps_better_rows`.
        RunError: the moment has another shape, holds NaN or is far from positive; the weight holds NaN.
    """
    settings, parsed = settings or GptqSettings(), parse_scheme(scheme)
    if not parsed.has_scale:
        raise UsageError(f"{name}: scheme {scheme} has no scale, so there is nothing for GPTQ to choose")
    plain = quantise(weight_OI, scheme, name=name)
    moment = check_moment(moment_II, plain.shape, name)
    assert plain.scale is not None
    if scale_O is not None and settings.keeps_better_rows:
        raise UsageError(f"{name}: rows rounded against the scheme's own scales cannot replace rows of other scales")
    used_O = plain.scale.astype(np.float32) if scale_O is None else scale_O
    divisor_O = np.broadcast_to(np.where(used_O > 0, used_O, np.inf), plain.shape[:1]).astype(np.float64)
    weight = np.asarray(weight_OI, dtype=np.float32).astype(np.float64)
    symbols_OI = _choose_symbols(weight, moment, divisor_O, parsed, settings, name)
    chosen = Quantised(
        symbols=symbols_OI.astype(plain.symbols.dtype)
        if parsed.kind != "step"
        else narrow(symbols_OI.astype(np.int32)),
        scale=plain.scale if scale_O is None else store_scale(scale_O),
        scheme=scheme,
    )
    return _keep_better_rows(weight, moment, plain, chosen) if settings.keeps_better_rows else chosen


def output_errors(weight_OI: NDArray[np.generic], quantised: Quantised, moment_II: NDArray[np.generic]) -> Doubles:
    """Return (O,) the expected squared error of each output, (w - q) M (w - q)^T, in float64."""
    difference_OI = np.asarray(weight_OI, dtype=np.float64) - dequantise(quantised)
    return np.asarray(np.einsum("oi,oi->o", difference_OI @ np.asarray(moment_II, np.float64), difference_OI))


def micro_crawler_scale(weight_OI: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (O,) the int6 scales of the Micro Crawler's GPTQ: the clip quantile of least squared error, row by row.

    Its symbols are chosen against these float32 scales, while their float16 rounding is what gets stored.
    """
    magnitude_OI, top = np.abs(weight_OI), np.float32(31)
    least_O, best_O = np.full(len(weight_OI), np.inf), np.zeros(len(weight_OI), np.float32)
    for q in FRUGENDORFF_QUANTILES:
        scale_O = np.maximum(row_quantile(magnitude_OI, q) / top, np.float32(1) / top)
        rounded_OI = np.clip(np.rint(weight_OI / scale_O[:, None]), -top, top) * scale_O[:, None]
        error_O = np.mean((weight_OI - rounded_OI) ** 2, axis=1)
        best_O, least_O = np.where(error_O < least_O, scale_O, best_O), np.minimum(error_O, least_O)
    return best_O


def check_moment(moment_II: NDArray[np.generic], shape: tuple[int, ...], name: str) -> Doubles:
    """Return the moment in float64, made symmetric.

    Raises:
        RunError: the weight is no matrix, or the moment is not one of its inputs.
    """
    moment = np.asarray(moment_II, dtype=np.float64)
    if len(shape) != 2 or moment.shape != (shape[1], shape[1]):
        raise RunError(f"{name}: a moment of shape {moment.shape} does not fit a weight of shape {shape}")
    if not np.isfinite(moment).all() or (np.diag(moment) < 0).any():
        raise RunError(f"{name}: the moment of its inputs holds NaN, infinite or negative numbers; calibrate again")
    return (moment + moment.T) / 2


def spread_matrix(moment_II: Doubles, damping: float, spread: Spread, name: str) -> Doubles:
    """Return (I, I) what passes errors on: upper Cholesky factor of the inverse of the damped moment, or the inverse.

    Raises:
        RunError: the moment is not positive, even when damped by its mean.
    """
    diagonal = np.diag(moment_II)
    is_dead = diagonal == 0
    scaled = moment_II.copy()
    scaled[is_dead, :] = scaled[:, is_dead] = 0.0
    mean = float(diagonal.mean())
    scaled[is_dead, is_dead] = mean if mean > 0 else 1.0
    step = np.arange(len(scaled))
    while damping <= _MAX_DAMPING:
        damped = scaled.copy()
        damped[step, step] += damping * mean
        try:
            np.linalg.cholesky(damped)
            inverse = np.linalg.inv(damped)
            inverse = (inverse + inverse.T) / 2
            return inverse if spread == "inverse" else np.asarray(np.linalg.cholesky(inverse).T)
        except np.linalg.LinAlgError:
            damping = max(10 * damping, 1e-6)
    raise RunError(f"{name}: the moment of its inputs is not positive, even when damped; calibrate on more tokens")


def column_order(moment_II: Doubles, order: Order) -> NDArray[np.intp]:
    """Return (I,) the columns in the order in which they are rounded."""
    diagonal = np.diag(moment_II)
    if order == "stored":
        return np.arange(len(diagonal))
    return np.argsort(diagonal if order == "ascending" else -diagonal, kind="stable")


def _choose_symbols(
    weight_OI: Doubles, moment_II: Doubles, divisor_O: Doubles, scheme: Scheme, settings: GptqSettings, name: str
) -> Doubles:
    order = column_order(moment_II, settings.order)
    spread_II = spread_matrix(moment_II[np.ix_(order, order)], settings.damping, settings.spread, name)
    left_OI, symbols_OI = weight_OI[:, order], np.empty(weight_OI.shape)
    top = np.inf if scheme.kind == "step" else scheme.top
    scale_O = np.where(np.isfinite(divisor_O), divisor_O, 0.0)
    num_columns = len(order)
    for start in range(0, num_columns, settings.block):
        stop = min(start + settings.block, num_columns)
        error_OB = np.zeros((len(left_OI), stop - start))
        for at in range(start, stop):
            symbol_O = np.clip(np.rint(left_OI[:, at] / divisor_O), -top, top)
            symbols_OI[:, order[at]] = symbol_O
            error_O = (left_OI[:, at] - symbol_O * scale_O) / spread_II[at, at]
            error_OB[:, at - start] = error_O
            left_OI[:, at + 1 : stop] -= np.outer(error_O, spread_II[at, at + 1 : stop])
        left_OI[:, stop:] -= error_OB @ spread_II[start:stop, stop:]
    return symbols_OI


def _keep_better_rows(weight_OI: Doubles, moment_II: Doubles, plain: Quantised, chosen: Quantised) -> Quantised:
    is_worse_O = output_errors(weight_OI, chosen, moment_II) > output_errors(weight_OI, plain, moment_II)
    symbols = np.where(is_worse_O[:, None], plain.symbols, chosen.symbols)
    return replace(chosen, symbols=symbols)
