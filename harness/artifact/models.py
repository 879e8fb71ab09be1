"""Probability models of symbols for the range coder: a parametric prior, corrected by counts of past blocks.

Encoder and decoder must compute the same model to the last bit on every machine. So the decoding side uses
only additions, multiplications, divisions and square roots of float64, each of which IEEE 754 rounds in one
way, and no library `exp`, `erf`, `log` or floating-point sum (whose last bits differ between machines); the
result is rounded to whole numbers. The encoder is free in its choice of parameters: the payload carries them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

FIRST_BLOCK = 128
LARGEST_BLOCK = 65_536
# The coder's probabilities have 24 bits.
PRIOR_TOTAL = 1 << 24
NUM_SHAPES = 8
PLAIN_SHAPES = 4
FLAT = 127
SCALES_PER_OCTAVE = 10
SPIKE_PARTS = 128
# Squarings of the distance over the gap: powers of 8, 16 and 256.
RISES = (3, 4, 8)
SMALLEST_SCALE = 0.2
# 2 ** (i / 10), written out since a library power may differ in its last bit.
_OCTAVE = (
    1.0,
    1.0717734625362931,
    1.148698354997035,
    1.2311444133449163,
    1.3195079107728942,
    1.4142135623730951,
    1.515716566510398,
    1.6245047927124710,
    1.7411011265922482,
    1.8660659830736148,
)
# How the counts of past symbols change the prior. (weight, 0): the prior counts as `weight` symbols.
# (0, k): each bin keeps its expected count unless the deviation is significant beside k. (0, inf): never.
TRUSTS = (
    (8.0, 0.0),
    (64.0, 0.0),
    (512.0, 0.0),
    (0.0, 8.0),
    (0.0, 16.0),
    (0.0, 32.0),
    (0.0, 128.0),
    (0.0, math.inf),
)
ADD_8, SHRINK_16, NEVER = 0, 4, 7


class Prior(NamedTuple):
    """The parameters of a model, as a payload carries them.

    Attributes:
        low: smallest symbol of the alphabet.
        size: number of symbols of the alphabet.
        centre: the most likely symbol.
        left: index of the scale below the centre; FLAT for a uniform side.
        right: index of the scale above it.
        shape: 0 Gaussian, 1 Laplace, 2 logistic, Student t with 4 (3), 2 (4), 3 (5), 8 (6) or 1 (7) degrees of freedom.
        trust: index into TRUSTS.
        ends: the outermost symbols occur once a row (rows scaled by their largest number).
        spike: share of the centre beside its density, in 128ths (pruned weights).
        extended: counts are weighed against the whole prior, spike included; shapes from 4 on and gaps need it.
        gap: quarters of a symbol from the centre to where the density has risen to half (weights pruned by size).
        rise: index into RISES, how steeply the density rises there: less where rows of unlike scales blur it.
    """

    low: int
    size: int
    centre: int
    left: int
    right: int
    shape: int
    trust: int
    ends: bool = False
    spike: int = 0
    extended: bool = False
    gap: int = 0
    rise: int = 0

    def with_scale(self, index: int) -> Prior:
        """The same prior with both scales at `index`, kept within the table."""
        index = min(max(index, 0), FLAT)
        return self._replace(left=index, right=index)


def block_lengths(num_symbols: int) -> Iterator[int]:
    """Lengths of the blocks after which the model changes: 128, 256, ... 65,536, 65,536, ..."""
    length = FIRST_BLOCK
    while num_symbols > 0:
        yield min(length, num_symbols)
        num_symbols -= length
        length = min(2 * length, LARGEST_BLOCK)


def scale_of(index: int) -> float:
    """Scale of an index: 0.2 * 2 ** (index / 10) symbols."""
    octaves, part = divmod(index, SCALES_PER_OCTAVE)
    return SMALLEST_SCALE * _OCTAVE[part] * float(1 << octaves)


def exp_minus(x: Floats) -> Floats:
    """exp(-x) for 0 <= x <= 64 by exactly rounded operations only: a Taylor series, then eight squarings."""
    u = np.minimum(x, 64.0) * 0.00390625
    total = np.ones_like(u)
    for order in range(12, 0, -1):
        total = 1.0 - u / float(order) * total
    for _ in range(8):
        total = total * total
    return total


def _density(r: Floats, shape: int) -> Floats:
    """The shapes, each 1 at the centre."""
    if shape == 0:
        return exp_minus(r * r * 0.5)
    if shape == 1:
        return exp_minus(r * 1.4142135623730951)
    if shape == 2:
        e = exp_minus(r * 1.8137993642342178)
        return 4.0 * e / ((1.0 + e) * (1.0 + e))
    q = 1.0 + r * r * 0.5
    root = np.sqrt(q)
    powers = (q * q * root, q * root, q * q, q * q * q * q * root, q)
    return np.asarray(1.0 / powers[shape - 3])


def _rise(distance: Floats, prior: Prior) -> Floats:
    """Share of the density left by a gap: p / (1 + p) for p = (distance / gap) to the power of the rise."""
    # Between these bounds no power leaves the range of a float64, and no density becomes zero.
    power = np.clip(distance / (float(prior.gap) * 0.25), 0.125, 2.0)
    for _ in range(RISES[prior.rise]):
        power = power * power
    return power / (1.0 + power)


def prior_weights(prior: Prior, num_columns: int) -> Floats:
    """Weights of the symbols before any is seen: whole numbers, at least 1, about PRIOR_TOTAL in all."""
    offset = np.arange(prior.size, dtype=np.float64) + float(prior.low - prior.centre)
    density = np.ones(prior.size)
    for side, index in ((offset < 0, prior.left), (offset > 0, prior.right)):
        if index != FLAT:
            density[side] = _density(np.abs(offset[side]) / scale_of(index), prior.shape)
    if prior.gap:
        density *= _rise(np.abs(offset), prior)
    # fsum is correctly rounded, hence independent of the order of addition.
    density *= float(PRIOR_TOTAL) / math.fsum(density.tolist())
    if prior.ends:
        density[0] += float(PRIOR_TOTAL // (2 * num_columns))
        density[-1] += float(PRIOR_TOTAL // (2 * num_columns))
    if prior.spike:
        density[prior.centre - prior.low] += float(PRIOR_TOTAL * prior.spike // (SPIKE_PARTS - prior.spike))
    return np.floor(density) + 1.0


def prior_mass(prior: Prior) -> float:
    """Sum of the weights but for the ends; payloads that are not extended never counted the spike."""
    return float(PRIOR_TOTAL) * SPIKE_PARTS / (SPIKE_PARTS - prior.spike) if prior.extended else float(PRIOR_TOTAL)


def blend(prior: Floats, mass: float, counts: Floats, num_seen: float | Floats, trust: int) -> Floats:
    """Weights of the next block from the prior of that mass and the counts so far (whole numbers, at least 1)."""
    weight, stiffness = TRUSTS[trust]
    if weight:
        return np.asarray(prior + counts * (mass / weight))
    if stiffness == math.inf:
        return prior
    expected = prior * (num_seen / mass)
    surprise = (counts - expected) * (counts - expected) / (expected + 0.5)
    mixed = (stiffness * expected + surprise * counts) / (stiffness + surprise) + 0.015625
    return np.asarray(np.floor(mixed * (PRIOR_TOTAL / num_seen)) + 1.0)


class BlockModel:
    """The model of one stream of symbols: ask for weights, code a block, report its counts."""

    def __init__(self, prior: Prior, num_columns: int) -> None:
        self._prior, self._mass = prior_weights(prior, num_columns), prior_mass(prior)
        self._counts = np.zeros(prior.size, np.int64)
        self._num_seen = 0
        self._trust = prior.trust

    def weights(self) -> Floats:
        """Weights of the symbols of the next block, float64 whole numbers."""
        if not self._num_seen:
            return self._prior
        return blend(self._prior, self._mass, self._counts.astype(np.float64), float(self._num_seen), self._trust)

    def update(self, offsets: NDArray[np.int32]) -> None:
        """Count a block of symbols, given as offsets from the smallest."""
        self._counts += np.bincount(offsets, minlength=self._counts.size)
        self._num_seen += offsets.size
