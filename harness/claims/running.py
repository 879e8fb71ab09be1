"""`harness claims run`: the runs that a claim's plan names, each sealed, one after the other."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.claims.schema import Claim, LoadedClaims
from harness.engines import stoppable
from harness.errors import RunError, UsageError
from harness.record_lock import LOCK_FILE, hold_folder
from harness.records.native import CONFIG_FILE, RECORD_FILE, read_record
from harness.records.schema import Record

# What `harness run` leaves in a folder where it was killed before it wrote the record.
_LEFT_BEFORE_RECORD = (LOCK_FILE, CONFIG_FILE, f".{CONFIG_FILE}.*.tmp", f".{RECORD_FILE}.*.tmp")


class PlannedRun(NamedTuple):
    """A run of a plan: its command, its folder, and whether it is complete."""

    command: list[str]
    folder: Path
    is_complete: bool


def planned_runs(loaded: LoadedClaims, claim: Claim, name: str, out: Path, budget: str | None) -> Iterator[PlannedRun]:
    """Yield the runs of a plan, seed by seed.

    Args:
        loaded: the claim's file.
        claim: of the file.
        name: as the user gave it: of the claim, or FILE#ID.
        out: folder of the records.
        budget: of each run in place of the plan's; None for that.

    Raises:
        UsageError: the claim has no plan.
    """
    if claim.plan is None:
        hint = f"; what would decide it: {claim.decide}" if claim.decide else ""
        raise UsageError(f"{loaded.name_of(claim)} has no plan of runs{hint}")
    for seed in range(claim.plan.seeds):
        for at, arguments in enumerate(claim.plan.arguments):
            folder = out / loaded.name_of(claim) / f"run{at}-seed{seed}"
            start = [sys.executable, "-m", "harness.worker", "run"]
            if (folder / RECORD_FILE).is_file():
                record = read_record(folder)
                _check_line(folder, record, arguments)
                done = record.status == "complete"
                yield PlannedRun([*start, "--resume", str(folder)], folder, done)
                continue
            own = shlex.split(arguments.replace("{seed}", str(seed)))
            words = [*own, "--seed", str(seed), "--claim", name, "--out", str(folder)]
            yield PlannedRun([*start, *words, *(["--budget", budget] if budget else [])], folder, False)


def _check_line(folder: Path, record: Record, arguments: str) -> None:
    """Refuse a record of another line of the plan: lines are found by their place, so that new ones go to the end.

    Raises:
        UsageError: method or preset is another.
    """
    words = shlex.split(arguments)
    named = [words[at + 1] for at, word in enumerate(words[:-1]) if word in ("--method", "--preset")]
    if not {*named} <= {record.method.name, record.preset}:
        raise UsageError(
            f"{folder}: {record.method.name}/{record.preset}, and the plan has `{arguments}` in its place; append runs "
            "at the end of a plan, or give another --out"
        )


def make_runs(runs: Iterable[PlannedRun]) -> None:
    """Make the runs that are not complete; each says what it does as `harness run` would.

    Raises:
        RunError: one failed; names its folder.
        UsageError: another process writes one.
        KeyboardInterrupt: stopped; the run in hand has closed its record, and the same command goes on.
    """
    with stoppable():
        for run in runs:
            if run.is_complete:
                continue
            _clear(run.folder)
            if exit_code := _wait_for(run.command):
                raise RunError(f"{run.folder}: the run ended with exit code {exit_code}; the same command goes on")


def _clear(folder: Path) -> None:
    """Take away what a run left that was killed before its record was written; a folder with more in it stays."""
    if not folder.is_dir() or (folder / RECORD_FILE).exists():
        return
    with hold_folder(folder):
        if all(any(map(path.match, _LEFT_BEFORE_RECORD)) for path in folder.iterdir()):
            shutil.rmtree(folder)


def _wait_for(command: Sequence[str]) -> int:
    """Run a command to its end; an interrupted one is stopped once, and gets the time to close its record."""
    # a session of its own: Ctrl-C reaches this process alone; by the end of its input the child knows that it is gone
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            raise
