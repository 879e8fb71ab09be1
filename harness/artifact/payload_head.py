"""The head of a payload: numbers of variable length, and the prior of a range-coded stream in two bytes or more.

Two bytes (alphabet, trust, shape; scale, ends); two more for a spike; for an alphabet outside the table its bounds,
centre and second scale.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.artifact.byte_coders import Buffer
from harness.artifact.models import FLAT, SPIKE_PARTS, Prior
from harness.errors import ArtifactError

# Alphabets that need no bounds in the payload: those of the integer schemes.
ALPHABETS = ((-1, 3), (-7, 15), (-15, 31), (-31, 63), (-63, 127), (-127, 255))
_SPIKED, EXPLICIT = 6, 7
# Alphabets from 0 up, in one byte: 2 to 128 symbols, or all bytes.
_ALL_BYTES = 127
MAX_ALPHABET = 1 << 14


def put_varint(value: int) -> bytes:
    """Write a whole number, seven bits a byte, lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


@dataclass(slots=True)
class Cursor:
    """Reads the head of a payload, byte by byte, within its bounds; raises ArtifactError beyond them."""

    data: Buffer
    at: int = 0

    def byte(self) -> int:
        """Read one byte."""
        if self.at >= len(self.data):
            raise ArtifactError("payload ends inside its head")
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        """Read a number of `put_varint`, at most 42 bits."""
        value = 0
        for shift in range(0, 42, 7):
            part = self.byte()
            value |= (part & 127) << shift
            if part < 128:
                return value
        raise ArtifactError("payload has a number that is too long in its head")


def find_alphabet(low: int, high: int) -> int:
    """Index of the smallest alphabet of the table that holds both bounds, or EXPLICIT."""
    for index, (first, size) in enumerate(ALPHABETS):
        if first <= low and high < first + size:
            return index
    return EXPLICIT


def put_prior(prior: Prior) -> bytes:
    """Write a prior."""
    bounds = (prior.low, prior.size)
    plain = bounds in ALPHABETS and prior.centre == 0 and prior.left == prior.right
    index = ALPHABETS.index(bounds) if plain else EXPLICIT
    form = prior.trust << 2 | prior.shape
    scale = prior.left << 1 | int(prior.ends)
    head = bytes([_SPIKED << 5 | form, scale, prior.spike, index] if prior.spike else [index << 5 | form, scale])
    return head if plain else head + _put_bounds(prior)


def _put_bounds(prior: Prior) -> bytes:
    one_sided = prior.low == prior.centre == 0 and prior.left == prior.right
    if one_sided and (prior.size <= 128 or prior.size == 256):
        return bytes([prior.size - 2 if prior.size <= 128 else _ALL_BYTES])
    zigzag = prior.low * 2 if prior.low >= 0 else -prior.low * 2 - 1
    low = bytes([128 | zigzag]) if zigzag < 127 else b"\xff" + put_varint(zigzag)
    return low + put_varint(prior.size) + put_varint(prior.centre - prior.low) + bytes([prior.right])


def get_prior(cursor: Cursor) -> Prior:
    """Read a prior; raises ArtifactError where it is impossible."""
    first, second = cursor.byte(), cursor.byte()
    index, scale, spike = first >> 5, second >> 1, 0
    if index == _SPIKED:
        spike, index = cursor.byte(), cursor.byte()
    if spike >= SPIKE_PARTS or index in (_SPIKED, *range(EXPLICIT + 1, 256)):
        raise ArtifactError("range-coded payload has an impossible head")
    low, size, centre, right = (*ALPHABETS[index], 0, scale) if index != EXPLICIT else _get_bounds(cursor, scale)
    return Prior(
        low=low,
        size=size,
        centre=centre,
        left=scale,
        right=right,
        shape=first & 3,
        trust=first >> 2 & 7,
        ends=bool(second & 1),
        spike=spike,
    )


def _get_bounds(cursor: Cursor, scale: int) -> tuple[int, int, int, int]:
    """Read smallest symbol, size, centre and right scale of an alphabet that is not in the table."""
    form = cursor.byte()
    if form < 128:
        return 0, 256 if form == _ALL_BYTES else form + 2, 0, scale
    zigzag = cursor.varint() if form == 255 else form & 127
    size, centre, right = cursor.varint(), cursor.varint(), cursor.byte()
    low = zigzag // 2 if zigzag % 2 == 0 else -(zigzag + 1) // 2
    if not (2 <= size <= MAX_ALPHABET and centre < size and right <= FLAT and abs(low) < 1 << 24):
        raise ArtifactError("range-coded payload has an impossible alphabet in its head")
    return low, size, low + centre, right
