"""Where the cells of a grid run: what every engine does, and the one with processes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from harness.cell_process import Outcome, cell_command, clear_folder, make_outcome, said_path, start_child
from harness.grid import Cell, Grid


class Watcher(Protocol):
    """Told what happens to cells; called from several threads."""

    def began(self, cell: Cell) -> None:
        """Hear that a cell's process started."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """Hear that it is over."""
        ...


class Engine(Protocol):
    """Runs cells somewhere and leaves their record folders in the folder of the comparison."""

    def run(self, cells: Sequence[Cell], watcher: Watcher) -> list[Outcome]:
        """Run cells to their ends and return the outcomes; a failed one stops nothing.

        Raises:
            KeyboardInterrupt: the user or the scheduler asked to stop; all cells were stopped and can go on.
        """
        ...


class ProcessEngine:
    """Runs cells in processes on this machine.

    Args:
        grid: what is asked for.
        num_jobs: processes at a time.
        device: as `harness run --device` takes it.
        data_dir: folder of local corpora.
    """

    def __init__(self, grid: Grid, *, num_jobs: int, device: str, data_dir: Path | None) -> None:
        self._grid, self._num_jobs = grid, num_jobs
        self._device, self._data_dir = device, data_dir
        self._num_threads = max(1, (os.cpu_count() or 1) // num_jobs) if num_jobs > 1 else None
        self._children: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._is_stopping = False

    def run(self, cells: Sequence[Cell], watcher: Watcher) -> list[Outcome]:
        """Run cells as `Engine.run` says."""
        outcomes: list[Outcome] = []
        with stoppable(), ThreadPoolExecutor(self._num_jobs) as pool:
            pending = [pool.submit(self._run, cell, watcher) for cell in cells]
            try:
                outcomes.extend(found for future in as_completed(pending) if (found := future.result()) is not None)
            except KeyboardInterrupt:
                self._stop_children()
                raise
        return outcomes

    def _run(self, cell: Cell, watcher: Watcher) -> Outcome | None:
        clear_folder(cell)
        with said_path(cell).open("w+", encoding="utf-8", errors="replace") as said:
            with self._lock:
                if self._is_stopping:
                    said_path(cell).unlink()
                    return None
                command = cell_command(self._grid, cell, device=self._device, data_dir=self._data_dir)
                child = start_child(command, said, num_threads=self._num_threads)
                self._children.add(child)
            watcher.began(cell)
            with child:  # which is waited for, and its standard input closed
                exit_code = child.wait()
            with self._lock:
                self._children.discard(child)
            said.seek(0)
            outcome = make_outcome(cell, exit_code, said.read())
        if not exit_code:
            said_path(cell).unlink()
        watcher.ended(outcome)
        return outcome

    def _stop_children(self) -> None:
        with self._lock:
            self._is_stopping = True
            children = list(self._children)
        for child in children:
            child.terminate()  # as a scheduler does; SIGINT may be ignored where this process runs in the background


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM, which schedulers send, and SIGHUP of a lost terminal stop a grid as Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
