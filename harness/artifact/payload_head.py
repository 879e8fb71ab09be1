"""The head of a payload: numbers of variable length, and the prior of a range-coded stream in two bytes or more.

Two bytes (alphabet, trust, shape; scale, ends); two more (spike; alphabet, form) for what these cannot say, and a
third for a gap; for an alphabet outside the table its bounds, centre and second scale.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.artifact.byte_coders import Buffer
from harness.artifact.models import FLAT, PLAIN_SHAPES, RISES, SPIKE_PARTS, Prior
from harness.errors import ArtifactError

# Alphabets that need no bounds in the payload, by index: those of the integer schemes, and of two's complement.
_SYMMETRIC = {0: (-1, 3), 1: (-7, 15), 2: (-15, 31), 3: (-31, 63), 4: (-63, 127), 5: (-127, 255)}
_TWOS_COMPLEMENT = {8: (-2, 4), 9: (-8, 16), 10: (-16, 32), 11: (-32, 64), 12: (-64, 128), 13: (-128, 256)}
ALPHABETS = _SYMMETRIC | _TWOS_COMPLEMENT
_LONG, EXPLICIT = 6, 7
_INDICES = {bounds: index for index, bounds in ALPHABETS.items()}
# Forms of a long head that is not extended (0) or is: 1, plus 1 for the later shapes, plus 2, 4 or 6 for a gap.
_NUM_FORMS = 3 + 2 * len(RISES)
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


def find_alphabets(low: int, high: int) -> list[tuple[int, int]]:
    """Smallest symbol and size of the alphabets of the table worth a try: the smallest of each kind, if smaller."""
    found: list[tuple[int, int]] = []
    for kind in (_SYMMETRIC, _TWOS_COMPLEMENT):
        fits = [(first, size) for first, size in kind.values() if first <= low and high < first + size]
        if fits and not (found and found[0][1] < fits[0][1]):
            found.append(fits[0])
    return found


def put_prior(prior: Prior) -> bytes:
    """Write a prior."""
    in_table = prior.centre == 0 and prior.left == prior.right
    index = _INDICES.get((prior.low, prior.size), EXPLICIT) if in_table else EXPLICIT
    head = _put_form(prior, index)
    return head if index != EXPLICIT else head + _put_bounds(prior)


def _put_form(prior: Prior, index: int) -> bytes:
    first = prior.trust << 2 | prior.shape % PLAIN_SHAPES
    scale = prior.left << 1 | int(prior.ends)
    if not (prior.spike or prior.extended or index in _TWOS_COMPLEMENT):
        return bytes([index << 5 | first, scale])
    rise = 2 + 2 * prior.rise if prior.gap else 0
    form = 1 + prior.shape // PLAIN_SHAPES + rise if prior.extended else 0
    return bytes([_LONG << 5 | first, scale, prior.spike, form << 4 | index, *([prior.gap] if prior.gap else [])])


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
    index, scale, spike, form = first >> 5, second >> 1, 0, 0
    if index == _LONG:
        spike, last = cursor.byte(), cursor.byte()
        index, form = last & 15, last >> 4
    if spike >= SPIKE_PARTS or form >= _NUM_FORMS or not (index in ALPHABETS or index == EXPLICIT):
        raise ArtifactError("range-coded payload has an impossible head")
    rise, later_shape = divmod(max(form - 1, 0), 2)
    gap = cursor.byte() if rise else 0
    if rise and not gap:
        raise ArtifactError("range-coded payload has an impossible gap in its head")
    low, size, centre, right = (*ALPHABETS[index], 0, scale) if index != EXPLICIT else _get_bounds(cursor, scale)
    return Prior(
        low=low,
        size=size,
        centre=centre,
        left=scale,
        right=right,
        shape=(first & 3) + PLAIN_SHAPES * later_shape,
        trust=first >> 2 & 7,
        ends=bool(second & 1),
        spike=spike,
        extended=form > 0,
        gap=gap,
        rise=max(rise - 1, 0),
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
