"""Step and symbols of a tensor at the least D + lambda R: quantisation that knows what the coder will charge.

D is the expected squared error of the outputs, tr((W - Q) M (W - Q)^T), with M = E[x x^T]; without M it is the squared
error of the weights. R is in bits. Symbols are chosen one input feature after the other, as in GPTQ, each among the
integers around its value by the error it adds (what later features cannot undo) and by its bits under an estimate of
the distribution of symbols; the step is the one whose payload, under the real coder, makes D + lambda R least.

Sources: Frantar et al. 2022, arXiv:2210.17323, for passing errors on; Sullivan 1996, doi:10.1109/18.532878, for
quantisers with a dead zone as the optimum under entropy coding. The combination is ours.
Shape letters: O out features (rows), I in features (columns), B columns of a block, S symbol magnitudes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.artifact.codec import encode_smallest
from harness.artifact.gptq import Doubles, check_moment, column_order, spread_matrix
from harness.artifact.published import store_scale
from harness.artifact.quantize import LARGEST_STEP_COUNT, Quantised, narrow, quantise
from harness.errors import RunError

# Steps that are tried, in units of the best one of a uniform quantiser at a high rate.
STEP_FACTORS = (0.55, 0.75, 1.0, 1.3)
_DAMPING = 0.01
_BLOCK = 128
_NUM_ROUNDS = 2


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Choice:
    """What was chosen for a tensor.

    Attributes:
        quantised: symbols and the one step.
        distortion: D, in squared units of the outputs (of the weights where there is no moment).
        payload_bytes: size of the symbols under the best real coder.
    """

    quantised: Quantised
    distortion: float
    payload_bytes: int


class RateDistortion:
    """A tensor whose symbols can be chosen for any lambda.

    Args:
        weight: of any shape with at least one number; a matrix where there is a moment.
        moment_II: second moments of its inputs, or None.
        name: what an error calls the tensor.

    Raises:
        RunError: NaN in the tensor, or the moment is not one of its inputs.
    """

    def __init__(self, weight: NDArray[np.generic], moment_II: NDArray[np.generic] | None, *, name: str) -> None:
        self._shape, self._name = weight.shape, name
        values = np.asarray(weight, dtype=np.float64)
        if not np.isfinite(values).all():
            raise RunError(f"{name}: holds NaN or infinite numbers; nothing to export")
        self._weight_OI = values.reshape(-1, values.shape[-1])
        self._moment_II = None if moment_II is None else check_moment(moment_II, weight.shape, name)
        self._order, self._spread_II = np.arange(self._weight_OI.shape[1]), None
        if self._moment_II is not None:
            self._order = column_order(self._moment_II, "descending")
            ordered = self._moment_II[np.ix_(self._order, self._order)]
            self._spread_II = spread_matrix(ordered, _DAMPING, "cholesky", name)

    @property
    def mean_cost(self) -> float:
        """What an error of 1 in a weight adds to D, the mean over columns, when the later ones make up for it."""
        return 1.0 if self._spread_II is None else float(np.mean(1 / np.diag(self._spread_II) ** 2))

    def lambda_of(self, scheme: str) -> float:
        """Return the lambda, D a bit, at which a uniform quantiser has the steps of an integer scheme.

        At a high rate D is `mean_cost` step^2 / 12 a weight and falls to a quarter with each bit.
        """
        scale = quantise(self._weight_OI, scheme, name=self._name).scale
        assert scale is not None
        return float(np.log(2) / 6 * self.mean_cost * np.mean(scale.astype(np.float64) ** 2))

    def choose(self, lagrangian: float) -> Choice:
        """Choose step and symbols.

        Args:
            lagrangian: lambda, in units of D for each bit, above 0.
        """
        central = float(np.sqrt(6 * lagrangian / (np.log(2) * self.mean_cost)))
        smallest = float(np.abs(self._weight_OI).max()) / LARGEST_STEP_COUNT
        steps = dict.fromkeys(_storable(max(factor * central, smallest)) for factor in STEP_FACTORS)
        return min(
            (self._choose_at(step, lagrangian) for step in steps),
            key=lambda choice: choice.distortion + lagrangian * 8 * choice.payload_bytes,
        )

    def _choose_at(self, step: float, lagrangian: float) -> Choice:
        symbols_OI = np.rint(self._weight_OI / step)
        for _ in range(_NUM_ROUNDS):
            symbols_OI = self._round(step, lagrangian * _estimate_bits(symbols_OI))
        difference_OI = self._weight_OI - symbols_OI * step
        weighted_OI = difference_OI if self._moment_II is None else difference_OI @ self._moment_II
        quantised = Quantised(
            symbols=narrow(symbols_OI.astype(np.int32).reshape(self._shape)),
            scale=store_scale(np.array([step])),
            scheme=f"step-{step:.9g}",
        )
        return Choice(
            quantised=quantised,
            distortion=float(np.sum(weighted_OI * difference_OI)),
            payload_bytes=len(encode_smallest(quantised.symbols)[1]),
        )

    def _round(self, step: float, charge_S: Doubles) -> Doubles:
        """Choose symbols, given what each magnitude is charged in units of D."""
        if self._spread_II is None:
            return _cheapest(self._weight_OI / step, step * step, charge_S)
        spread_II, left_OI = self._spread_II, self._weight_OI[:, self._order]
        symbols_OI = np.empty(left_OI.shape)
        for start in range(0, len(spread_II), _BLOCK):
            stop = min(start + _BLOCK, len(spread_II))
            error_OB = np.zeros((len(left_OI), stop - start))
            for at in range(start, stop):
                keep = spread_II[at, at]
                symbol_O = _cheapest(left_OI[:, at] / step, (step / keep) ** 2, charge_S)
                symbols_OI[:, self._order[at]] = symbol_O
                error_OB[:, at - start] = error_O = (left_OI[:, at] - symbol_O * step) / keep
                left_OI[:, at + 1 : stop] -= np.outer(error_O, spread_II[at, at + 1 : stop])
            left_OI[:, stop:] -= error_OB @ spread_II[start:stop, stop:]
        return symbols_OI


def _storable(step: float) -> float:
    """The nearest step that a file can hold."""
    return float(store_scale(np.array([step]))[0])


def _estimate_bits(symbols: Doubles) -> Doubles:
    """Bits of a symbol by magnitude, sign included, from the counts of magnitudes, smoothed where they are rare."""
    magnitudes = np.abs(symbols).astype(np.int64).reshape(-1)
    counts = np.bincount(magnitudes, minlength=int(magnitudes.max(initial=0)) + 3).astype(np.float64)
    # The coder's models are smooth too: a magnitude must not get cheap because chance made it frequent.
    index = np.arange(len(counts))
    below, above = index - index // 4, np.minimum(index + index // 4, len(counts) - 1)
    sums = np.concatenate(([0.0], np.cumsum(counts)))
    smooth = (sums[above + 1] - sums[below]) / (above + 1 - below) + 0.25
    bits_S: Doubles = -np.log2(smooth / smooth.sum()) + (index > 0)
    return bits_S


def _cheapest(scaled: Doubles, cost: float, charge_S: Doubles) -> Doubles:
    """Of the integer beyond each number, the one before it and the next one towards zero, the cheapest.

    Args:
        scaled: numbers in units of the step.
        cost: what a squared error of one step adds to D.
        charge_S: what a magnitude is charged; the last entry stands for all beyond it.
    """
    magnitude = np.abs(scaled)
    inner = np.floor(magnitude)
    best, least = inner, np.full(scaled.shape, np.inf)
    for candidate in (inner + 1, inner, np.maximum(inner - 1, 0)):
        place = np.minimum(candidate, len(charge_S) - 1).astype(np.int64)
        price = cost * (magnitude - candidate) ** 2 + charge_S[place]
        best, least = np.where(price < least, candidate, best), np.minimum(price, least)
    return np.copysign(best, scaled)
