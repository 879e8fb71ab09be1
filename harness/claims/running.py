"""`harness claims run`: the runs that a claim's plan names, each sealed, one after the other."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from harness.claims.schema import Claim, LoadedClaims
from harness.errors import RunError, UsageError
from harness.records.native import RECORD_FILE, read_record


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
            start = [sys.executable, "-m", "harness", "run"]
            if (folder / RECORD_FILE).is_file():
                done = read_record(folder).status == "complete"
                yield PlannedRun([*start, "--resume", str(folder)], folder, done)
                continue
            words = [*shlex.split(arguments), "--seed", str(seed), "--claim", name, "--out", str(folder)]
            yield PlannedRun([*start, *words, *(["--budget", budget] if budget else [])], folder, False)


def make_runs(runs: Iterable[PlannedRun]) -> None:
    """Make the runs that are not complete; each says what it does as `harness run` would.

    Raises:
        RunError: one failed; names its folder.
    """
    for run in runs:
        if not run.is_complete and (exit_code := subprocess.run(run.command, check=False).returncode):
            raise RunError(f"{run.folder}: the run ended with exit code {exit_code}; the same command goes on")
