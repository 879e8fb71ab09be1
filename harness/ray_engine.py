"""Cells as tasks of Ray, on one machine or many: one task a cell with what it needs, again where a node is lost.

Ray places the tasks; this side says what began and ended, and brings records home from the storage.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.cell_process import Outcome, make_outcome, said_path
from harness.engines import Watcher, stoppable
from harness.errors import HarnessError
from harness.grid import Cell, Grid
from harness.ray_cluster import Need
from harness.ray_task import Ended, Order, run_cell
from harness.storage import Storage

MAX_LOSSES = 3  # of the worker or node under a cell, before it is given up
_WAIT_SECONDS = 0.5


class RayEngine:
    """Runs cells on the Ray cluster that this process is connected to.

    Args:
        grid: what is asked for.
        folder: of the comparison; on a disk that all nodes share if there is no storage.
        need: of each cell.
        num_jobs: cells at a time; None for as many as there is room for.
        data_dir: folder of local corpora on each node.
        storage: where records are kept.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        folder: Path,
        need: Need,
        num_jobs: int | None = None,
        data_dir: Path | None = None,
        storage: Storage | None = None,
    ) -> None:
        self._grid, self._folder, self._need, self._num_jobs = grid, folder, need, num_jobs
        self._data_dir = data_dir.absolute() if data_dir is not None else None
        self._storage = storage

    def run(self, cells: Sequence[Cell], watcher: Watcher) -> list[Outcome]:
        """Run cells as `Engine.run` says."""
        with stoppable():
            return _Running(self, cells, watcher).run()

    def submit(self, cell: Cell) -> Any:
        """Hand a cell to Ray; returns the stream of what its task says."""
        import ray

        task = ray.remote(run_cell).options(
            name=cell.name, num_cpus=self._need.num_cpus, num_gpus=self._need.num_gpus, max_retries=0
        )
        order = Order(
            grid=self._grid,
            cell=replace(cell, folder=cell.folder.absolute()),
            name=self._name(cell),
            device=self._need.device,
            data_dir=self._data_dir,
            num_threads=self._need.num_threads,
            cwd=Path.cwd(),
            storage_url=self._storage.url if self._storage is not None else None,
        )
        return task.remote(order)

    def has_room(self, num_running: int) -> bool:
        """Whether another cell may be handed over."""
        return self._num_jobs is None or num_running < self._num_jobs

    def finish(self, cell: Cell, ended: Ended) -> Outcome:
        """Bring the record home and sum up how the cell ended; what a failed one said is kept beside its folder."""
        outcome = make_outcome(cell, ended.exit_code, ended.said)
        if self._storage is not None:
            try:
                self._storage.level([cell], self._folder)
            except HarnessError as error:
                outcome = replace(outcome, exit_code=error.exit_code, reason=str(error))
        if ended.exit_code:
            cell.folder.parent.mkdir(parents=True, exist_ok=True)
            said_path(cell).write_text(ended.said, encoding="utf-8")
        return outcome

    def _name(self, cell: Cell) -> str:
        return cell.folder.relative_to(self._folder).as_posix()


class _Running:
    """Cells on their way: waiting here, handed to Ray, over."""

    def __init__(self, engine: RayEngine, cells: Sequence[Cell], watcher: Watcher) -> None:
        self._engine, self._watcher = engine, watcher
        self._waiting = deque(cells)
        self._streams: dict[Any, Cell] = {}
        self._begun: set[Any] = set()
        self._losses: Counter[Cell] = Counter()
        self._outcomes: list[Outcome] = []

    def run(self) -> list[Outcome]:
        """Run all cells; whatever ends it early stops them first."""
        import ray

        try:
            while self._waiting or self._streams:
                while self._waiting and self._engine.has_room(len(self._streams)):
                    cell = self._waiting.popleft()
                    self._streams[self._engine.submit(cell)] = cell
                ready, _ = ray.wait(list(self._streams), num_returns=1, timeout=_WAIT_SECONDS)
                for stream in ready:
                    self._hear(stream)
        except BaseException:
            self._stop()
            raise
        return self._outcomes

    def _hear(self, stream: Any) -> None:
        """Take what a task says next."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        cell = self._streams[stream]
        try:
            said: Ended | None = ray.get(next(stream))
        except RayTaskError as error:  # a fault in the task itself
            self._end(stream, self._engine.finish(cell, Ended(exit_code=3, said=f"error: {error.cause!r}")))
        except RayError as error:
            self._lose(stream, type(error).__name__)
        else:
            if said is None:
                self._begun.add(stream)
                self._watcher.began(cell)
            else:
                self._end(stream, self._engine.finish(cell, said))

    def _lose(self, stream: Any, what: str) -> None:
        """Run a cell again whose worker or node is gone, a few times: its task has not failed, nor have the others."""
        cell = self._streams[stream]
        self._losses[cell] += 1
        is_given_up = self._losses[cell] >= MAX_LOSSES
        if not is_given_up:
            self._waiting.appendleft(cell)
        again = f"given up after {MAX_LOSSES}" if is_given_up else "it is run again"
        outcome = Outcome(cell=cell, exit_code=4, reason=f"killed with its worker ({what}), {again}")
        self._end(stream, outcome, is_over=is_given_up)

    def _end(self, stream: Any, outcome: Outcome, *, is_over: bool = True) -> None:
        del self._streams[stream]
        if is_over:
            self._outcomes.append(outcome)
        if stream in self._begun:
            self._watcher.ended(outcome)

    def _stop(self) -> None:
        """Cancel every task, and wait until the cells have written what they can go on from."""
        import ray

        for stream in self._streams:
            ray.cancel(stream)
        while self._streams:
            ready, _ = ray.wait(list(self._streams), num_returns=1, timeout=_WAIT_SECONDS)
            for stream in ready:
                with suppress(ray.exceptions.RayError, StopIteration):
                    ray.get(next(stream))
                    continue
                del self._streams[stream]
