"""The one file: written whole or not at all, the same bytes for the same tensors, read within limits.

What is scored, counted and verified is read from this file; nothing else of a run is needed to decode it.
"""

from __future__ import annotations

import hashlib
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from harness.artifact.byte_coders import decompress
from harness.artifact.codec import decode, decode_into
from harness.artifact.header import (
    DIGEST_BYTES,
    FRAMING_BYTES,
    PREAMBLE,
    Header,
    Limits,
    TensorEntry,
    unpack_header,
    unpack_preamble,
)
from harness.artifact.quantize import Quantised
from harness.artifact.writer import ArtifactSummary, PlannedTensor, write_artifact
from harness.errors import ArtifactError

__all__ = ["Artifact", "ArtifactSummary", "Limits", "PlannedTensor", "TensorEntry", "write_artifact"]

_HASH_PIECE = 1 << 20


@contextmanager
def _naming(*places: object) -> Iterator[None]:
    """Put where it happened in front of an error."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(f"{': '.join(map(str, places))}: {error}") from error
    except OSError as error:
        raise ArtifactError(f"{places[0]}: cannot be read: {error.strerror or error}") from error


def _read_checked(path: Path, limits: Limits) -> tuple[Header, int, str]:
    """Read and check the header; returns it with its stored length and the sha256 of the file."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactError("not a file")
    if not FRAMING_BYTES < status.st_size <= limits.max_file_bytes:
        raise ArtifactError(f"{status.st_size} bytes, expected {FRAMING_BYTES + 1} to {limits.max_file_bytes}")
    with path.open("rb") as stream:
        stored_bytes, raw_bytes = unpack_preamble(stream.read(PREAMBLE.size), limits)
        if stored_bytes > status.st_size - FRAMING_BYTES:
            raise ArtifactError(f"truncated: {status.st_size} bytes, the header alone has {stored_bytes}")
        sha256 = _check_digest(stream, status.st_size)
        stream.seek(PREAMBLE.size)
        header = unpack_header(stream.read(stored_bytes), raw_bytes, limits)
    expected = FRAMING_BYTES + stored_bytes + header.payload_bytes
    if expected != status.st_size:
        raise ArtifactError(f"{status.st_size} bytes, its header describes {expected}")
    return header, stored_bytes, sha256


def _check_digest(stream: BinaryIO, file_bytes: int) -> str:
    """Compare the trailing digest with the bytes before it; returns the sha256 of the whole file."""
    stream.seek(0)
    digest, left = hashlib.sha256(), file_bytes - DIGEST_BYTES
    while left and (piece := stream.read(min(left, _HASH_PIECE))):
        digest.update(piece)
        left -= len(piece)
    trailer = stream.read(DIGEST_BYTES)
    if trailer != digest.digest():
        raise ArtifactError("the digest at its end does not match: truncated or altered")
    digest.update(trailer)
    return digest.hexdigest()


class Artifact:
    """An opened artifact: its header was checked, its payloads are decoded on demand."""

    def __init__(self, path: Path, header: Header, header_bytes: int, sha256: str) -> None:
        self.path = path
        self.sha256 = sha256
        self._header = header
        self._header_bytes = header_bytes
        self._entries = {entry.name: entry for entry in header.tensors}
        self._offsets = dict(self._locate())

    @classmethod
    def open(cls, path: Path, limits: Limits | None = None) -> Artifact:
        """Open a file and check everything that can be checked without decoding a payload.

        Raises:
            ArtifactError: not an artifact, truncated, altered, inconsistent or beyond the limits.
        """
        limits = limits or Limits()
        with _naming(path):
            header, header_bytes, sha256 = _read_checked(path, limits)
        return cls(path, header, header_bytes, sha256)

    def _locate(self) -> Iterator[tuple[tuple[str, str], int]]:
        at = PREAMBLE.size + self._header_bytes
        for name, blob in self._header.blobs.items():
            yield ("blob", name), at
            at += blob.payload_bytes
        for entry in self._header.tensors:
            yield ("tensor", entry.name), at
            at += entry.stored_bytes

    @property
    def meta(self) -> Mapping[str, Any]:
        """The meta data that the writer gave."""
        return self._header.meta

    @property
    def entries(self) -> tuple[TensorEntry, ...]:
        """The stored tensors, in order."""
        return self._header.tensors

    @property
    def aliases(self) -> Mapping[str, str]:
        """Names of tensors that are identical to a stored one."""
        return self._header.aliases

    @property
    def blob_names(self) -> tuple[str, ...]:
        """Names of the blobs."""
        return tuple(self._header.blobs)

    @property
    def artifact_bytes(self) -> int:
        """Size of the file."""
        return FRAMING_BYTES + self._header_bytes + self._header.payload_bytes

    @property
    def num_params_stored(self) -> int:
        """Unique coded numbers, scales included; see `Header.num_params_stored`."""
        return self._header.num_params_stored

    def bytes_by_part(self) -> dict[str, int]:
        """Bytes of each part, scales, blob, the header and the framing; they add up to the size of the file."""
        return self._header.bytes_by_part(self._header_bytes)

    def offset_of(self, name: str) -> int:
        """Offset of a stored tensor's payload in the file."""
        return self._offsets["tensor", self._find(name).name]

    def decode_tensor(self, name: str) -> NDArray[np.float32]:
        """Decode one tensor, or the one it is an alias of, to float32.

        Raises:
            ArtifactError: no such tensor, or its payload is damaged.
        """
        entry = self._find(name)
        payload, scale_payload = self._payloads(entry)
        out = np.empty(entry.shape, np.float32)
        # A forged scale can overflow; the result is refused below, without a warning on the way.
        with _naming(self.path, entry.name), np.errstate(over="ignore", invalid="ignore"):
            decode_into(entry.coder, payload, entry.dtype, out)
            if entry.scale is not None and out.size:
                scale = decode(entry.scale.coder, scale_payload, entry.scale.dtype, (entry.scale.num_scales,))
                rows_RC = out.reshape(scale.size, -1)
                rows_RC *= scale.astype(np.float32)[:, None]
            if out.size and not (np.isfinite(out.min()) and np.isfinite(out.max())):
                raise ArtifactError("decodes to NaN or infinite numbers")
        return out

    def decode_quantised(self, name: str) -> Quantised:
        """Decode one tensor to the symbols and scales that were coded.

        Raises:
            ArtifactError: no such tensor, or its payload is damaged.
        """
        entry = self._find(name)
        payload, scale_payload = self._payloads(entry)
        with _naming(self.path, entry.name):
            symbols = decode(entry.coder, payload, entry.dtype, entry.shape)
            if entry.scale is None:
                return Quantised(symbols=symbols, scale=None, scheme=entry.scheme)
            scale = decode(entry.scale.coder, scale_payload, entry.scale.dtype, (entry.scale.num_scales,))
            return Quantised(symbols=symbols, scale=scale, scheme=entry.scheme)

    def decode_tensors(self) -> dict[str, NDArray[np.float32]]:
        """Decode every tensor to float32; an alias shares the array of the tensor it stands for."""
        tensors = {entry.name: self.decode_tensor(entry.name) for entry in self.entries}
        return tensors | {alias: tensors[name] for alias, name in self.aliases.items()}

    def blob(self, name: str) -> bytes:
        """Decode a blob.

        Raises:
            ArtifactError: no such blob, or its payload is damaged.
        """
        if name not in self._header.blobs:
            raise ArtifactError(f"{self.path}: no blob '{name}'; it has: {', '.join(self.blob_names) or 'none'}")
        entry = self._header.blobs[name]
        payload = self._read(("blob", name), entry.payload_bytes, entry.crc32)
        with _naming(self.path, name):
            return decompress(entry.coder, payload, entry.num_bytes)

    def _find(self, name: str) -> TensorEntry:
        entry = self._entries.get(self._header.aliases.get(name, name))
        if entry is None:
            raise ArtifactError(f"{self.path}: no tensor '{name}' among {len(self._entries)}")
        return entry

    def _payloads(self, entry: TensorEntry) -> tuple[memoryview, memoryview]:
        data = memoryview(self._read(("tensor", entry.name), entry.stored_bytes, entry.crc32))
        return data[: entry.payload_bytes], data[entry.payload_bytes :]

    def _read(self, key: tuple[str, str], num_bytes: int, crc32: int) -> bytes:
        with _naming(self.path), self.path.open("rb") as stream:
            stream.seek(self._offsets[key])
            data = stream.read(num_bytes)
        if len(data) != num_bytes or zlib.crc32(data) != crc32:
            raise ArtifactError(f"{self.path}: {key[1]}: checksum differs; the payload is altered")
        return data
