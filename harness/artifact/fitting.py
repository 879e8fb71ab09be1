"""The encoder's choice of a prior: the one under which the first symbols would be shortest.

Nothing here runs when a file is read; the choice travels in the payload.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from harness.artifact.models import (
    FLAT,
    NEVER,
    NUM_SHAPES,
    PLAIN_SHAPES,
    RISES,
    SCALES_PER_OCTAVE,
    SHRINK_16,
    SMALLEST_SCALE,
    SPIKE_PARTS,
    TRUSTS,
    Prior,
    blend,
    block_lengths,
    prior_mass,
    prior_weights,
    scale_of,
)
from harness.artifact.payload_head import put_prior

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

# Beyond this many symbols the counts have replaced the prior and more would only cost time.
_FIT_SYMBOLS = 131_072
# Forms of prior that are compared with adaptation, of those that fit best without.
_FORMS = 4
# Half of one more than the degrees of freedom of the shapes from 3 on.
_T_POWERS = (2.5, 1.5, 2.0, 4.5, 1.0)


# Index -> index kept within the table, for moves of up to 9 beyond either end.
_SCALE_RANGE = {index: min(max(index, 0), FLAT - 1) for index in range(-9, FLAT + 10)}
_SCALES = [scale_of(index) for index in range(FLAT)]


def scale_index(scale: float) -> int:
    """Index of the nearest scale of the table."""
    index = round(SCALES_PER_OCTAVE * float(np.log2(max(scale, SMALLEST_SCALE) / SMALLEST_SCALE)))
    return min(index, FLAT - 1)


def _log_density(r_CA: Floats, shape: int) -> Floats:
    """Logarithms of the shapes of `models.prior_weights`, up to a constant."""
    if shape == 0:
        log_CA = r_CA * r_CA * -0.5
    elif shape == 1:
        log_CA = r_CA * -math.sqrt(2)
    elif shape == 2:
        x_CA = r_CA * (math.pi / math.sqrt(3))
        log_CA = -x_CA - 2 * np.log1p(np.exp(-x_CA))
    else:
        log_CA = np.log1p(r_CA * r_CA * 0.5) * -_T_POWERS[shape - 3]
    return np.asarray(log_CA)


def _log_rise(distance_A: Floats, priors: list[Prior]) -> Floats:
    """Logarithms of `models._rise`, one row a prior; zeros where no prior has a gap."""
    log_CA = np.zeros((len(priors), distance_A.size))
    for log_A, prior in zip(log_CA, priors, strict=True):
        if prior.gap:
            x_A = np.log(np.maximum(distance_A, 1e-3) / (prior.gap / 4)) * float(2 ** RISES[prior.rise])
            log_A[:] = -np.logaddexp(0.0, -x_A)
    return log_CA


def _static_bits(counts_A: Floats, offset_A: Floats, tried: list[Prior], num_columns: int) -> Floats:
    """Bits of all symbols under each prior, without adaptation."""
    bits_C = np.empty(len(tried))
    for shape in sorted({prior.shape for prior in tried}):
        chosen = [at for at, prior in enumerate(tried) if prior.shape == shape]
        left_C1 = np.array([[_SCALES[tried[at].left]] for at in chosen])
        right_C1 = np.array([[_SCALES[tried[at].right]] for at in chosen])
        r_CA = np.abs(offset_A) / np.where(offset_A < 0, left_C1, right_C1)
        log_CA = _log_density(r_CA, shape) + _log_rise(np.abs(offset_A), [tried[at] for at in chosen])
        p_CA = np.exp(np.maximum(log_CA, -64.0))
        p_CA /= p_CA.sum(axis=1, keepdims=True)
        share_C = np.array([tried[at].ends / (2 * num_columns) for at in chosen])
        p_CA[:, 0] += share_C
        p_CA[:, -1] += share_C
        spike_C = np.array([tried[at].spike / (SPIKE_PARTS - tried[at].spike) for at in chosen])
        p_CA[:, tried[0].centre - tried[0].low] += spike_C
        total_C = 1 + 2 * share_C + spike_C
        bits_C[chosen] = -np.log2(p_CA + 2.0**-24) @ counts_A + counts_A.sum() * np.log2(total_C)
    # The optional bytes of the head weigh in, since few symbols may not be worth them.
    optional_C = [16.0 * prior.extended + 8.0 * (prior.gap > 0) for prior in tried]
    return np.asarray(bits_C + np.array(optional_C))


def _grid(around: list[Prior], steps: NDArray[np.int64], tied: bool) -> list[Prior]:
    """Priors with scales around given ones; both sides alike when `tied`."""
    moves = [(a, a) for a in steps.tolist()] if tied else [(a, b) for a in steps.tolist() for b in steps.tolist()]
    return [
        prior._replace(left=_SCALE_RANGE[prior.left + a], right=_SCALE_RANGE[prior.right + b])
        for prior in around
        for a, b in moves
    ]


def _spike_of(counts_A: Floats, form: Prior) -> int:
    """The share that the centre has beyond its density, in 128ths, at least 1."""
    at = form.centre - form.low
    weights_A = prior_weights(form._replace(ends=False, spike=0), 1)
    seen, expected = counts_A[at] / counts_A.sum(), weights_A[at] / weights_A.sum()
    share = (seen - expected) / max(1 - expected, 1e-9)
    return int(np.clip(round(SPIKE_PARTS * float(share)), 1, SPIKE_PARTS - 1))


def _gap_of(counts_A: Floats, offset_A: Floats) -> int:
    """The distance from the centre at which counts first reach half their maximum, smoothed; 1 if at once."""
    size = max(int(np.abs(offset_A).max()), 1)
    counts_D = np.bincount(np.abs(offset_A).astype(np.int64), counts_A, minlength=size + 1)[1:]
    smooth_D = np.convolve(counts_D, np.ones(2 * (size // 32) + 1), mode="same")
    return min(int(np.argmax(2 * smooth_D >= smooth_D.max())) + 1, 63)


def _first_forms(counts_A: Floats, offset_A: Floats, start: Prior, num_columns: int, tied: bool) -> list[Prior]:
    """Each shape plain and with ends, and with a spike if the centre stands out."""
    forms = [form for shape in range(NUM_SHAPES if tied else PLAIN_SHAPES) for form in _of_shape(start, shape)]
    away_A = np.where(offset_A == 0, 0.0, counts_A)
    left = _root_mean_square(away_A, offset_A, offset_A < 0)
    right = _root_mean_square(away_A, offset_A, offset_A > 0)
    spiked = start.with_scale(max(left, right)) if tied else start._replace(left=left, right=right)
    spiked = spiked._replace(spike=_spike_of(counts_A, spiked), extended=True)
    if spiked.spike <= 1:
        return forms
    gap = _gap_of(counts_A, offset_A)
    spikes = [spiked, _gapped(counts_A, offset_A, spiked, gap, num_columns)] if gap > 1 else [spiked]
    return forms + [form for each in spikes for shape in range(PLAIN_SHAPES) for form in _of_shape(each, shape)]


def _gapped(counts_A: Floats, offset_A: Floats, spiked: Prior, gap: int, num_columns: int) -> Prior:
    """The spiked prior with the gap, of about that many symbols, and the rise that fit best."""
    step, rises = max(1, gap // 8), range(len(RISES))
    gaps = [4 * gap - 2 + step * move for move in range(-4, 5)]
    tried = [spiked._replace(gap=each, rise=rise, ends=True) for each in gaps if 0 < each < 256 for rise in rises]
    tried = _grid(tried, np.arange(-8, 3, 2), tied=True)
    return tried[int(_static_bits(counts_A, offset_A, tried, num_columns).argmin())]


def _of_shape(start: Prior, shape: int) -> list[Prior]:
    """A prior of that shape, without and with ends."""
    extended = start.extended or shape >= PLAIN_SHAPES
    return [start._replace(shape=shape, extended=extended, ends=ends) for ends in (False, True)]


def _fit_shapes(counts_A: Floats, start: Prior, num_columns: int, tied: bool) -> list[Prior]:
    """The best prior of each form: every third scale around the moments, then the neighbours."""
    coarse = np.arange(-9, 10, 3) if tied else np.arange(-6, 7, 3)
    offset_A = np.arange(start.size, dtype=np.float64) + float(start.low - start.centre)
    forms, bits = _first_forms(counts_A, offset_A, start, num_columns, tied), np.zeros(0)
    for steps in (coarse, np.arange(-2, 3)):
        tried = _grid(forms, steps, tied)
        bits_FS = _static_bits(counts_A, offset_A, tried, num_columns).reshape(len(forms), -1)
        best_F = bits_FS.argmin(axis=1)
        forms = [tried[row * bits_FS.shape[1] + int(at)] for row, at in enumerate(best_F)]
        forms = [form._replace(spike=_spike_of(counts_A, form)) if form.spike else form for form in forms]
        bits = bits_FS.min(axis=1)
    return [forms[int(at)] for at in np.argsort(bits, kind="stable")]


class _Blocks:
    """Counts of each block of the first symbols, to find which trust in the counts is worth most."""

    def __init__(self, offsets: Ints, size: int, num_columns: int) -> None:
        ends = np.cumsum(list(block_lengths(offsets.size)))
        counts = [np.bincount(block, minlength=size) for block in np.split(offsets, ends[:-1])]
        self._blocks_BA = np.stack(counts).astype(np.float64)
        self._before_BA = np.cumsum(self._blocks_BA, axis=0) - self._blocks_BA
        self._seen_B1 = self._before_BA.sum(axis=1, keepdims=True)
        self._num_columns = num_columns

    @property
    def totals(self) -> Floats:
        return np.asarray(self._before_BA[-1] + self._blocks_BA[-1])

    def bits(self, prior: Prior, trusts: Iterable[int]) -> list[float]:
        """Bits of the first symbols under a prior, for each trust, with those of its head."""
        first_A = prior_weights(prior, self._num_columns)
        weights_BA = np.broadcast_to(first_A, self._blocks_BA.shape).copy()
        bits, head_bits = [], 8.0 * len(put_prior(prior))
        for trust in trusts:
            if len(weights_BA) > 1:
                weights_BA[1:] = blend(first_A, prior_mass(prior), self._before_BA[1:], self._seen_B1[1:], trust)
            total = np.vdot(self._blocks_BA.sum(axis=1), np.log2(weights_BA.sum(axis=1)))
            bits.append(head_bits + float(total - np.vdot(self._blocks_BA, np.log2(weights_BA))))
        return bits


def _root_mean_square(counts_A: Floats, offset_A: Floats, side_A: NDArray[np.bool_]) -> int:
    count = float(counts_A[side_A].sum())
    return scale_index(float(np.sqrt((counts_A * offset_A**2)[side_A].sum() / count)) if count else 0.0)


def fit_prior(symbols: Ints, low: int, size: int, num_columns: int, *, centre: int, tied: bool) -> tuple[float, Prior]:
    """Choose shape, scales and trust for a stream of symbols.

    Args:
        symbols: 1-D int32, at least one.
        low: smallest symbol of the alphabet.
        size: number of symbols of the alphabet.
        num_columns: length of a row, for the share of row maxima.
        centre: the most likely symbol.
        tied: both sides share one scale.

    Returns:
        The bits that the head and the first symbols take, and the prior.
    """
    blocks = _Blocks(symbols[:_FIT_SYMBOLS] - np.int32(low), size, num_columns)
    counts_A, offset_A = blocks.totals, np.arange(size, dtype=np.float64) + float(low - centre)
    left = _root_mean_square(counts_A, offset_A, offset_A <= 0)
    right = _root_mean_square(counts_A, offset_A, offset_A >= 0)
    start = Prior(low=low, size=size, centre=centre, left=left, right=right, shape=0, trust=0)
    start = start.with_scale(max(left, right)) if tied else start
    flat = [start.with_scale(FLAT)._replace(ends=ends) for ends in (False, True)]
    forms = [*_fit_shapes(counts_A, start, num_columns, tied)[:_FORMS], *flat]
    form = min(forms, key=lambda form: min(blocks.bits(form, (SHRINK_16, NEVER))))
    # The first symbols cannot tell whether a prior that never learns would do for many more.
    trusts = range(len(TRUSTS) if symbols.size <= _FIT_SYMBOLS else len(TRUSTS) - 1)
    bits = blocks.bits(form, trusts)
    trust = int(np.argmin(bits))
    return bits[trust], form._replace(trust=trust)
