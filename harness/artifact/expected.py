"""What a tensor will take in a file before there is one: numbers, bytes and seconds, from its shape and scheme.

Bits and time are those of Gaussian noise through the real quantiser and coder. Trained numbers of dense/small stayed
about 2% below its bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from harness.artifact.codec import encode_smallest
from harness.artifact.quantize import num_rows, parse_scheme, quantise

_NOISE_ROWS = 256


def num_stored(shape: tuple[int, ...], scheme: str) -> int:
    """Count the numbers that a tensor is stored as, scales included."""
    parsed = parse_scheme(scheme)
    numbers = math.prod(shape)
    if not parsed.has_scale:
        return numbers
    return numbers + (num_rows(shape) if parsed.group == "row" else 1)


def expected_bytes(shape: tuple[int, ...], scheme: str, bits_by_scheme: Mapping[str, float]) -> float:
    """Estimate the bytes of a tensor: at known bits a number, or those of noise where none are known."""
    bits = bits_by_scheme.get(scheme)
    return math.prod(shape) * (_cost_of(shape, scheme).bits if bits is None else bits) / 8


def expected_coding_seconds(shape: tuple[int, ...], scheme: str) -> float:
    """Estimate how long this machine quantises and codes a tensor."""
    return math.prod(shape) * _cost_of(shape, scheme).seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class _NumberCost:
    """Bits and seconds of one number of noise."""

    bits: float
    seconds: float


def _cost_of(shape: tuple[int, ...], scheme: str) -> _NumberCost:
    # Bits of noise change slowly with the length of a row, and each length tried would be coded once.
    return _noise_cost(scheme, 2 ** round(math.log2(shape[-1] if shape else 1)))


@cache
def _noise_cost(scheme: str, num_columns: int) -> _NumberCost:
    noise = np.random.default_rng(0).standard_normal((_NOISE_ROWS, num_columns), dtype=np.float32)
    started = time.monotonic()
    quantised = quantise(noise, scheme)
    payloads = [encode_smallest(array)[1] for array in (quantised.symbols, quantised.scale) if array is not None]
    seconds = time.monotonic() - started
    return _NumberCost(bits=8 * sum(map(len, payloads)) / noise.size, seconds=seconds / noise.size)
