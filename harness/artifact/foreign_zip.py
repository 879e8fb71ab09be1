"""Listing zip files: .npz archives, PyTorch files, and any other, without inflating more than heads."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from harness.artifact.foreign_flat import MAX_NPY_HEADER, read_npy_head
from harness.artifact.foreign_torch import MAX_PICKLE_BYTES, Storage, find_tensors, read_pickle
from harness.artifact.inspection import Inspection, TensorRow, escape, split_bytes
from harness.errors import ArtifactError

# The list of members of a zip file, which the standard library reads whole; 16 MiB are 200,000 members.
MAX_DIRECTORY_BYTES = 16 << 20
# A member that is this many times smaller than what it declares is a bomb or empty.
SUSPICIOUS_RATIO = 1000
_END_BYTES = 22 + 65_535
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def _check_directory(stream: BinaryIO, file_bytes: int) -> None:
    """Refuse a member list beyond its cap, before the standard library reads it."""
    stream.seek(max(0, file_bytes - _END_BYTES))
    tail = stream.read(_END_BYTES)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise ArtifactError("zip file without its list of members: truncated")
    directory_bytes = int.from_bytes(tail[at + 12 : at + 16], "little")
    if directory_bytes == 0xFFFFFFFF:
        long_at = tail.rfind(b"PK\x06\x06", 0, at)
        if long_at < 0:
            raise ArtifactError("zip64 file without its list of members: truncated")
        directory_bytes = int.from_bytes(tail[long_at + 40 : long_at + 48], "little")
    if directory_bytes > min(MAX_DIRECTORY_BYTES, file_bytes):
        raise ArtifactError(f"zip file with a member list of {directory_bytes} bytes")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, num_bytes: int) -> bytes:
    """Inflate at most `num_bytes` of a member."""
    if member.flag_bits & 1:
        raise ArtifactError(f"{escape(member.filename)} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArtifactError(f"{escape(member.filename)} is compressed by method {member.compress_type}")
    with archive.open(member) as stream:
        return stream.read(num_bytes)


def inspect_zip(stream: BinaryIO, file_bytes: int) -> Inspection:
    """List a zip file: as arrays, as a PyTorch file, or as members."""
    _check_directory(stream, file_bytes)
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        notes = list(_suspicions(members, file_bytes))
        names = [member.filename for member in members]
        if names and all(name.endswith(".npy") for name in names):
            return _inspect_npz(archive, members, file_bytes, notes)
        pickles = [member for member in members if member.filename.rpartition("/")[2] == "data.pkl"]
        if len(pickles) == 1:
            return _inspect_torch(archive, pickles[0], file_bytes, notes)
        return _inspect_members(members, file_bytes, notes)


def _suspicions(members: list[zipfile.ZipInfo], file_bytes: int) -> Iterator[str]:
    for member in members:
        if member.file_size > SUSPICIOUS_RATIO * max(member.compress_size, 1):
            shown = escape(member.filename)
            yield f"{shown}: {member.compress_size} bytes declare {member.file_size}; not inflated"
    if sum(member.compress_size for member in members) > file_bytes:
        yield "members overlap: together they are larger than the file"
    if len({member.filename for member in members}) != len(members):
        yield "two members share a name"


def _inspect_members(members: list[zipfile.ZipInfo], file_bytes: int, notes: list[str]) -> Inspection:
    rows = tuple(
        TensorRow(
            name=escape(member.filename),
            shape=(),
            dtype="file",
            stored_bytes=member.compress_size,
            num_numbers=0,
            num_stored=0,
        )
        for member in members
    )
    return Inspection(
        format="zip",
        file_bytes=file_bytes,
        rows=rows,
        bytes_by_part=split_bytes(rows, file_bytes, "members"),
        notes=(*notes, "a zip file without arrays that this program knows"),
    )


def _inspect_npz(
    archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], file_bytes: int, notes: list[str]
) -> Inspection:
    rows = []
    for member in members:
        head = io.BytesIO(_read_member(archive, member, MAX_NPY_HEADER + 16))
        row, head_bytes = read_npy_head(head, member.filename.removesuffix(".npy"))
        if row.dtype == "object":
            notes.append(f"{row.name}: an array of Python objects is a pickle and is never loaded")
        elif row.stored_bytes + head_bytes != member.file_size:
            notes.append(
                f"{row.name}: head and array need {row.stored_bytes + head_bytes} bytes, not {member.file_size}"
            )
        rows.append(_with_bytes(row, member.compress_size))
    return Inspection(
        format="npz",
        file_bytes=file_bytes,
        rows=tuple(rows),
        bytes_by_part=split_bytes(tuple(rows), file_bytes),
        num_params_effective=sum(row.num_numbers for row in rows),
        notes=tuple(notes),
    )


def _with_bytes(row: TensorRow, stored_bytes: int) -> TensorRow:
    return TensorRow(
        name=row.name,
        shape=row.shape,
        dtype=row.dtype,
        stored_bytes=stored_bytes,
        num_numbers=row.num_numbers,
        num_stored=row.num_stored,
    )


def _inspect_torch(archive: zipfile.ZipFile, pickled: zipfile.ZipInfo, file_bytes: int, notes: list[str]) -> Inspection:
    data = _read_member(archive, pickled, MAX_PICKLE_BYTES + 1)
    if len(data) > MAX_PICKLE_BYTES:
        raise ArtifactError(f"{escape(pickled.filename)} has more than {MAX_PICKLE_BYTES} bytes")
    prefix = pickled.filename.removesuffix("data.pkl") + "data/"
    members = {info.filename.removeprefix(prefix): info for info in archive.infolist() if prefix in info.filename}

    def stored_bytes(storage: Storage) -> int:
        member = members.get(storage.key)
        if member is None:
            notes.append(f"storage {escape(storage.key)} is missing from the file")
            return 0
        if member.file_size != storage.num_items * storage.item_bytes:
            notes.append(f"storage {escape(storage.key)} has {member.file_size} bytes for {storage.num_items} items")
        return member.compress_size

    rows = tuple(find_tensors(read_pickle(io.BytesIO(data)), stored_bytes))
    return torch_inspection("PyTorch zip", rows, file_bytes, notes)


def torch_inspection(label: str, rows: tuple[TensorRow, ...], file_bytes: int, notes: list[str]) -> Inspection:
    """Describe the tensors found in a PyTorch file."""
    shared = {row.tied_to for row in rows if row.tied_to}
    effective = sum(row.num_numbers for row in rows if not row.tied_to)
    if any(row.num_stored != row.num_numbers for row in rows if not row.tied_to and row.name not in shared):
        notes.append("some tensors are views of larger storages; the whole storage is counted as stored")
    return Inspection(
        format=label,
        file_bytes=file_bytes,
        rows=rows,
        bytes_by_part=split_bytes(rows, file_bytes),
        num_params_effective=effective,
        notes=(*notes, "read without unpickling"),
    )


def inspect_legacy_torch(stream: BinaryIO, file_bytes: int) -> Inspection:
    """List the tensors of a PyTorch file from before version 1.6: five pickles, then the storages."""
    head = io.BytesIO(stream.read(min(file_bytes, MAX_PICKLE_BYTES)))
    magic = read_pickle(head)
    if magic != _LEGACY_MAGIC:
        note = "a Python pickle, not a PyTorch file; pickles are never loaded"
        return Inspection(format="pickle", file_bytes=file_bytes, bytes_by_part={"all": file_bytes}, notes=(note,))
    read_pickle(head)
    read_pickle(head)
    root = read_pickle(head)
    rows = tuple(find_tensors(root, lambda storage: storage.num_items * storage.item_bytes))
    return torch_inspection("PyTorch (legacy)", rows, file_bytes, [])
