"""What a broken folder is: a true one, one change, and what an examiner has to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .april import april_runs, caseops_runs, phased_runs
from .folders import Folder
from .march import byte_runs, legal_runs, long_runs, plain_runs, staged_runs, ternary_runs, triple_runs
from .model import Run

FAMILIES = ("files", "bytes", "params", "metrics", "steps", "time", "seeds", "stats", "data")
Build = Callable[[], Folder]

ONE, STAGED, TRI, TER, APR = plain_runs()[0], staged_runs()[0], triple_runs(), ternary_runs(), april_runs()
PHA, CASE, LEG, LONG, BYTE = phased_runs(), caseops_runs(), legal_runs(), long_runs()[0], byte_runs()[0]


@dataclass(frozen=True)
class Case:
    """One contradiction; `also` names further families under which it may rightly be reported.

    `whole` marks the few cases that need other logs, not an edit of a few lines.
    """

    name: str
    build: Build
    family: str
    severity: str
    about: str
    base: Build
    also: tuple[str, ...] = ()
    whole: bool = False


def case(
    name: str,
    base: Build,
    change: Callable[[Folder], Folder],
    kind: str,
    about: str,
    *,
    also: tuple[str, ...] = (),
    whole: bool = False,
) -> Case:
    """`kind` is `family/severity`."""
    family, severity = kind.split("/")
    return Case(name, lambda: change(base()), family, severity, about, base, also, whole)


def cell(folder: Folder, run: Run, old: str, new: str, name: str = "README.md") -> Folder:
    """Change one cell of the README row of a seed."""
    row = next(ln for ln in folder.text(name).splitlines() if ln.startswith(f"| {run.seed} |") and f"| {old} |" in ln)
    return folder.sub(name, row, row.replace(f"| {old} |", f"| {new} |"))


def row_cell(folder: Folder, label: str, old: str, new: str) -> Folder:
    row = next(line for line in folder.text("README.md").splitlines() if line.startswith(f"| {label} |"))
    return folder.sub("README.md", row, row.replace(old, new))
