"""Arrays to payloads and back: every coder that fits is tried, the shortest payload is kept and named.

    range         one block-adaptive model for all symbols       (integers; see `range_coder`)
    range-rows    one for each class of rows of like magnitude   (integers)
    range-peaks   the place of each row's maximum, then the rest (integers, small tensors)
    packed        the fewest bits that hold every symbol         (integers)
    raw           the numbers as they are, little-endian         (all)
    zstd, lzma, zlib                                             (int8)
    raw+range, zstd+lzma, ...                                    (wider numbers: a coder a byte plane, lowest first)

A payload stands for at most 32,768 bytes of numbers a byte and is never longer than the raw form: both are checked
before anything is allocated, and the writer keeps to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.artifact.byte_coders import Buffer
from harness.artifact.payload_head import Cursor, put_varint
from harness.artifact.planes import (
    BLOCK,
    BYTE_CODERS,
    MAX_BYTES_PER_BYTE,
    PLANE_CODERS,
    decode_planes,
    encode_by_planes,
    encode_plane,
    join_planes,
    split_planes,
)
from harness.artifact.range_coder import (
    Decode,
    Encode,
    decode_by_peaks,
    decode_by_rows,
    decode_whole,
    encode_by_peaks,
    encode_by_rows,
    encode_whole,
)
from harness.errors import ArtifactError, UsageError, suggest

Array = NDArray[np.generic]
DTypeCode = Literal["i1", "i2", "i4", "f2", "f4"]

DTYPES: dict[DTypeCode, np.dtype[np.generic]] = {
    "i1": np.dtype("<i1"),
    "i2": np.dtype("<i2"),
    "i4": np.dtype("<i4"),
    "f2": np.dtype("<f2"),
    "f4": np.dtype("<f4"),
}
RANGE_CODERS: dict[str, tuple[Encode, Decode]] = {
    "range": (encode_whole, decode_whole),
    "range-rows": (encode_by_rows, decode_by_rows),
    "range-peaks": (encode_by_peaks, decode_by_peaks),
}
SYMBOL_CODERS = (*RANGE_CODERS, "packed")
# Lengths of planes, and the end marks of coders that could not shorten anything.
MAX_OVERHEAD_BYTES = 64
# Symbols lie within 2**24 of zero, see `quantize.MAX_SYMBOL`.
MAX_PACKED_BITS = 25


def code_of(dtype: np.dtype[np.generic]) -> DTypeCode:
    """Code of a number type: i1, i2, i4, f2 or f4."""
    for code, known in DTYPES.items():
        if known == dtype.newbyteorder("<"):
            return code
    raise UsageError(f"no coder stores arrays of type {dtype}; known: int8, int16, int32, float16, float32")


def check_plausible(coder: str, payload_bytes: int, dtype: DTypeCode, count: int) -> None:
    """Refuse a payload that cannot stand for `count` numbers, before anything is allocated for them.

    Raises:
        ArtifactError: unknown coder, too short or too long a payload.
    """
    raw_bytes = count * DTYPES[dtype].itemsize
    parts = coder.split("+")
    if coder in SYMBOL_CODERS and dtype[0] == "i":
        raw_bytes = raw_bytes if coder == "packed" else count
    elif coder != "raw" and len(parts) != DTYPES[dtype].itemsize or any(part not in PLANE_CODERS for part in parts):
        raise ArtifactError(f"no coder '{coder}' for numbers of type {dtype}")
    if raw_bytes > payload_bytes * MAX_BYTES_PER_BYTE:
        raise ArtifactError(f"{coder} payload of {payload_bytes} bytes cannot hold {count} numbers")
    if payload_bytes > count * DTYPES[dtype].itemsize + MAX_OVERHEAD_BYTES or (count == 0 and payload_bytes):
        raise ArtifactError(f"{coder} payload of {payload_bytes} bytes is longer than {count} numbers need")


def _rows(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1]) if array.ndim > 1 else array.reshape(1, -1)


def _pack(rows_RC: NDArray[np.int32]) -> bytes | None:
    symbols = rows_RC.reshape(-1)
    low = int(symbols.min())
    bits = (int(symbols.max()) - low).bit_length()
    if bits > MAX_PACKED_BITS:
        return None
    parts = [bytes([bits]), put_varint(low * 2 if low >= 0 else -low * 2 - 1)]
    for start in range(0, symbols.size, BLOCK):
        offsets = (symbols[start : start + BLOCK] - np.int32(low)).astype(">u4")
        parts.append(
            np.packbits(np.unpackbits(offsets.view(np.uint8).reshape(-1, 4), axis=1)[:, 32 - bits :]).tobytes()
        )
    return b"".join(parts)


def _iterate_packed(payload: Buffer, count: int) -> Iterator[NDArray[np.int32]]:
    cursor = Cursor(payload)
    bits, zigzag = cursor.byte(), cursor.varint()
    low = zigzag // 2 if zigzag % 2 == 0 else -(zigzag + 1) // 2
    if bits > MAX_PACKED_BITS or abs(low) > 1 << 24 or len(payload) - cursor.at != -(-count * bits // 8):
        raise ArtifactError(f"packed payload of {len(payload)} bytes does not hold {count} symbols of {bits} bits")
    for start in range(0, count, BLOCK):
        length = min(BLOCK, count - start)
        at = cursor.at + start * bits // 8
        packed = np.frombuffer(payload, np.uint8, -(-length * bits // 8), at)
        wide = np.zeros((length, 32), np.uint8)
        wide[:, 32 - bits :] = np.unpackbits(packed, count=length * bits).reshape(length, bits)
        yield np.packbits(wide, axis=1).view(">u4").reshape(-1).astype(np.int32) + np.int32(low)


def _raw(array: Array) -> bytes:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()


def _decode_raw(payload: Buffer, dtype: DTypeCode, out: Array) -> None:
    if len(payload) != out.size * DTYPES[dtype].itemsize:
        raise ArtifactError(f"raw payload of {len(payload)} bytes does not hold {out.size} numbers of {dtype}")
    out[:] = np.frombuffer(payload, DTYPES[dtype])


def decode_into(coder: str, payload: Buffer, dtype: DTypeCode, out: Array) -> None:
    """Decode a payload into a contiguous array; whole numbers may be decoded into floats.

    Args:
        coder: as the writer named it.
        payload: the bytes.
        dtype: type that was encoded.
        out: array to fill, of the shape that was encoded, of any type that holds the numbers.

    Raises:
        ArtifactError: the payload is not one of that many numbers.
    """
    check_plausible(coder, len(payload), dtype, out.size)
    if out.size == 0:
        return
    flat = out.reshape(-1)
    if coder in RANGE_CODERS and dtype[0] == "i":
        RANGE_CODERS[coder][1](payload, _rows(out))
    elif coder == "raw":
        _decode_raw(payload, dtype, flat)
    elif coder == "packed":
        at = 0
        for block in _iterate_packed(payload, flat.size):
            flat[at : at + block.size] = block
            at += block.size
    else:
        decode_planes(coder, payload, DTYPES[dtype], flat)


def decode(coder: str, payload: Buffer, dtype: DTypeCode, shape: tuple[int, ...]) -> Array:
    """Decode a payload to a new array of the type that was encoded.

    Raises:
        ArtifactError: the payload is not one of that many numbers.
    """
    check_plausible(coder, len(payload), dtype, int(np.prod(shape, dtype=object)))
    out = np.empty(shape, DTYPES[dtype])
    decode_into(coder, payload, dtype, out)
    return out


def encode(array: Array, coder: str) -> bytes | None:
    """Encode an array with one named coder.

    Args:
        array: int8, int16, int32, float16 or float32, of any shape.
        coder: a name from the list on top.

    Returns:
        The payload; None where the coder cannot hold the symbols.

    Raises:
        UsageError: no such coder for this type.
    """
    if array.size == 0:
        return b""
    if array.dtype.kind == "i" and coder in SYMBOL_CODERS:
        rows_RC = _rows(array).astype(np.int32)
        return _pack(rows_RC) if coder == "packed" else RANGE_CODERS[coder][0](rows_RC)
    if coder == "raw":
        return _raw(array)
    names = coder.split("+")
    if unknown := [name for name in names if name not in PLANE_CODERS]:
        raise UsageError(f"unknown coder '{unknown[0]}'. {suggest(unknown[0], (*SYMBOL_CODERS, *BYTE_CODERS))}")
    if len(names) != array.dtype.itemsize:
        raise UsageError(f"coder '{coder}' names {len(names)} planes, {array.dtype} has {array.dtype.itemsize}")
    payloads = [encode_plane(plane, name) for plane, name in zip(split_planes(array), names, strict=True)]
    return join_planes([payload for payload in payloads if payload is not None])


def encode_smallest(array: Array) -> tuple[str, bytes]:
    """Encode an array with the coder that makes it shortest.

    Args:
        array: int8, int16, int32, float16 or float32, of any shape.

    Returns:
        The name of the coder and the payload. On planes of more than 32,768 bytes the slow coders (zstd at level
        22, LZMA, zlib) run only where a sample or a fast pass says that there are repeats for them to find.
    """
    dtype = code_of(array.dtype)
    if array.size == 0:
        return "raw", b""
    names = SYMBOL_CODERS if array.dtype.kind == "i" else ()
    tried = [(name, payload) for name in names if (payload := encode(array, name)) is not None]
    tried = [(name, payload) for name, payload in tried if _fits(name, payload, dtype, array.size)]
    shortest = min((len(payload) for _, payload in tried), default=None)
    by_planes = encode_by_planes(array, shortest)
    candidates = [("raw", _raw(array)), *tried, *([by_planes] if by_planes else [])]
    return min(candidates, key=lambda item: len(item[1]))


def _fits(coder: str, payload: bytes, dtype: DTypeCode, count: int) -> bool:
    try:
        check_plausible(coder, len(payload), dtype, count)
    except ArtifactError:
        return False
    return True
