"""Record folders of this program: writing them whole or not at all, finding them, reading them back."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import RecordError
from harness.files import write_atomic
from harness.records.logs import LOG_FILE
from harness.records.safeio import JSON, hash_file, read_bounded, read_json
from harness.records.schema import FilePart, Record
from harness.records.scores import SCORES_FILE
from harness.records.versions import parse_record

RECORD_FILE = "record.json"
ARTIFACT_FILE = "artifact.bin"
CONFIG_FILE = "config.toml"
CHECKPOINT_FILE = "checkpoint.pt"
EVIDENCE_FILES = (ARTIFACT_FILE, SCORES_FILE, LOG_FILE, CONFIG_FILE)

MAX_CONFIG_BYTES = 2**20
MAX_TREE_ENTRIES = 200_000
MAX_TREE_DEPTH = 32


def write_record(folder: Path, record: Record) -> None:
    """Write `record.json` atomically, with sorted keys: the same record gives the same bytes."""
    text = json.dumps(record.to_json(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomic(folder / RECORD_FILE, f"{text}\n".encode())


def read_record(folder: Path) -> Record:
    """Read the `record.json` of a record folder.

    Raises:
        RecordError: missing, not JSON, not a record or of an unknown version; names folder and field.
    """
    try:
        value, _ = read_json(folder, RECORD_FILE)
        return parse_record(value)[0]
    except RecordError as error:
        raise RecordError(f"{folder}: {error}") from error


def seal_files(folder: Path) -> dict[str, FilePart]:
    """Measure size and sha256 of the evidence files that the folder holds, for `Record.files`."""
    files: dict[str, FilePart] = {}
    for name in EVIDENCE_FILES:
        if (folder / name).exists():
            size_bytes, sha256 = hash_file(folder, name)
            files[name] = FilePart(bytes=size_bytes, sha256=sha256)
    return files


def read_config(folder: Path) -> dict[str, JSON]:
    """Read the `config.toml` of a record folder.

    Raises:
        RecordError: missing, too large, or not TOML.
    """
    raw = read_bounded(folder, CONFIG_FILE, MAX_CONFIG_BYTES)
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise RecordError(f"{CONFIG_FILE} is not TOML ({error!s:.80})") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordTree:
    """The record folders under a path.

    Attributes:
        folders: in sorted order.
        is_complete: False where the tree was too large to be walked to its end.
    """

    folders: tuple[Path, ...]
    is_complete: bool


def scan_records(path: Path, *, max_entries: int = MAX_TREE_ENTRIES) -> RecordTree:
    """Find the record folders at or below a path; links are not followed and hidden folders are not entered.

    Args:
        path: a record folder, its `record.json`, or a folder that holds some at any depth.
        max_entries: directory entries looked at before giving up.
    """
    if path.is_file():
        return RecordTree(folders=(path.parent,) if path.name == RECORD_FILE else (), is_complete=True)
    folders: list[Path] = []
    pending, seen = [(path, 0)], 0
    while pending and seen <= max_entries:
        folder, depth = pending.pop()
        for entry in _entries(folder):
            seen += 1
            if entry.name == RECORD_FILE:
                folders.append(folder)
            if seen > max_entries or (depth >= MAX_TREE_DEPTH and entry.is_dir(follow_symlinks=False)):
                seen = max_entries + 1
                break
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                pending.append((folder / entry.name, depth + 1))
    return RecordTree(folders=tuple(sorted(folders)), is_complete=seen <= max_entries)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return


def find_records(path: Path) -> list[Path]:
    """Return the record folders at or below a path, sorted; see `scan_records`."""
    return list(scan_records(path).folders)
