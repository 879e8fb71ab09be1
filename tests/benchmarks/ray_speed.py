"""The cells of a grid on one worker of Ray and on two, one thread each, on this machine.

    python tests/benchmarks/ray_speed.py [--steps 300] [--cells 4] [--data shakespeare] [--preset small]

Ray is started, and every worker has run a cell of two steps, before the clock starts. Each way runs the same cells
from the start, and their files must be the same. Prints a Markdown table and the ratio of the times. Run it on an idle
machine of two cores or more; the cells should take a minute and more each.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from harness.cell_process import Outcome
from harness.grid import Cell, Contender, Grid, open_grid
from harness.ray_cluster import Need, connected
from harness.ray_engine import RayEngine
from harness.records.native import read_record
from harness.tables import Table, fmt

ONE_THREAD = Need(num_cpus=1, num_gpus=0, num_threads=1, device="cpu")
WORKERS = (1, 2)
COLUMNS = ("workers", "cells", "mean s a cell", "shortest", "s in all")


class Stopwatch:
    """Measures the seconds of each cell, from its beginning on a worker."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began: dict[Cell, float] = {}

    def began(self, cell: Cell) -> None:
        self._began[cell] = time.monotonic()

    def ended(self, outcome: Outcome) -> None:
        self.seconds.append(time.monotonic() - self._began.pop(outcome.cell))


def run(grid: Grid, folder: Path, num_workers: int) -> tuple[float, Sequence[float], list[str]]:
    """Run a grid in a new folder; returns its seconds, those of each cell, and the hashes of the files."""
    open_grid(folder, grid)
    cells, watch = list(grid.cells(folder)), Stopwatch()
    engine = RayEngine(grid, folder=folder, need=ONE_THREAD, num_jobs=num_workers)
    started = time.monotonic()
    failed = [outcome.reason for outcome in engine.run(cells, watch) if outcome.exit_code]
    seconds = time.monotonic() - started
    assert not failed, failed[0]
    artifacts = [read_record(cell.folder).artifact for cell in cells]
    return seconds, watch.seconds, [artifact.sha256 for artifact in artifacts if artifact is not None]


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="optimiser steps of a cell")
    parser.add_argument("--cells", type=int, default=4, help="cells of the grid, an even number")
    parser.add_argument("--data", default="shakespeare", help="corpus")
    parser.add_argument("--preset", default="small", help="of the method dense")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    contender = Contender(method="dense", preset=options.preset)
    grid = Grid(
        contenders=(contender,), seeds=tuple(range(options.cells)), budget=f"{options.steps}steps", data=options.data
    )
    warm_up = grid.model_copy(update={"seeds": (0, 1), "budget": "2steps"})
    with connected(None), tempfile.TemporaryDirectory() as text:
        run(warm_up, Path(text, "warm-up"), max(WORKERS))
        measured = {number: run(grid, Path(text, f"workers{number}"), number) for number in WORKERS}
    assert len({tuple(hashes) for _, _, hashes in measured.values()}) == 1, "other files on other workers"
    rows = [
        (number, len(each), fmt(mean(each), 1), fmt(min(each), 1), fmt(seconds, 1))
        for number, (seconds, each, _) in measured.items()
    ]
    table = Table(title="cells of one thread on workers of Ray", columns=COLUMNS, rows=rows, right=frozenset(range(5)))
    seconds = {number: found[0] for number, found in measured.items()}
    print(table.to_markdown())
    print(f"\ntwo workers are {seconds[1] / seconds[2]:.2f} times as fast as one")


if __name__ == "__main__":
    main()
