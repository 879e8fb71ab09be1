"""Find record folders, native and foreign, at any depth: one bounded walk, no link followed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.records.folder import RecordFolder, list_folder
from harness.records.formats import RecordFormat, record_formats
from harness.records.native import RECORD_FILE

MAX_TREE_ENTRIES = 200_000
MAX_TREE_DEPTH = 32
_MAY_BE_LOG = re.compile(r"(?!readme|requirements|licen[cs]e).*\.(log|txt|out)", re.I)


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignFolder:
    """A foreign record: where it lies and the dialect that reads it."""

    folder: RecordFolder
    format: RecordFormat


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordTree:
    """The record folders under a path.

    Attributes:
        folders: native ones, in sorted order.
        foreign: foreign ones, in sorted order.
        is_complete: False where the tree was too large to be walked to its end.
    """

    folders: tuple[Path, ...]
    foreign: tuple[ForeignFolder, ...] = ()
    is_complete: bool


@dataclass(slots=True)
class _Walk:
    native: list[Path] = field(default_factory=list)
    candidates: list[tuple[Path, list[str]]] = field(default_factory=list)
    is_complete: bool = True


def scan_records(path: Path, *, max_entries: int = MAX_TREE_ENTRIES, with_foreign: bool = False) -> RecordTree:
    """Find the record folders at or below a path; hidden folders are not entered.

    Args:
        path: a record folder, a file of it, or a folder that holds records at any depth.
        max_entries: directory entries looked at before giving up.
        with_foreign: whether to look for foreign records, too.

    Raises:
        UsageError: an installed dialect cannot be loaded.
    """
    if path.is_file():
        if path.name == RECORD_FILE:
            return RecordTree(folders=(path.parent,), is_complete=True)
        if not with_foreign:
            return RecordTree(folders=(), is_complete=True)
        path = path.parent
    walk = _walk(path, max_entries)
    foreign = tuple(_choose(walk, record_formats())) if with_foreign else ()
    return RecordTree(folders=tuple(sorted(walk.native)), foreign=foreign, is_complete=walk.is_complete)


def find_records(path: Path) -> list[Path]:
    """Return the native record folders at or below a path, sorted; see `scan_records`."""
    return list(scan_records(path).folders)


def _walk(path: Path, max_entries: int) -> _Walk:
    walk = _Walk()
    pending, seen = [(path, 0)], 0
    while pending and walk.is_complete:
        folder, depth = pending.pop()
        names: list[str] = []
        for entry in _entries(folder):
            seen += 1
            is_folder = entry.is_dir(follow_symlinks=False)
            if seen > max_entries or (depth >= MAX_TREE_DEPTH and is_folder):
                walk.is_complete = False
                break
            if not is_folder:
                names.append(entry.name)
            elif not entry.name.startswith("."):
                pending.append((folder / entry.name, depth + 1))
        if RECORD_FILE in names:
            walk.native.append(folder)
        else:
            walk.candidates.append((folder, names))
    return walk


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return


def _choose(walk: _Walk, formats: Sequence[RecordFormat]) -> list[ForeignFolder]:
    """Choose the foreign records: those with a summary of their own, then other folders that hold no record."""
    chosen: dict[Path, ForeignFolder] = {}
    known = set(walk.native)
    holders = {parent for path in known for parent in path.parents}
    deepest_first = sorted(walk.candidates, key=lambda pair: (-len(pair[0].parts), pair[0]))
    # A folder of mere logs is a record only where no folder above it that has a README and logs is one.
    whole_first = sorted(deepest_first, key=lambda pair: not _is_whole(pair[1]))
    for is_sure, candidates in ((True, deepest_first), (False, whole_first)):
        for path, names in candidates:
            is_related = path in holders or not known.isdisjoint(path.parents)
            if path in known or (not is_sure and is_related):
                continue
            for record_format in formats:
                is_candidate = record_format.is_surely_record(names) if is_sure else record_format.may_be_record(names)
                if not is_candidate:
                    continue
                folder = list_folder(path, str(path), skip=known)
                if is_sure or record_format.is_record(folder):
                    chosen[path] = ForeignFolder(folder=folder, format=record_format)
                    known.add(path)
                    holders.update(path.parents)
                    break
    return [chosen[path] for path in sorted(chosen)]


def _is_whole(names: Sequence[str]) -> bool:
    has_readme = any(name.lower().startswith("readme") for name in names)
    return has_readme and any(_MAY_BE_LOG.fullmatch(name) for name in names)
