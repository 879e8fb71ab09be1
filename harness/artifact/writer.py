"""Writing an artifact: quantise, encode, describe, and put the whole file in place at once."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from harness.artifact.byte_coders import COMPRESSORS
from harness.artifact.codec import code_of, encode_smallest
from harness.artifact.header import BlobEntry, Header, Limits, ScaleEntry, TensorEntry, check_header, pack_header
from harness.artifact.quantize import Quantised, quantise
from harness.errors import ArtifactError, UsageError
from harness.files import write_atomic


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlannedTensor:
    """A tensor as a method wants it stored.

    Attributes:
        name: unique, printable.
        value: numbers of any shape, taken as float32; or symbols and scales that a quantiser has chosen already.
        scheme: quantisation scheme, see `harness.artifact.schemes`.
        part: heading under which its bytes are counted, such as "embedding" or "blocks".
    """

    name: str
    value: NDArray[np.generic] | Quantised
    scheme: str
    part: str

    def quantise(self) -> Quantised:
        """Return what the file stores of the tensor.

        Raises:
            UsageError: unknown scheme, or one that the symbols were not chosen for.
            RunError: the tensor holds NaN or infinities, or numbers that the scheme cannot hold.
        """
        if not isinstance(self.value, Quantised):
            return quantise(self.value, self.scheme, name=self.name)
        if self.value.scheme != self.scheme:
            raise UsageError(f"{self.name}: symbols of {self.value.scheme} cannot be stored as {self.scheme}")
        return self.value


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactSummary:
    """What was written.

    Attributes:
        path: the file.
        artifact_bytes: its size.
        sha256: of the whole file.
        parts: bytes of each part, adding up to `artifact_bytes`.
        coders: coder of each tensor.
        aliases: tensors stored under another name.
        num_params_stored: unique coded numbers, scales included.
    """

    path: Path
    artifact_bytes: int
    sha256: str
    parts: Mapping[str, int]
    coders: Mapping[str, str]
    aliases: Mapping[str, str]
    num_params_stored: int


def _encode_tensor(tensor: PlannedTensor, quantised: Quantised) -> tuple[TensorEntry, bytes]:
    coder, payload = encode_smallest(quantised.symbols)
    scale, scale_payload = None, b""
    if quantised.scale is not None:
        scale_coder, scale_payload = encode_smallest(quantised.scale)
        scale = ScaleEntry(
            dtype=code_of(quantised.scale.dtype),
            coder=scale_coder,
            num_scales=quantised.scale.size,
            payload_bytes=len(scale_payload),
        )
    entry = TensorEntry(
        name=tensor.name,
        part=tensor.part,
        shape=quantised.shape,
        scheme=tensor.scheme,
        dtype=code_of(quantised.symbols.dtype),
        coder=coder,
        payload_bytes=len(payload),
        crc32=zlib.crc32(payload + scale_payload),
        scale=scale,
    )
    return entry, payload + scale_payload


def _identity(quantised: Quantised) -> tuple[object, ...]:
    """What two tensors must share to be stored once."""
    digest = hashlib.sha256(np.ascontiguousarray(quantised.symbols).tobytes())
    if quantised.scale is not None:
        digest.update(quantised.scale.tobytes())
    return quantised.scheme, quantised.shape, quantised.symbols.dtype.str, digest.digest()


def _encode_tensors(tensors: Sequence[PlannedTensor]) -> tuple[list[TensorEntry], dict[str, str], list[bytes]]:
    entries: list[TensorEntry] = []
    aliases: dict[str, str] = {}
    payloads: list[bytes] = []
    stored: dict[tuple[object, ...], str] = {}
    for tensor in tensors:
        quantised = tensor.quantise()
        first = stored.setdefault(_identity(quantised), tensor.name)
        if first != tensor.name:
            aliases[tensor.name] = first
            continue
        entry, payload = _encode_tensor(tensor, quantised)
        entries.append(entry)
        payloads.append(payload)
    return entries, aliases, payloads


def _encode_blob(data: bytes) -> tuple[BlobEntry, bytes]:
    tried = {name: compress(data) for name, compress in COMPRESSORS.items()}
    coder = min(tried, key=lambda name: len(tried[name]))
    payload = tried[coder]
    entry = BlobEntry(coder=coder, num_bytes=len(data), payload_bytes=len(payload), crc32=zlib.crc32(payload))
    return entry, payload


def write_artifact(
    path: Path, *, meta: Mapping[str, Any], tensors: Sequence[PlannedTensor], blobs: Mapping[str, bytes]
) -> ArtifactSummary:
    """Quantise, encode and write tensors, meta data and blobs to one file.

    Args:
        path: where; an existing file is replaced only by a complete one.
        meta: plain JSON.
        tensors: in the order in which they are decoded; tensors that come out identical are stored once.
        blobs: by name, such as "tokenizer".

    Raises:
        UsageError: an unknown scheme, a name used twice or not printable, meta data that is not JSON.
        RunError: NaN in a tensor, or the file cannot be written.
    """
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise UsageError("two planned tensors share a name; give tied tensors once")
    coded_blobs = {name: _encode_blob(blobs[name]) for name in sorted(blobs)}
    try:
        entries, aliases, payloads = _encode_tensors(tensors)
        header = _make_header(meta, entries, aliases, {name: blob for name, (blob, _) in coded_blobs.items()})
    except ValidationError as error:
        raise UsageError(_one_line(error)) from error
    preamble, stored_header = pack_header(header)
    parts = [preamble, stored_header, *(payload for _, payload in coded_blobs.values()), *payloads]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    parts.append(digest.digest())
    digest.update(parts[-1])
    write_atomic(path, *parts)
    return ArtifactSummary(
        path=path,
        artifact_bytes=sum(map(len, parts)),
        sha256=digest.hexdigest(),
        parts=header.bytes_by_part(len(stored_header)),
        coders={entry.name: entry.coder for entry in entries},
        aliases=aliases,
        num_params_stored=header.num_params_stored,
    )


def _make_header(
    meta: Mapping[str, Any], entries: Iterable[TensorEntry], aliases: dict[str, str], blobs: dict[str, BlobEntry]
) -> Header:
    header = Header(meta=dict(meta), tensors=tuple(entries), aliases=aliases, blobs=blobs)
    try:
        check_header(header, Limits())
    except ArtifactError as error:
        raise UsageError(f"this artifact could not be read again: {error}") from error
    return header


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"artifact: {place} {first['input']!r:.80}: {first['msg']}"
