"""Looking into compressed streams (zlib, gzip, xz, bzip2, zstd): inflated to a temporary file, within a cap."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, BinaryIO, Protocol

from harness.errors import ArtifactError

# Whole 16 MB challenge artifacts inflate to some 30 MB; beyond the cap a file is described, not opened.
MAX_INFLATED_BYTES = 256 << 20
# Weights shrink a few times; past this ratio only zeros or a bomb are left.
MAX_RATIO = 50
RATIO_FREE_BYTES = 16 << 20
MAX_ZSTD_WINDOW = 1 << 27
_PIECE = 1 << 20


def packed_format(head: bytes) -> str | None:
    """Name the compression of a stream by its first bytes, or None."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"\xfd7zXZ\x00"):
        return "xz"
    if head.startswith(b"BZh"):
        return "bzip2"
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd"
    if len(head) >= 2 and head[0] & 15 == 8 and head[0] >> 4 <= 7 and int.from_bytes(head[:2], "big") % 31 == 0:
        return "zlib"
    return None


class _Readable(Protocol):
    def read(self, num_bytes: int, /) -> bytes: ...


class _ZlibFile:
    """A zlib stream with the `read` of a file."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._inflate = zlib.decompressobj()

    def read(self, num_bytes: int) -> bytes:
        while not self._inflate.eof:
            piece = self._inflate.unconsumed_tail or self._stream.read(1 << 16)
            if not piece:
                raise ArtifactError("zlib stream is truncated")
            if part := self._inflate.decompress(piece, num_bytes):
                return part
        return b""


class _ZstdFile:
    """A zstd frame with the `read` of a file; unlike the library's own, it tells a cut frame from its end."""

    def __init__(self, stream: BinaryIO) -> None:
        import zstandard

        self._stream = stream
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW).decompressobj()

    def read(self, _: int) -> bytes:
        while not self._decompressor.eof:
            # A block of 128 KiB can come from four bytes: small pieces bound what one call returns.
            piece = self._stream.read(1024)
            if not piece:
                raise ArtifactError("zstd stream is truncated")
            if part := self._decompressor.decompress(piece):
                return bytes(part)
        return b""


def _pieces(kind: str, stream: BinaryIO) -> Iterator[bytes]:
    import zstandard

    openers: dict[str, Callable[[], _Readable]] = {
        "zlib": lambda: _ZlibFile(stream),
        "gzip": lambda: gzip.GzipFile(fileobj=stream),
        "xz": lambda: lzma.LZMAFile(stream),  # noqa: SIM115 - the stream is the caller's
        "bzip2": lambda: bz2.BZ2File(stream),
        "zstd": lambda: _ZstdFile(stream),
    }
    opened = openers[kind]()
    try:
        while piece := opened.read(_PIECE):
            yield piece
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise ArtifactError(f"{kind} stream is damaged: {error}") from error


def inflate(kind: str, stream: BinaryIO, file_bytes: int) -> tuple[IO[bytes] | None, int]:
    """Inflate a stream into a temporary file.

    Returns:
        The file, which the caller closes, and its length; None and the length at which it was given up.

    Raises:
        ArtifactError: the stream is damaged.
    """
    inflated_bytes = 0
    spool: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_PIECE)  # noqa: SIM115 - the caller closes it
    try:
        for piece in _pieces(kind, stream):
            inflated_bytes += len(piece)
            too_dense = inflated_bytes > RATIO_FREE_BYTES + MAX_RATIO * file_bytes
            if too_dense or inflated_bytes > MAX_INFLATED_BYTES:
                spool.close()
                return None, inflated_bytes
            spool.write(piece)
    except BaseException:
        spool.close()
        raise
    spool.seek(0)
    return spool, inflated_bytes
