"""One cell as a task of Ray, run on whatever node has room for it; imported there by Ray.

The task is a generator: it says when the cell begins, then how it ended. The cell itself is a child process, which
stops, leaving a record that can be resumed, when the worker of Ray that runs the task is gone.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.cell_process import cell_command, clear_folder, start_child
from harness.errors import HarnessError, RunError, UsageError
from harness.grid import GRID_FILE, Cell, Grid
from harness.record_lock import hold_folder
from harness.records.native import CHECKPOINT_FILE
from harness.storage import Storage

STORE_SECONDS = 60.0  # a checkpoint is sent at most this long after it was written
_POLL_SECONDS = 0.2
_STORE_PAUSES_SECONDS = (2, 10, 30)
# The child of a worker that was killed ends after the step in hand.
_LOCK_SECONDS = 600.0
_MAX_SAID_BYTES = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a task needs to know; it crosses machines.

    Attributes:
        grid: the cell is of.
        cell: with its folder as the driver knows it, absolute.
        name: of its folder below that of the comparison.
        device: as `harness run --device` takes it.
        data_dir: folder of local corpora.
        num_threads: compute threads.
        cwd: folder that relative paths in the grid are of, where the node has it.
        storage_url: where records are kept; None if nodes share the folder of the comparison.
    """

    grid: Grid
    cell: Cell
    name: str
    device: str
    data_dir: Path | None
    num_threads: int
    cwd: Path
    storage_url: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a cell's process ended, and the end of what it said."""

    exit_code: int
    said: str = ""


def run_cell(order: Order) -> Iterator[Ended | None]:
    """Run a cell: None when it begins, then how it ended."""
    # Ray cancels by SIGINT, which is ignored, and inherited so, where the grid was started in the background.
    with suppress(ValueError):  # outside of the main thread
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield None
    try:
        yield _run(order)
    except HarnessError as error:
        yield Ended(exit_code=error.exit_code, said=f"error: {error}")


def _run(order: Order) -> Ended:
    with TemporaryDirectory(prefix="harness-cell-") as text:
        scratch = Path(text)
        if order.storage_url is None:
            _check_shared(order)
            _wait_for_lock(order.cell.folder)
            return _run_child(order, order.cell, scratch, None)
        storage = Storage(order.storage_url)
        cell = replace(order.cell, folder=scratch / order.name)
        if storage.has(order.name):
            storage.fetch(order.name, cell.folder)
        return _run_child(order, cell, scratch, storage)


def _check_shared(order: Order) -> None:
    folder = Path(str(order.cell.folder).removesuffix(order.name))
    if not (folder / GRID_FILE).exists():
        raise UsageError(
            f"node {socket.gethostname()} sees no {folder}; give --out on a disk that all nodes share, or --storage URL"
        )


def _wait_for_lock(folder: Path) -> None:
    """Wait for the child of a worker that was killed; one that takes longer is named by `harness run`."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while folder.is_dir() and time.monotonic() < deadline:
        try:
            with hold_folder(folder):
                return
        except UsageError:
            time.sleep(_POLL_SECONDS)


def _run_child(order: Order, cell: Cell, scratch: Path, storage: Storage | None) -> Ended:
    clear_folder(cell)
    command = cell_command(order.grid, cell, device=order.device, data_dir=order.data_dir)
    cwd = order.cwd if order.cwd.is_dir() else scratch
    with (
        (scratch / "said").open("w+", encoding="utf-8", errors="replace") as said,
        start_child(command, said, num_threads=order.num_threads, cwd=cwd) as child,
    ):
        try:
            _wait_and_store(child, order.name, cell, storage)
        finally:  # also when the task is cancelled, which raises KeyboardInterrupt here
            child.terminate()
            child.wait()
            if storage is not None and cell.has_record:
                _store_at_last(storage, order.name, cell.folder)
        said.seek(0)
        return Ended(exit_code=child.returncode, said=said.read()[-_MAX_SAID_BYTES:])


def _wait_and_store(child: subprocess.Popen[str], name: str, cell: Cell, storage: Storage | None) -> None:
    """Wait for the child in short naps, so that a cancellation is heard, and send each new checkpoint."""
    stored, due = 0, time.monotonic() + STORE_SECONDS
    while child.poll() is None:
        time.sleep(_POLL_SECONDS)
        if storage is None or time.monotonic() < due:
            continue
        due = time.monotonic() + STORE_SECONDS
        written = _written_ns(cell.folder / CHECKPOINT_FILE)
        if written > stored:
            with suppress(RunError):  # tried again with the next one; the last one counts
                storage.store(name, cell.folder)
            stored = written


def _store_at_last(storage: Storage, name: str, folder: Path) -> None:
    """Send what a run ended with; this copy is the only one, so a storage that is away for a moment is asked again."""
    for pause in _STORE_PAUSES_SECONDS:
        try:
            return storage.store(name, folder)
        except RunError:
            time.sleep(pause)
    return storage.store(name, folder)


def _written_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
