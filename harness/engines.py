"""Where the cells of a grid run: each in a process of its own, several at a time.

A cell is the command `harness run` as anybody would type it, so it is stopped, resumed and verified like any run.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.grid import Cell, Grid

# Torch starts as many threads as there are cores; processes beside one another then wait for each other, spinning.
_THREADS = "OMP_NUM_THREADS"
_TAIL_BYTES = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a cell's process ended: exit code, and its error in one line (empty where it went well)."""

    cell: Cell
    exit_code: int
    reason: str


class Watcher(Protocol):
    """Told what happens to cells; called from several threads."""

    def began(self, cell: Cell) -> None:
        """Hear that a cell's process started."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """Hear that it is over."""
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
        self._place = ["--device", device, *(["--data-dir", str(data_dir)] if data_dir else [])]
        self._children: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._is_stopping = False

    def run(self, cells: Sequence[Cell], watcher: Watcher) -> list[Outcome]:
        """Run cells to their ends and return the outcomes; a failed one stops nothing.

        Raises:
            KeyboardInterrupt: the user or the scheduler asked to stop; all cells were stopped and can go on.
        """
        outcomes: list[Outcome] = []
        with self._stoppable(), ThreadPoolExecutor(self._num_jobs) as pool:
            pending = [pool.submit(self._run, cell, watcher) for cell in cells]
            try:
                outcomes.extend(found for future in as_completed(pending) if (found := future.result()) is not None)
            except KeyboardInterrupt:
                self._stop_children()
                raise
        return outcomes

    def command(self, cell: Cell) -> list[str]:
        """Return the command of a cell: a new run, or one that goes on."""
        start = [sys.executable, "-P", "-m", "harness.worker", "run"]
        if cell.has_record:
            return [*start, "--resume", str(cell.folder), *self._place]
        grid, contender = self._grid, cell.contender
        options = {
            "--method": contender.method,
            "--preset": contender.preset,
            "--budget": grid.budget,
            "--data": grid.data,
            "--seed": str(cell.seed),
            "--out": str(cell.folder),
            "--tokenizer": grid.tokenizer,
            "--from": grid.parent,
            "--target-params": str(grid.target_params) if grid.target_params else None,
            "--eval-context": str(grid.eval_context) if grid.eval_context else None,
        }
        given = [word for option, value in options.items() if value is not None for word in (option, value)]
        sets = [word for text in (*grid.overrides_of(contender), *cell.overrides) for word in ("--set", text)]
        return [*start, *given, *sets, *self._place]

    def _run(self, cell: Cell, watcher: Watcher) -> Outcome | None:
        cell.folder.parent.mkdir(parents=True, exist_ok=True)
        if not cell.has_record and cell.folder.is_dir():  # killed before its record was written
            shutil.rmtree(cell.folder)
        said_path = cell.folder.with_suffix(".out")
        with said_path.open("w+", encoding="utf-8", errors="replace") as said:
            with self._lock:
                if self._is_stopping:
                    return None
                # A session of its own: Ctrl-C reaches this process, which stops each child once. Standard input is a
                # pipe that nobody writes to, by whose end a child knows that this process is gone.
                child = subprocess.Popen(
                    self.command(cell),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    text=True,
                    env=self._environment(),
                    start_new_session=True,
                )
                self._children.add(child)
            watcher.began(cell)
            exit_code = child.wait()
            with self._lock:
                self._children.discard(child)
            assert child.stdin is not None, "it was asked for"
            child.stdin.close()
            said.seek(0)
            lines = [line.strip() for line in said if line.strip()]
        outcome = Outcome(cell=cell, exit_code=exit_code, reason=_reason(exit_code, lines))
        if not exit_code:
            said_path.unlink()
        watcher.ended(outcome)
        return outcome

    def _environment(self) -> dict[str, str]:
        threads = {_THREADS: str(max(1, (os.cpu_count() or 1) // self._num_jobs))} if self._num_jobs > 1 else {}
        return threads | dict(os.environ)

    def _stop_children(self) -> None:
        with self._lock:
            self._is_stopping = True
            children = list(self._children)
        for child in children:
            child.terminate()  # as a scheduler does; SIGINT may be ignored where this process runs in the background

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Let SIGTERM, which schedulers send, and SIGHUP of a lost terminal stop the grid as Ctrl-C does."""

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _reason(exit_code: int, lines: Sequence[str]) -> str:
    if not exit_code:
        return ""
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if exit_code < 0:
        return f"killed by signal {-exit_code}"
    return errors[-1] if errors else f"exit code {exit_code}: {lines[-1] if lines else 'no output'}"


def last_step(folder: Path) -> int:
    """Return the last step in the log of a run that goes on, 0 where there is none."""
    try:
        with (folder / "log.jsonl").open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - _TAIL_BYTES))
            lines = log.read().splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("event") == "step":
            return int(event["step"])
    return 0
