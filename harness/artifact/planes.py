"""Wide numbers as byte planes: all lowest bytes first, then the next ones, each plane with the coder that suits it.

The low bytes of weights are noise and stay raw, the high ones (sign, exponent) are where a coder gains.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.artifact.byte_coders import COMPRESSORS, READERS, Buffer, ByteReader, compress_zstd
from harness.artifact.payload_head import Cursor, put_varint
from harness.artifact.range_coder import encode_whole, iterate_whole
from harness.errors import ArtifactError

Array = NDArray[np.generic]

BYTE_CODERS = ("zstd", "lzma", "zlib", "raw")
PLANE_CODERS = ("range", *BYTE_CODERS)
_SLOW_CODERS = ("zstd", "lzma", "zlib")
# What zstd reaches on constant bytes: 128 KiB in a block of four bytes.
MAX_BYTES_PER_BYTE = 32_768
BLOCK = 65_536
_SAMPLE_BYTES = 32_768


class _RangeReader:
    """A byte plane that was range coded, read like the other byte coders."""

    def __init__(self, payload: Buffer, num_bytes: int) -> None:
        self._blocks = iterate_whole(payload, num_bytes, num_bytes)
        self._ready = b""

    def read(self, num_bytes: int) -> bytes:
        parts, missing = [self._ready], num_bytes - len(self._ready)
        while missing > 0 and (block := next(self._blocks, None)) is not None:
            parts.append(block.astype(np.uint8).tobytes())
            missing -= block.size
        data = b"".join(parts)
        self._ready = data[num_bytes:]
        return data[:num_bytes]

    def is_used_up(self) -> bool:
        return not self.read(1)


def _plane_readers(coder: str, payload: Buffer, count: int) -> list[ByteReader]:
    names, cursor = coder.split("+"), Cursor(payload)
    lengths = [cursor.varint() for _ in names[:-1]]
    lengths.append(len(payload) - cursor.at - sum(lengths))
    if lengths[-1] < 0:
        raise ArtifactError(f"{coder} payload of {len(payload)} bytes is shorter than its planes")
    readers: list[ByteReader] = []
    at = cursor.at
    for name, length in zip(names, lengths, strict=True):
        part = memoryview(payload)[at : at + length]
        readers.append(_RangeReader(part, count) if name == "range" else READERS[name](part))
        at += length
    return readers


def decode_planes(coder: str, payload: Buffer, dtype: np.dtype[np.generic], out: Array) -> None:
    """Decode a payload of planes into a flat array, block by block.

    Raises:
        ArtifactError: the payload is not one of that many numbers.
    """
    readers = _plane_readers(coder, payload, out.size)
    for start in range(0, out.size, BLOCK):
        length = min(BLOCK, out.size - start)
        planes = np.empty((length, len(readers)), np.uint8)
        for at, reader in enumerate(readers):
            part = np.frombuffer(reader.read(length), np.uint8)
            if part.size != length:
                raise ArtifactError(f"{coder} payload of {len(payload)} bytes ends before {out.size} numbers")
            planes[:, at] = part
        out[start : start + length] = planes.view(dtype).reshape(-1)
    if not all(reader.is_used_up() for reader in readers):
        raise ArtifactError(f"{coder} payload of {len(payload)} bytes is longer than {out.size} numbers need")


def split_planes(array: Array) -> list[bytes]:
    """Byte planes of an array, lowest first; one for int8."""
    little = np.ascontiguousarray(array.reshape(-1), dtype=array.dtype.newbyteorder("<"))
    planes_NB = little.view(np.uint8).reshape(little.size, -1)
    return [planes_NB[:, at].tobytes() for at in range(planes_NB.shape[1])]


def join_planes(payloads: list[bytes]) -> bytes:
    """The payloads of the planes behind the lengths of all but the last."""
    return b"".join([*(put_varint(len(payload)) for payload in payloads[:-1]), *payloads])


def encode_plane(plane: bytes, coder: str) -> bytes | None:
    """Encode one byte plane; None where the coder cannot."""
    if coder == "range":
        return encode_whole(np.frombuffer(plane, np.uint8).astype(np.int32).reshape(1, -1))
    return COMPRESSORS[coder](plane)


def _worth_trying(plane: bytes, shortest: int) -> tuple[str, ...]:
    """The slow coders that may beat `shortest` bytes: all on short planes, else by a sample and by a fast pass."""
    if len(plane) <= _SAMPLE_BYTES:
        return _SLOW_CODERS
    middle = (len(plane) - _SAMPLE_BYTES) // 2
    sample = plane[middle : middle + _SAMPLE_BYTES]
    sample_bytes = {name: len(COMPRESSORS[name](sample)) for name in _SLOW_CODERS}
    best = min(_SLOW_CODERS, key=lambda name: sample_bytes[name])
    chosen = {best} if sample_bytes[best] * len(plane) < shortest * _SAMPLE_BYTES else set()
    if len(compress_zstd(plane, 3)) < shortest:
        chosen |= {"zstd", best}
    return tuple(name for name in _SLOW_CODERS if name in chosen)


def _shortest_plane(plane: bytes, shortest: int | None) -> tuple[str, bytes]:
    """The shortest payload of a byte plane; `shortest` is what another coder reached on it already."""
    tried = {"raw": plane}

    def add(name: str) -> None:
        coded = encode_plane(plane, name)
        if coded is not None and len(plane) <= len(coded) * MAX_BYTES_PER_BYTE:
            tried[name] = coded

    if shortest is None:
        add("range")
    known = min(len(coded) for coded in tried.values())
    for name in _worth_trying(plane, known if shortest is None else min(shortest, known)):
        add(name)
    name = min(tried, key=lambda name: (len(tried[name]), PLANE_CODERS.index(name)))
    return name, tried[name]


def _planes_may_pay(planes: list[bytes], shortest: int) -> bool:
    """Whether coding wide whole numbers plane by plane may beat `shortest` bytes, by a fast look at each plane."""
    fast = [(encode_plane(plane, "range"), compress_zstd(plane, 3)) for plane in planes]
    return sum(min(len(coded) for coded in pair if coded is not None) for pair in fast) < shortest


def encode_by_planes(array: Array, shortest: int | None) -> tuple[str, bytes] | None:
    """Encode each byte plane with its best coder; None where `shortest` bytes are out of reach at a fast look."""
    planes = split_planes(array)
    if len(planes) > 1 and shortest is not None and not _planes_may_pay(planes, shortest):
        return None
    coded = [_shortest_plane(plane, shortest if len(planes) == 1 else None) for plane in planes]
    return "+".join(name for name, _ in coded), join_planes([payload for _, payload in coded])
