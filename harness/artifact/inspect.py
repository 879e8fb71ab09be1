"""What is inside a model file: our artifacts and strangers' formats, from headers alone.

Nothing is executed or unpickled, nothing is inflated without a cap, and a hostile file ends in one ArtifactError.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from harness.artifact.container import Artifact
from harness.artifact.foreign_flat import inspect_gguf, inspect_npy, inspect_safetensors
from harness.artifact.foreign_packed import MAX_INFLATED_BYTES, inflate, packed_format
from harness.artifact.foreign_zip import inspect_legacy_torch, inspect_zip
from harness.artifact.header import MAGIC, TensorEntry
from harness.artifact.inspection import Inspection, TensorRow, escape
from harness.errors import ArtifactError

__all__ = ["Inspection", "TensorRow", "inspect_file"]

# What json, ast, numpy, zipfile and pickletools raise on input that is not what it says it is.
_MALFORMED: tuple[type[Exception], ...] = (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    OverflowError,
    SyntaxError,
)
_MALFORMED += (RecursionError, NotImplementedError, MemoryError)
Reader = Callable[[BinaryIO, int], Inspection]
_HEAD_BYTES = 16
MAX_NOTES = 50
UNKNOWN = "unknown"


def inspect_file(path: Path) -> Inspection:
    """List what a model file stores: bytes, tensors, number types, parameters, ties.

    Args:
        path: one of our artifacts, .safetensors, GGUF, .npy, .npz, PyTorch (zip or legacy), any zip, or one of these
            compressed by zlib, gzip, xz, bzip2 or zstd.

    Returns:
        The inspection; a file of no known format gets a note that says so.

    Raises:
        ArtifactError: unreadable, truncated or damaged.
    """
    with _one_error(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError("not a file")
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
            if head.startswith(MAGIC):
                return _inspect_artifact(path)
            stream.seek(0)
            found = _inspect_stream(stream, status.st_size, head, may_be_packed=True)
            if found.format == UNKNOWN and path.suffix == ".safetensors":  # it has no magic number: ask why it is none
                stream.seek(0)
                found = inspect_safetensors(stream, status.st_size)
    more = len(found.notes) - MAX_NOTES
    return found if more <= 0 else replace(found, notes=(*found.notes[:MAX_NOTES], f"and {more} more"))


@contextmanager
def _one_error(path: Path) -> Iterator[None]:
    """Turn whatever a malformed file provokes in the readers into one ArtifactError that names the file."""
    try:
        yield
    except ArtifactError as error:
        message = str(error)
        raise ArtifactError(message if message.startswith(str(path)) else f"{path}: {message}") from error
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file") from error
    except (OSError, EOFError, struct.error, zlib.error, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path}: cannot be read: {escape(str(error))}") from error
    except _MALFORMED as error:
        raise ArtifactError(f"{path}: damaged: {escape(str(error))}") from error


def _reader_of(head: bytes, file_bytes: int) -> Reader | None:
    if head.startswith(b"GGUF"):
        return inspect_gguf
    if head.startswith(b"\x93NUMPY"):
        return inspect_npy
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return inspect_zip
    if head.startswith(b"\x80") and len(head) > 1 and head[1] <= 5:
        return inspect_legacy_torch
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= file_bytes - 8:
        return inspect_safetensors
    return None


def _inspect_stream(stream: BinaryIO, file_bytes: int, head: bytes, *, may_be_packed: bool) -> Inspection:
    if (reader := _reader_of(head, file_bytes)) is not None:
        return reader(stream, file_bytes)
    kind = packed_format(head) if may_be_packed else None
    if kind is not None:
        return _inspect_packed(kind, stream, file_bytes)
    note = f"no format that this program knows; the first bytes are {head[:8].hex(' ') or 'none'}"
    return Inspection(format=UNKNOWN, file_bytes=file_bytes, bytes_by_part={"all": file_bytes}, notes=(note,))


def _inspect_packed(kind: str, stream: BinaryIO, file_bytes: int) -> Inspection:
    parts = {f"{kind} stream": file_bytes}
    spool, inflated_bytes = inflate(kind, stream, file_bytes)
    if spool is None:
        note = f"inflates to more than {inflated_bytes} bytes (cap {MAX_INFLATED_BYTES}); not looked into"
        return Inspection(format=kind, file_bytes=file_bytes, bytes_by_part=parts, notes=(note,))
    with spool:
        head = spool.read(_HEAD_BYTES)
        spool.seek(0)
        inner = _inspect_stream(cast(BinaryIO, spool), inflated_bytes, head, may_be_packed=False)
    note = f"inflates to {inflated_bytes} bytes; the bytes of tensors are those before {kind}"
    label = f"{kind} of {inner.format}"
    return replace(inner, format=label, file_bytes=file_bytes, bytes_by_part=parts, notes=(note, *inner.notes))


def _artifact_row(entry: TensorEntry) -> TensorRow:
    scales = entry.scale.num_scales if entry.scale is not None else 0
    counted = 0 if entry.scheme == "integers" else entry.num_numbers + scales
    return TensorRow(
        name=escape(entry.name),
        shape=entry.shape,
        dtype=f"{entry.scheme} ({entry.coder})",
        stored_bytes=entry.stored_bytes,
        num_numbers=entry.num_numbers,
        num_stored=counted,
    )


def _inspect_artifact(path: Path) -> Inspection:
    artifact = Artifact.open(path)
    rows = [_artifact_row(entry) for entry in artifact.entries]
    by_name = {entry.name: row for entry, row in zip(artifact.entries, rows, strict=True)}
    for alias, name in artifact.aliases.items():
        row = replace(by_name[name], name=escape(alias), stored_bytes=0, num_stored=0, tied_to=by_name[name].name)
        rows.append(row)
    notes = [f"sha256 {artifact.sha256}"]
    if "method" in artifact.meta:
        notes.append(f"method {escape(str(artifact.meta['method']))}")
    notes.append("effective parameters are known to the method; see the record")
    return Inspection(
        format="claims-harness artifact",
        file_bytes=artifact.artifact_bytes,
        rows=tuple(rows),
        bytes_by_part=artifact.bytes_by_part(),
        notes=tuple(notes),
    )
