"""`harness compare`: run what is missing of a grid, then say what the runs show."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cell_process import THREADS, Outcome, last_step
from harness.compare_views import grid_view
from harness.engines import Engine, ProcessEngine
from harness.errors import RunError, UsageError, suggest
from harness.grid import TARGETED, Cell, Grid, check_match, open_grid, parse_contenders
from harness.ladder import WHOLE, Grids, make_ladder, open_ladder
from harness.ladder_views import ladder_view
from harness.record_lock import hold_folder
from harness.records.native import read_record
from harness.run_record import run_name
from harness.storage import Storage
from harness.tables import View
from harness.training.budget import parse_budget
from harness.tuning import trial_cells, tuned_cells

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

ENGINES = ("process", "ray")
NO_TRIAL = "no trial of its tuning is complete"
TIMED = ("seconds", "gpu_seconds")
_REFRESH_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where and how cells run.

    Attributes:
        num_jobs: cells at a time; None for one process, or as many as a Ray cluster has room for.
        device: as `harness run --device` takes it.
        data_dir: folder of local corpora.
        engine: one of `ENGINES`.
        address: of a Ray cluster; None for one on this machine.
        storage: URL where records are kept; None if they need no place but the folder of the comparison.
    """

    num_jobs: int | None = None
    device: str = "auto"
    data_dir: Path | None = None
    engine: str = "process"
    address: str | None = None
    storage: str | None = None

    def of_size(self, size: str) -> Place:
        """Return the place of one size of a ladder: a folder of its own in the storage, as in the comparison."""
        return replace(self, storage=f"{self.storage.rstrip('/')}/{size}") if self.storage and size else self


def make_grid(  # noqa: PLR0913  keyword-only: the options of the command
    *,
    methods: str,
    preset: str,
    budget: str,
    num_seeds: int,
    match: str | None = None,
    target: str | None = None,
    data: str = "shakespeare",
    overrides: Sequence[str] = (),
    tokenizer: str | None = None,
    num_trials: int = 0,
    parent: str | None = None,
) -> Grid:
    """Check what can be checked before anything runs.

    Raises:
        UsageError: a method, preset, setting or budget is wrong, or the budget does not fix what is to be matched.
    """
    from harness.registry import find_method
    from harness.settings import resolve_settings

    targets = check_match(parse_budget(budget).kind, match, target)
    grid = Grid(
        contenders=parse_contenders(methods, preset),
        seeds=tuple(range(num_seeds)),
        budget=budget,
        data=data,
        overrides=tuple(overrides),
        **targets,
        tokenizer=tokenizer,
        num_trials=num_trials,
        parent=parent,
    )
    settings = [
        resolve_settings(find_method(each.method), each.preset, grid.overrides_of(each)) for each in grid.contenders
    ]
    # unlike eval modes share no table, so all are scored with the shortest context that one was trained for
    return grid.model_copy(update={"eval_context": min(each.train.context for each in settings)})


def make_grids(*, sizes: str | None, preset: str, match: str | None, target: str | None, **options: Any) -> Grids:
    """Check what can be checked before anything runs: one grid, or one for each size.

    Args:
        sizes: presets or numbers of parameters, see `harness.ladder`; None for one comparison.
        preset: as `make_grid` takes it.
        match: as `make_grid` takes it.
        target: as `make_grid` takes it.
        **options: the others of `make_grid`.

    Raises:
        UsageError: as `make_grid` and `make_ladder`, or sizes and a target contradict each other.
    """
    if sizes is None:
        return {WHOLE: make_grid(preset=preset, match=match, target=target, **options)}
    if match in TARGETED or target is not None:
        raise UsageError(f"--sizes {sizes}: every size matches its own; drop --match {match} and --target")

    def make(preset: str, target: str | None) -> Grid:
        matched = match if target is None else "params"
        return make_grid(preset=preset, match=matched, target=target, **options)

    grids = make_ladder(sizes, preset, make)
    # as within a grid: unlike eval modes share no line
    eval_context = min(grid.eval_context for grid in grids.values())
    return {size: grid.model_copy(update={"eval_context": eval_context}) for size, grid in grids.items()}


def default_folder(grids: Grids) -> Path:
    """Name a folder after what is compared."""
    grid = next(iter(grids.values()))
    methods = "-".join(dict.fromkeys(contender.method for contender in grid.contenders))
    size = grid.contenders[0].preset if len(grids) == 1 else "-".join(grids)
    return Path("comparisons", run_name(methods, size, grid.data, grid.budget, len(grid.seeds)))


def run_comparison(folder: Path, grids: Grids, place: Place, console: Console) -> tuple[View, bool]:
    """Run what is missing of a comparison, or of one size after the other, and compare; see `run_grid`.

    Args:
        folder: of the comparison, new or begun.
        grids: by size.
        place: where cells run.
        console: told what happens.
    """
    if len(grids) > 1:
        open_ladder(folder, grids)
    done = [run_grid(folder / size, grid, place.of_size(size), console) for size, grid in grids.items()]
    return _join(folder, grids, [view for view, _ in done]), all(is_complete for _, is_complete in done)


def show_comparison(folder: Path, grids: Grids) -> View:
    """Compare what is complete, running nothing."""
    return _join(folder, grids, [show_grid(folder / size, grid) for size, grid in grids.items()])


def _join(folder: Path, grids: Grids, views: Sequence[View]) -> View:
    return ladder_view(folder, grids, views) if len(grids) > 1 else views[0]


def run_grid(folder: Path, grid: Grid, place: Place, console: Console) -> tuple[View, bool]:
    """Run the cells that are not complete, and compare.

    Args:
        folder: of the grid, new or begun.
        grid: what is asked for.
        place: where cells run.
        console: told what happens.

    Returns:
        The comparison, and whether every cell is complete.

    Raises:
        UsageError: the folder or the storage holds another grid, or another process works on it; cells under a time
            budget would share the device; there is no such engine or cluster.
        KeyboardInterrupt: stopped; the same command goes on.
    """
    _check_place(place)
    storage = Storage(place.storage) if place.storage is not None else None
    with _open_engine(folder, grid, place, storage) as engine:
        open_grid(folder, grid)
        if storage is not None:
            storage.open_grid(grid)
        cells = list(grid.cells(folder))
        with hold_folder(folder):
            trials = list(trial_cells(grid, folder)) if grid.num_trials else []
            if storage is not None:
                storage.level([*trials, *cells], folder)
            is_tuning = trials and not any(cell.has_record for cell in cells)
            reasons = _run_cells(engine, trials, f"{folder}, tuning", console) if is_tuning else {}
            _check_trials(folder, trials, {path for path, outcome in reasons.items() if outcome.startswith("killed")})
            todo = tuned_cells(grid, folder, trials) if trials else cells
            reasons |= dict.fromkeys({cell.folder for cell in cells} - {cell.folder for cell in todo}, NO_TRIAL)
            reasons |= _run_cells(engine, todo, str(folder), console)
    return grid_view(folder, grid, cells, trials, reasons), all(cell.is_complete for cell in cells)


def _check_place(place: Place) -> None:
    """Refuse an engine that is none, and options of the other one."""
    if place.engine not in ENGINES:
        raise UsageError(f"--engine {place.engine}: {suggest(place.engine, ENGINES)}")
    if place.engine != "ray" and (place.address is not None or place.storage is not None):
        raise UsageError("--address and --storage are of --engine ray; add it, or drop them")


@contextmanager
def _open_engine(folder: Path, grid: Grid, place: Place, storage: Storage | None) -> Iterator[Engine]:
    """Return what runs the cells, checked and ready.

    Raises:
        UsageError: cells under a budget of time would share their device, or Ray has no place for them.
    """
    is_timed = parse_budget(grid.budget).kind in TIMED
    if place.engine == "process":
        num_jobs = place.num_jobs or 1
        if num_jobs > 1 and is_timed:
            raise UsageError(
                f"--jobs {num_jobs}: cells under a budget of time run alone on their device, or they would be "
                "matched in nothing; drop --jobs, or give a budget in steps, tokens or FLOPs"
            )
        yield ProcessEngine(grid, num_jobs=num_jobs, device=place.device, data_dir=place.data_dir)
        return
    from harness.ray_cluster import cell_need, connected, node_resources
    from harness.ray_engine import RayEngine

    with connected(place.address):
        num_threads = int(text) if (text := os.environ.get(THREADS, "")).isdigit() else None
        need = cell_need(
            node_resources(),
            device=place.device,
            is_timed=is_timed,
            num_jobs=place.num_jobs,
            num_threads=num_threads,
        )
        yield RayEngine(
            grid, folder=folder, need=need, num_jobs=place.num_jobs, data_dir=place.data_dir, storage=storage
        )


def _check_trials(folder: Path, trials: Sequence[Cell], killed: Collection[Path]) -> None:
    """Stop before the cells where a trial has no result of its own: it could change what they are chosen by.

    Raises:
        RunError: a trial was killed.
    """
    if killed:
        raise RunError(
            f"{folder}: {len(killed)} of {len(trials)} trials were killed from outside, so tuning is not over; go on "
            f"with --resume {folder}"
        )


def _run_cells(engine: Engine, cells: Sequence[Cell], what: str, console: Console) -> dict[Path, str]:
    """Run the cells that are not complete; returns why some still are not, by folder."""
    todo = [cell for cell in cells if not cell.is_complete]
    console.print(f"{what}: {len(cells)} cells, {len(cells) - len(todo)} complete")
    with _watching(console, len(cells), len(cells) - len(todo)) as watcher:
        outcomes = engine.run(todo, watcher)
    return {outcome.cell.folder: outcome.reason for outcome in outcomes if outcome.exit_code}


def show_grid(folder: Path, grid: Grid) -> View:
    """Compare what is complete of a grid, running nothing."""
    cells = list(grid.cells(folder))
    trials = list(trial_cells(grid, folder)) if grid.num_trials else []
    begun = [cell for cell in (*cells, *trials) if cell.has_record and not cell.is_complete]
    return grid_view(folder, grid, cells, trials, {cell.folder: _recorded_reason(cell) for cell in begun})


def _recorded_reason(cell: Cell) -> str:
    record = read_record(cell.folder)
    return f"{record.status}: {record.reason}" if record.reason else record.status


class _Lines:
    """Says in a line when a cell begins and ends."""

    def __init__(self, console: Console, num_cells: int, num_done: int) -> None:
        self._console, self._num_cells, self._num_done = console, num_cells, num_done
        self._lock = threading.Lock()

    def began(self, cell: Cell) -> None:
        """Say it."""
        self._console.print(f"{cell.name}: {'goes on' if cell.has_record else 'begins'}")

    def ended(self, outcome: Outcome) -> None:
        """Say how."""
        with self._lock:
            self._num_done += 0 if outcome.exit_code else 1
            done = f"{self._num_done} of {self._num_cells} complete"
        self._console.print(f"{outcome.cell.name}: {outcome.reason or 'complete'} ({done})")


class _Bars(_Lines):
    """The same above a live line for each running cell, which says its last logged step."""

    def __init__(self, console: Console, progress: Progress, num_cells: int, num_done: int) -> None:
        super().__init__(console, num_cells, num_done)
        self._progress = progress
        self._tasks: dict[Cell, TaskID] = {}

    def began(self, cell: Cell) -> None:
        """Show the cell."""
        super().began(cell)
        with self._lock:
            self._tasks[cell] = self._progress.add_task(cell.name, total=None)

    def ended(self, outcome: Outcome) -> None:
        """Take its line away."""
        with self._lock:
            self._progress.remove_task(self._tasks.pop(outcome.cell))
        super().ended(outcome)

    def refresh(self) -> None:
        """Read how far each running cell is."""
        with self._lock:
            for cell, task in self._tasks.items():
                if step := last_step(cell.folder):  # the log may be on another machine until the cell is over
                    self._progress.update(task, description=f"{cell.name}: step {step:,}")


@contextmanager
def _watching(console: Console, num_cells: int, num_done: int) -> Iterator[_Lines]:
    if not console.is_terminal:
        yield _Lines(console, num_cells, num_done)
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bars = _Bars(console, progress, num_cells, num_done)
        is_over = threading.Event()

        def refresh() -> None:
            while not is_over.wait(_REFRESH_SECONDS):
                bars.refresh()

        thread = threading.Thread(target=refresh, daemon=True)
        thread.start()
        try:
            yield bars
        finally:
            is_over.set()
            thread.join()
