"""A stranger's folder: what files it holds, walked once, bounded, without following links out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from harness.errors import RecordError
from harness.records.safeio import open_regular
from harness.records.submission import FileEntry, Problem

MAX_FILES = 5000
MAX_DEPTH = 8
MAX_PROBLEMS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordFolder:
    """A folder that may be a record.

    Attributes:
        path: where it lies.
        name: its path as found.
        files: regular files in it and below, by their path inside it, sorted; links that leave it are problems.
        problems: what could not be looked at.
    """

    path: Path
    name: str
    files: Sequence[FileEntry]
    problems: Sequence[Problem] = ()

    def open(self, path: str) -> IO[bytes]:
        """Open one of the files; RecordError where it is gone, a link to elsewhere or unreadable."""
        inner, _, name = path.rpartition("/")
        return open_regular(self.path / inner if inner else self.path, name)

    def read(self, path: str, max_bytes: int) -> bytes:
        """Read a file whole; RecordError above `max_bytes` or where it cannot be read."""
        with self.open(path) as handle:
            size_bytes = os.fstat(handle.fileno()).st_size
            if size_bytes > max_bytes:
                raise RecordError(f"{path} has {size_bytes:,} bytes, more than the {max_bytes:,} that are read")
            try:
                return handle.read(max_bytes + 1)
            except OSError as error:
                raise RecordError(f"{path} cannot be read: {error.strerror}") from error

    def tail(self, path: str, num_bytes: int) -> bytes:
        """Read the last bytes of a file; empty where it cannot be read."""
        try:
            with self.open(path) as handle:
                size_bytes = os.fstat(handle.fileno()).st_size
                handle.seek(max(0, size_bytes - num_bytes))
                return handle.read(num_bytes)
        except (OSError, RecordError):
            return b""

    def names(self) -> list[str]:
        """Names of the files of the folder itself, without those of folders in it."""
        return [entry.path for entry in self.files if "/" not in entry.path]


def list_folder(path: Path, name: str, *, skip: Set[Path] = frozenset()) -> RecordFolder:
    """List the files of a folder and the folders in it.

    Args:
        path: the folder.
        name: its path as found, for findings.
        skip: folders below it that are records of their own.
    """
    files: list[FileEntry] = []
    problems: list[Problem] = []
    for inner, entry in _walk(path, skip, problems):
        if len(files) > MAX_FILES or len(problems) > MAX_PROBLEMS:
            break
        try:
            if entry.is_symlink() and not (path / inner).resolve().is_relative_to(path.resolve()):
                problems.append(Problem(path=inner, message="a link that leaves the folder; it was not followed"))
                continue
            status = entry.stat()
        except (OSError, RuntimeError, ValueError) as error:
            problems.append(
                Problem(path=inner, message=f"cannot be looked at: {getattr(error, 'strerror', None) or error}")
            )
            continue
        if stat.S_ISREG(status.st_mode):
            files.append(FileEntry(path=inner, num_bytes=status.st_size))
        elif not stat.S_ISDIR(status.st_mode):
            problems.append(Problem(path=inner, message="not a regular file; it was not opened"))
    if len(files) > MAX_FILES or len(problems) > MAX_PROBLEMS:
        message = f"the folder has more than the {MAX_FILES:,} files, or {MAX_PROBLEMS} odd ones, that are looked at"
        problems = [*problems[:MAX_PROBLEMS], Problem(path="", message=message)]
    files = files[:MAX_FILES]
    return RecordFolder(path=path, name=name, files=sorted(files, key=lambda entry: entry.path), problems=problems)


def _walk(path: Path, skip: Set[Path], problems: list[Problem]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    pending = [(path, "", 0)]
    while pending and len(problems) <= MAX_PROBLEMS:
        folder, prefix, depth = pending.pop()
        for entry in _entries(folder, prefix, problems):
            if entry.is_dir(follow_symlinks=False):
                inner = folder / entry.name
                if entry.name.startswith(".") or entry.name == "__pycache__" or inner in skip:
                    continue
                if depth < MAX_DEPTH:
                    pending.append((inner, f"{prefix}{entry.name}/", depth + 1))
                else:
                    problems.append(
                        Problem(path=f"{prefix}{entry.name}", message="lies too deep; it was not looked at")
                    )
            else:
                yield f"{prefix}{entry.name}", entry


def _entries(folder: Path, prefix: str, problems: list[Problem]) -> list[os.DirEntry[str]]:
    """Return the entries of a folder by name; of a huge one only as many as may be files that are looked at."""
    try:
        with os.scandir(folder) as scan:
            entries = sorted(islice(scan, 2 * MAX_FILES), key=lambda entry: entry.name)
            is_complete = next(scan, None) is None
    except OSError as error:
        problems.append(Problem(path=prefix.rstrip("/"), message=f"cannot be listed: {error.strerror}"))
        return []
    if not is_complete:
        problems.append(
            Problem(path=prefix.rstrip("/"), message=f"more than {2 * MAX_FILES:,} entries; the rest was not looked at")
        )
    return entries
