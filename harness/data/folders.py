"""Where data lies on this machine: local copies, the cache, and writes that are whole or absent."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from platformdirs import user_cache_path

from harness.errors import RunError
from harness.files import write_atomic


def cache_folder() -> Path:
    """Name the folder for everything that can be made or fetched again."""
    return user_cache_path("claims-harness", appauthor=False)


def data_folders(data_dir: Path | None) -> tuple[Path, ...]:
    """List where local copies are looked for and downloads are kept, first choice first.

    Args:
        data_dir: the folder of `--data-dir`, if given.

    Returns:
        `data_dir`, then the folder named by HARNESS_DATA_DIR, then the user's cache.
    """
    named = [data_dir] if data_dir is not None else []
    if text := os.environ.get("HARNESS_DATA_DIR"):
        named.append(Path(text))
    return (*(folder.expanduser() for folder in named), cache_folder() / "downloads")


def _files_in(folders: Sequence[Path], subfolder: str) -> Iterator[Path]:
    for folder in folders:
        for place in (folder, folder / subfolder):
            with contextlib.suppress(OSError):
                yield from sorted(path for path in place.iterdir() if path.is_file())


def find_by_hash(folders: Sequence[Path], subfolder: str, num_bytes: int, sha256: str) -> Path | None:
    """Find a file by what it holds, whatever its name, in the folders and in `subfolder` of each.

    Args:
        folders: where to look, in order.
        subfolder: name of a folder inside each that is searched as well.
        num_bytes: size of the file.
        sha256: hash of the file, hexadecimal.
    """
    for path in _files_in(folders, subfolder):
        with contextlib.suppress(OSError):
            if path.stat().st_size == num_bytes and sha256_of_file(path) == sha256:
                return path
    return None


def sha256_of_file(path: Path) -> str:
    """Hash a file without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep_download(folders: Sequence[Path], name: str, data: bytes) -> Path | None:
    """Keep a download in the first of the folders that can be written; None where none can."""
    for folder in folders:
        with contextlib.suppress(OSError, RunError):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / name, data)
            return folder / name
    return None
