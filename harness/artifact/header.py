"""The header of an artifact: what every byte of the file belongs to, checked before a payload is touched.

Layout: magic, version, two lengths; the header (canonical JSON, LZMA); payloads of blobs and tensors in the order of
the header without gaps, so that offsets follow from lengths and cannot overlap; sha256 of all before it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from harness.artifact.byte_coders import COMPRESSORS, decompress
from harness.artifact.codec import DTypeCode, check_plausible
from harness.artifact.planes import MAX_BYTES_PER_BYTE
from harness.artifact.quantize import num_rows
from harness.artifact.schemes import parse_scheme
from harness.errors import ArtifactError, UsageError

MAGIC = b"\x89CLAIM\r\n"
FORMAT_VERSION = 1
PREAMBLE = struct.Struct("<8sHII")
DIGEST_BYTES = 32
FRAMING_BYTES = PREAMBLE.size + DIGEST_BYTES
HEADER_CODER = "lzma"
RESERVED_PARTS = ("scales", "header", "framing")
FLOAT_BYTES = 4

Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Count = Annotated[int, Field(ge=0, lt=1 << 48)]
Checksum = Annotated[int, Field(ge=0, lt=1 << 32)]
CoderName = Annotated[str, StringConstraints(pattern=r"^[a-z+-]{1,40}$")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a reader is willing to decode.

    Attributes:
        max_file_bytes: size of the file.
        max_header_bytes: size of the header, decompressed.
        max_tensors: number of tensors and aliases.
        max_float32_bytes: bytes of all decoded tensors.
        max_tensor_bytes: bytes of one decoded tensor.
        max_blob_bytes: bytes of one decoded blob.
    """

    max_file_bytes: int = 4 << 30
    max_header_bytes: int = 1 << 20
    max_tensors: int = 16_384
    max_float32_bytes: int = 4 << 30
    max_tensor_bytes: int = 4 << 30
    max_blob_bytes: int = 64 << 20


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ScaleEntry(_Strict):
    """How the scales of a tensor are stored; their number follows from the shape and the scheme."""

    dtype: DTypeCode
    coder: CoderName
    num_scales: Count
    payload_bytes: Count


class TensorEntry(_Strict):
    """How a tensor is stored. `crc32` covers the payload of the symbols, then that of the scales."""

    name: Name
    part: Label
    shape: tuple[Count, ...] = Field(max_length=8)
    scheme: Annotated[str, StringConstraints(max_length=64)]
    dtype: DTypeCode
    coder: CoderName
    payload_bytes: Count
    crc32: Checksum
    scale: ScaleEntry | None

    @property
    def num_numbers(self) -> int:
        """Numbers of the tensor, the product of its shape."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def stored_bytes(self) -> int:
        """Bytes of symbols and scales in the file."""
        return self.payload_bytes + (self.scale.payload_bytes if self.scale else 0)


class BlobEntry(_Strict):
    """How a blob is stored."""

    coder: CoderName
    num_bytes: Count
    payload_bytes: Count
    crc32: Checksum


class Header(_Strict):
    """Everything but the payloads. `aliases` maps a tensor's name to the identical one that is stored."""

    meta: dict[str, Any]
    tensors: tuple[TensorEntry, ...]
    aliases: dict[Name, Name]
    blobs: dict[Label, BlobEntry]

    @property
    def payload_bytes(self) -> int:
        """Bytes of all payloads."""
        blobs = sum(blob.payload_bytes for blob in self.blobs.values())
        return blobs + sum(tensor.stored_bytes for tensor in self.tensors)

    @property
    def num_params_stored(self) -> int:
        """Coded numbers and scales, identical tensors once; `integers` (masks, indices) count in bytes only."""
        numbers = sum(entry.num_numbers for entry in self.tensors if entry.scheme != "integers")
        return numbers + sum(entry.scale.num_scales for entry in self.tensors if entry.scale is not None)

    def bytes_by_part(self, header_bytes: int) -> dict[str, int]:
        """Bytes of each part, scales, blob, header and framing; they add up to the size of the file."""
        parts: dict[str, int] = {}
        for entry in self.tensors:
            parts[entry.part] = parts.get(entry.part, 0) + entry.payload_bytes
        parts["scales"] = sum(entry.scale.payload_bytes for entry in self.tensors if entry.scale is not None)
        parts |= {name: blob.payload_bytes for name, blob in self.blobs.items()}
        return parts | {"header": header_bytes, "framing": FRAMING_BYTES}


def canonical_json(value: Any) -> bytes:
    """Write JSON in the one form that the same value always has: sorted keys, no spaces, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def pack_header(header: Header) -> tuple[bytes, bytes]:
    """Make the preamble and the compressed header.

    Raises:
        UsageError: the meta data is not JSON, or the header would be too large to read again.
    """
    try:
        raw = canonical_json(header.model_dump())
    except (TypeError, ValueError) as error:
        raise UsageError(f"artifact meta data is not plain JSON: {error}") from error
    if len(raw) > Limits().max_header_bytes:
        raise UsageError(f"artifact header of {len(raw)} bytes, at most {Limits().max_header_bytes}")
    stored = COMPRESSORS[HEADER_CODER](raw)
    return PREAMBLE.pack(MAGIC, FORMAT_VERSION, len(stored), len(raw)), stored


def unpack_preamble(preamble: bytes, limits: Limits) -> tuple[int, int]:
    """Read the preamble: stored and decompressed length of the header, in bytes.

    Raises:
        ArtifactError: not an artifact, another version, or a header beyond its cap.
    """
    if len(preamble) < PREAMBLE.size or not preamble.startswith(MAGIC):
        raise ArtifactError("not an artifact of this program")
    _, version, stored_bytes, raw_bytes = PREAMBLE.unpack(preamble)
    if version != FORMAT_VERSION:
        raise ArtifactError(f"artifact format {version}, this program reads {FORMAT_VERSION}; install a newer one")
    if raw_bytes > limits.max_header_bytes or stored_bytes > limits.max_header_bytes:
        raise ArtifactError(f"header of {raw_bytes} bytes, at most {limits.max_header_bytes}")
    return stored_bytes, raw_bytes


def unpack_header(stored: bytes, raw_bytes: int, limits: Limits) -> Header:
    """Decompress, parse and check a header; nothing of the size it declares is allocated.

    Raises:
        ArtifactError: damaged, not canonical, inconsistent or beyond the limits.
    """
    raw = decompress(HEADER_CODER, stored, raw_bytes)
    try:
        if canonical_json(json.loads(raw)) != raw:
            raise ArtifactError("header is not in canonical form")
        header = Header.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise ArtifactError(f"header: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError("header is not JSON that can be read") from error
    check_header(header, limits)
    return header


def check_header(header: Header, limits: Limits) -> None:
    """Check names, caps and every entry.

    Raises:
        ArtifactError: naming the first entry that is off.
    """
    names = [*(entry.name for entry in header.tensors), *header.aliases]
    if len(names) > limits.max_tensors:
        raise ArtifactError(f"{len(names)} tensors, at most {limits.max_tensors}")
    if odd := find_odd_name(names):
        raise ArtifactError(f"tensor name {odd!r} is used twice or not printable")
    if missing := set(header.aliases.values()) - {entry.name for entry in header.tensors}:
        raise ArtifactError(f"alias of {min(missing)!r}, which is not stored")
    if odd_parts := {entry.part for entry in header.tensors} & {*RESERVED_PARTS, *header.blobs}:
        raise ArtifactError(f"part '{min(odd_parts)}' has a reserved name")
    total = sum(entry.num_numbers for entry in header.tensors) * FLOAT_BYTES
    if total > limits.max_float32_bytes:
        raise ArtifactError(f"declares {total} bytes of float32, at most {limits.max_float32_bytes}")
    for entry in header.tensors:
        try:
            _check_entry(entry, limits)
        except (ArtifactError, UsageError) as error:
            raise ArtifactError(f"{entry.name}: {error}") from error
    for name, blob in header.blobs.items():
        _check_blob(name, blob, limits)


def _check_blob(name: str, blob: BlobEntry, limits: Limits) -> None:
    if blob.num_bytes > min(limits.max_blob_bytes, blob.payload_bytes * MAX_BYTES_PER_BYTE):
        raise ArtifactError(f"blob {name}: {blob.payload_bytes} bytes cannot hold {blob.num_bytes}")
    if blob.coder not in COMPRESSORS or blob.payload_bytes > blob.num_bytes:
        raise ArtifactError(f"blob {name}: impossible coder '{blob.coder}' or length {blob.payload_bytes}")


def find_odd_name(names: Iterable[str]) -> str | None:
    """Return the first name that is empty, not printable or seen before."""
    seen: set[str] = set()
    for name in names:
        if not name or not name.isprintable() or name in seen:
            return name
        seen.add(name)
    return None


def _check_entry(entry: TensorEntry, limits: Limits) -> None:
    if entry.num_numbers * FLOAT_BYTES > limits.max_tensor_bytes:
        raise ArtifactError(f"declares {entry.num_numbers} numbers, at most {limits.max_tensor_bytes // FLOAT_BYTES}")
    if max(entry.shape, default=0) >= 1 << 31:
        raise ArtifactError(f"declares the shape {entry.shape}")
    scheme = parse_scheme(entry.scheme)
    kind = f"f{scheme.bits // 8}" if scheme.kind == "float" else "i"
    if not entry.dtype.startswith(kind):
        raise ArtifactError(f"scheme {entry.scheme} stored as {entry.dtype}")
    check_plausible(entry.coder, entry.payload_bytes, entry.dtype, entry.num_numbers)
    if (entry.scale is not None) != scheme.has_scale:
        raise ArtifactError(f"scheme {entry.scheme} with{'out' if entry.scale is None else ''} scales")
    if entry.scale is not None:
        rows = num_rows(entry.shape)
        expected = rows if scheme.group == "row" else min(rows, 1)
        if entry.scale.num_scales != expected or entry.scale.dtype not in ("f2", "f4"):
            raise ArtifactError(f"{entry.scale.num_scales} scales of {entry.scale.dtype}, expected {expected}")
        check_plausible(entry.scale.coder, entry.scale.payload_bytes, entry.scale.dtype, expected)
