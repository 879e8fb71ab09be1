"""Bytes to fewer bytes and back: raw, zlib, LZMA and zstd, decoded in bounded pieces.

Without magic numbers, sizes or checksums of their own: the container has them once. The reading side fixes
every parameter (format, window, dictionary), so that a payload cannot ask for memory.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from harness.errors import ArtifactError

# Slices of a payload are views: a copy of each would be another payload in memory.
Buffer = bytes | memoryview
# A window of 4 MiB for all: a reader holds at most the four of a float32 tensor beside its output.
WINDOW_LOG = 22
ZSTD_LEVEL = 22
_LZMA_FILTER: dict[str, Any] = {"id": lzma.FILTER_LZMA2, "dict_size": 1 << WINDOW_LOG, "lc": 0, "pb": 0}
_INPUT_PIECE = 1 << 16


class ByteReader(Protocol):
    """The decoding side of a byte coder."""

    def read(self, num_bytes: int) -> bytes:
        """Return the next `num_bytes` bytes; fewer where the payload ends.

        Raises:
            ArtifactError: the payload is not in the coder's format.
        """
        ...

    def is_used_up(self) -> bool:
        """Whether all output was read and no input is left."""
        ...


class _RawReader:
    def __init__(self, payload: Buffer) -> None:
        self._payload = memoryview(payload)
        self._at = 0

    def read(self, num_bytes: int) -> bytes:
        part = bytes(self._payload[self._at : self._at + num_bytes])
        self._at += len(part)
        return part

    def is_used_up(self) -> bool:
        return self._at == len(self._payload)


class _PiecewiseReader:
    """Feeds a payload to a decompressor piece by piece, so that neither input nor output is held twice."""

    def __init__(self, payload: Buffer) -> None:
        self._payload = memoryview(payload)
        self._at = 0

    def _next_piece(self) -> memoryview:
        piece = self._payload[self._at : self._at + _INPUT_PIECE]
        self._at += len(piece)
        return piece

    def _more(self, num_bytes: int) -> bytes:
        raise NotImplementedError

    def _at_end(self) -> bool:
        raise NotImplementedError

    def read(self, num_bytes: int) -> bytes:
        parts: list[bytes] = []
        while num_bytes and not self._at_end():
            before = self._at
            try:
                part = self._more(num_bytes)
            except (zlib.error, lzma.LZMAError) as error:
                raise ArtifactError(f"compressed payload is damaged: {error}") from error
            if not part and self._at == before == len(self._payload):
                break
            parts.append(part)
            num_bytes -= len(part)
        return b"".join(parts)

    def is_used_up(self) -> bool:
        # The end mark may only be seen when one more byte is asked for.
        return not self.read(1) and self._at_end() and self._at == len(self._payload) and not self._unused()

    def _unused(self) -> bytes:
        raise NotImplementedError


class _ZlibReader(_PiecewiseReader):
    def __init__(self, payload: Buffer) -> None:
        super().__init__(payload)
        self._inflate = zlib.decompressobj(wbits=-15)

    def _more(self, num_bytes: int) -> bytes:
        return self._inflate.decompress(self._inflate.unconsumed_tail or self._next_piece(), num_bytes)

    def _at_end(self) -> bool:
        return self._inflate.eof

    def _unused(self) -> bytes:
        return self._inflate.unused_data


class _LzmaReader(_PiecewiseReader):
    def __init__(self, payload: Buffer) -> None:
        super().__init__(payload)
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[_LZMA_FILTER])

    def _more(self, num_bytes: int) -> bytes:
        piece = self._next_piece() if self._decompressor.needs_input else b""
        return self._decompressor.decompress(piece, num_bytes)

    def _at_end(self) -> bool:
        return self._decompressor.eof

    def _unused(self) -> bytes:
        return self._decompressor.unused_data


def _is_one_zstd_frame(payload: Buffer) -> bool:
    """Walk the block headers: the library itself stops at the end of a frame and ignores what follows."""
    at, last = 2, False
    while not last and at + 3 <= len(payload):
        header = int.from_bytes(payload[at : at + 3], "little")
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        at += 3 + (1 if kind == 1 else size)
    return payload[:1] == b"\0" and last and at == len(payload)


class _ZstdReader:
    def __init__(self, payload: Buffer) -> None:
        import zstandard

        if not _is_one_zstd_frame(payload):
            raise ArtifactError("compressed payload is damaged: not one zstd frame")
        magicless, window = zstandard.FORMAT_ZSTD1_MAGICLESS, 1 << WINDOW_LOG
        decompressor = zstandard.ZstdDecompressor(format=magicless, max_window_size=window)
        self._error = zstandard.ZstdError
        self._stream = decompressor.stream_reader(payload, read_size=_INPUT_PIECE)

    def read(self, num_bytes: int) -> bytes:
        try:
            part: bytes = self._stream.read(num_bytes)
        except self._error as error:
            raise ArtifactError(f"compressed payload is damaged: {error}") from error
        return part

    def is_used_up(self) -> bool:
        try:
            return not self._stream.read(1)
        except self._error:
            return False


def _deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(level=9, wbits=-15, memLevel=9)
    return compressor.compress(data) + compressor.flush()


def _compress_lzma(data: bytes) -> bytes:
    # A dictionary of the data's size: setting up 4 MiB for each vector of a model would take seconds.
    dict_size = min(1 << WINDOW_LOG, max(4096, 1 << len(data).bit_length()))
    filters = [_LZMA_FILTER | {"preset": 9 | lzma.PRESET_EXTREME, "dict_size": dict_size}]
    return lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters)


def compress_zstd(data: bytes, level: int = ZSTD_LEVEL) -> bytes:
    """Compress to one zstd frame without magic number, content size or checksum."""
    import zstandard

    params = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(data),
        window_log=min(WINDOW_LOG, max(10, len(data).bit_length())),
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=0,
    )
    compressed: bytes = zstandard.ZstdCompressor(compression_params=params).compress(data)
    return compressed


COMPRESSORS: Mapping[str, Callable[[bytes], bytes]] = MappingProxyType(
    {"raw": bytes, "zlib": _deflate, "zstd": compress_zstd, "lzma": _compress_lzma}
)
READERS: Mapping[str, Callable[[Buffer], ByteReader]] = MappingProxyType(
    {"raw": _RawReader, "zlib": _ZlibReader, "zstd": _ZstdReader, "lzma": _LzmaReader}
)


def decompress(coder: str, payload: Buffer, num_bytes: int) -> bytes:
    """Decode a payload of exactly `num_bytes` bytes, never making more than one byte beyond.

    Raises:
        ArtifactError: the payload is damaged, or of another length.
    """
    reader = READERS[coder](payload)
    data = reader.read(num_bytes)
    if len(data) != num_bytes or not reader.is_used_up():
        raise ArtifactError(f"{coder} payload of {len(payload)} bytes does not decode to {num_bytes} bytes")
    return data
