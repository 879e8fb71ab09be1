"""One cell of a grid as a child process: its command, how it is started, what it says at its end.

A cell is the command `harness run` as anybody would type it, so it is stopped, resumed and verified like any run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.grid import Cell, Grid

# Torch starts as many threads as there are cores; processes beside one another then wait for each other, spinning.
THREADS = "OMP_NUM_THREADS"
_TAIL_BYTES = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a cell's process ended: exit code, and its error in one line (empty where it went well)."""

    cell: Cell
    exit_code: int
    reason: str


def cell_command(grid: Grid, cell: Cell, *, device: str, data_dir: Path | None) -> list[str]:
    """Return the command of a cell: a new run, or one that goes on.

    Args:
        grid: the cell is of.
        cell: with its folder on the machine that will run it.
        device: as `harness run --device` takes it.
        data_dir: folder of local corpora.
    """
    start = [sys.executable, "-P", "-m", "harness.worker", "run"]
    place = ["--device", device, *(["--data-dir", str(data_dir)] if data_dir else [])]
    if cell.has_record:
        return [*start, "--resume", str(cell.folder), *place]
    contender = cell.contender
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
    return [*start, *given, *sets, *place]


def clear_folder(cell: Cell) -> None:
    """Make the folder above a cell's, and take away one that was left before its record was written."""
    cell.folder.parent.mkdir(parents=True, exist_ok=True)
    if not cell.has_record and cell.folder.is_dir():
        shutil.rmtree(cell.folder)


def start_child(
    command: Sequence[str], said: IO[str], *, num_threads: int | None, cwd: Path | None = None
) -> subprocess.Popen[str]:
    """Start the command of a cell.

    Args:
        command: of `cell_command`.
        said: file for what it prints.
        num_threads: compute threads, where the environment says nothing; None leaves the choice to torch.
        cwd: working folder; None for that of this process.
    """
    threads = {THREADS: str(num_threads)} if num_threads else {}
    # A session of its own: Ctrl-C reaches this process, which stops each child once. Standard input is a pipe that
    # nobody writes to, by whose end a child knows that this process is gone.
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=said,
        text=True,
        cwd=cwd,
        env=threads | dict(os.environ),
        start_new_session=True,
    )


def make_outcome(cell: Cell, exit_code: int, said: str) -> Outcome:
    """Sum up how a cell's process ended, from its exit code and all that it said."""
    return Outcome(cell=cell, exit_code=exit_code, reason=_reason(exit_code, said))


def _reason(exit_code: int, said: str) -> str:
    if not exit_code:
        return ""
    if exit_code < 0:
        return f"killed by signal {-exit_code}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else f"exit code {exit_code}: {lines[-1] if lines else 'no output'}"


def said_path(cell: Cell) -> Path:
    """Return where the output of a cell that failed is kept."""
    return cell.folder.with_suffix(".out")


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
