"""Record folders of a comparison below a URL that every machine reaches, through fsspec: a disk, S3 and the like.

A folder lies there under the name that it has below the folder of the comparison. `record.json` is sent last, so what
it says of the other files is true; a file replaces the one before it whole. A checkpoint points into the log, which
only grows, and is sent after it: whatever an upload was cut off by, what lies there can be gone on with.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.cell_process import last_step
from harness.errors import RecordError, RunError, UsageError
from harness.grid import GRID_FILE, Cell, Grid
from harness.records.logs import LOG_FILE
from harness.records.native import (
    ARTIFACT_FILE,
    CHECKPOINT_FILE,
    CONFIG_FILE,
    RECORD_FILE,
    read_record,
    seal_files,
)
from harness.records.scores import SCORES_FILE

# In the order they are sent.
_FILES = (LOG_FILE, CONFIG_FILE, CHECKPOINT_FILE, ARTIFACT_FILE, SCORES_FILE, RECORD_FILE)


class Storage:
    """What lies below one URL.

    Args:
        url: file:///shared/folder, s3://bucket/folder, or any other that an installed fsspec backend takes.

    Attributes:
        url: the same, absolute.

    Raises:
        UsageError: no backend takes the URL.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        try:
            fs, self._root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"--storage {url}: {_first_line(error)}; give a folder of a shared disk (file:///...) or install the "
                "fsspec backend of the protocol"
            ) from error
        self._fs: Any = fs
        self.url = str(fs.unstrip_protocol(self._root))

    def open_grid(self, grid: Grid) -> None:
        """Write the grid there, or find the same one.

        Raises:
            UsageError: another comparison is stored there, or the place cannot be written.
        """
        path, content = f"{self._root}/{GRID_FILE}", grid.model_dump_json(by_alias=True).encode()
        with self._said_as_one_line(UsageError):
            if not self._fs.exists(path):
                self._fs.makedirs(self._root, exist_ok=True)
                self._fs.pipe_file(path, content)
            found = self._fs.cat_file(path)
        if found != content:
            raise UsageError(f"--storage {self.url} holds the cells of another comparison; choose another place")

    def has(self, name: str) -> bool:
        """Whether a record lies there, complete or not."""
        with self._said_as_one_line(RunError):
            return bool(self._fs.exists(f"{self._root}/{name}/{RECORD_FILE}"))

    def store(self, name: str, folder: Path) -> None:
        """Send a record folder, also one that is being written.

        Raises:
            RunError: the storage does not take it.
        """
        there = f"{self._root}/{name}"
        with self._said_as_one_line(RunError), tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            # The run replaces its checkpoint at any time: a second name keeps one that the log, sent first, covers.
            paths = {file: folder / file for file in _FILES} | {CHECKPOINT_FILE: Path(scratch, CHECKPOINT_FILE)}
            with suppress(FileNotFoundError):
                os.link(folder / CHECKPOINT_FILE, paths[CHECKPOINT_FILE])
            self._fs.makedirs(there, exist_ok=True)
            for file, path in paths.items():
                if path.exists():
                    self._fs.put_file(str(path), f"{there}/{file}.part")
                    self._fs.mv(f"{there}/{file}.part", f"{there}/{file}")
            if not paths[CHECKPOINT_FILE].exists() and self._fs.exists(f"{there}/{CHECKPOINT_FILE}"):
                self._fs.rm_file(f"{there}/{CHECKPOINT_FILE}")  # the run is over

    def fetch(self, name: str, folder: Path) -> None:
        """Bring a record into a folder that does not exist yet.

        Raises:
            RunError: the storage does not give it.
            RecordError: it says to be complete, and its files are not those of its `record.json`.
        """
        there = f"{self._root}/{name}"
        folder.mkdir(parents=True)
        with self._said_as_one_line(RunError):
            for file in _FILES:
                if self._fs.exists(f"{there}/{file}"):
                    self._fs.get_file(f"{there}/{file}", str(folder / file))
        record = read_record(folder)
        if record.status != "complete":
            return
        (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
        if seal_files(folder) != record.files:
            raise RecordError(
                f"{self.url}/{name}: the files are not those of its {RECORD_FILE}; remove the folder to run it again"
            )

    def level(self, cells: Iterable[Cell], root: Path) -> None:
        """Have each unfinished cell in the folder and in the storage as far as it got in either.

        Args:
            cells: of the comparison.
            root: its folder.
        """
        for cell in cells:
            if not cell.is_complete:
                self._level(cell.folder.relative_to(root).as_posix(), cell)

    def _level(self, name: str, cell: Cell) -> None:
        if self.has(name):
            cell.folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cell.folder.parent, prefix=".fetched-") as scratch:
                fetched = Path(scratch, cell.folder.name)
                self.fetch(name, fetched)
                is_further = not cell.has_record or last_step(fetched) > last_step(cell.folder)
                if is_further or read_record(fetched).status == "complete":
                    shutil.rmtree(cell.folder, ignore_errors=True)
                    fetched.rename(cell.folder)
                    return
        if cell.has_record:
            self.store(name, cell.folder)

    @contextmanager
    def _said_as_one_line(self, kind: type[UsageError] | type[RunError]) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every backend raises what its library does
            raise kind(f"{self.url}: {_first_line(error)}; make the place readable and writable, then go on") from error


def _first_line(error: BaseException) -> str:
    said = str(error).strip().partition("\n")[0]
    return f"{said[:200] or type(error).__name__}"
