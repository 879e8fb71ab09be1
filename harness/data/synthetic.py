"""A made text whose shortest code is known: a second-order Markov source over 27 bytes.

Every number is an integer taken from the raw output of PCG64, which numpy keeps stable, so the text is the
same on every machine and in every version.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

ALPHABET = b"\n abcdefghijklmnopqrstuvwxy"
# Each state has 256 equally likely slots; a probability is a number of slots over 256, so it is exact.
NUM_SLOTS = 256


def _raw(*key: int | str) -> np.random.PCG64:
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.PCG64(int.from_bytes(digest[:8], "little"))


class MarkovSource:
    """The source with the given seed; every text starts in the state of two newlines."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        size = len(ALPHABET)
        # The fifth power makes a skewed law: half of the mass on the likeliest symbol, a slot on the rarest.
        slot_rank = size * np.arange(NUM_SLOTS, dtype=np.int64) ** 5 // NUM_SLOTS**5
        draws = _raw("transitions", seed).random_raw(size**3).reshape(size * size, size)
        symbol_of_rank = np.argsort(draws, axis=1, kind="stable")
        self._slots = symbol_of_rank[:, slot_rank]
        self._num_slots = np.zeros((size * size, size), dtype=np.int64)
        np.put_along_axis(self._num_slots, symbol_of_rank, np.bincount(slot_rank, minlength=size)[None], axis=1)

    def generate(self, num_bytes: int, part: str) -> bytes:
        """Draw the text of one part; unlike parts are independent draws.

        Args:
            num_bytes: length of the text.
            part: name of the draw, for example "train".
        """
        size = len(ALPHABET)
        raw = _raw("text", self.seed, part).random_raw(num_bytes) >> np.uint64(56)
        slots, before, last = self._slots.tolist(), 0, 0
        symbols = bytearray(num_bytes)
        for place, slot in enumerate(raw.tolist()):
            before, last = last, slots[before * size + last][slot]
            symbols[place] = last
        return bytes(symbols).translate(ALPHABET.ljust(256, b"\0"))

    def nats_per_byte(self, text: bytes) -> NDArray[np.float64]:
        """Give the true source's code length of each byte, in nats; infinite for a byte it never writes."""
        symbol_of_byte = np.full(256, -1, dtype=np.int64)
        symbol_of_byte[np.frombuffer(ALPHABET, dtype=np.uint8)] = np.arange(len(ALPHABET))
        symbols = symbol_of_byte[np.frombuffer(text, dtype=np.uint8)]
        history = np.concatenate([np.zeros(2, dtype=np.int64), symbols])
        states = history[:-2] * len(ALPHABET) + history[1:-1]
        counts = np.where(symbols >= 0, self._num_slots[states, symbols], 0)
        with np.errstate(divide="ignore"):
            return -np.log(counts / NUM_SLOTS)

    def total_nats(self, text: bytes) -> float:
        """Give the true source's code length of the whole text, in nats."""
        return math.fsum(self.nats_per_byte(text).tolist())
