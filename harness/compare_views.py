"""What `harness compare` says: the cells, the contenders with everything they spent, their relations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.comparison import Group, Run, compare, params_error, read_run
from harness.comparison_views import comparison_data, comparison_tables
from harness.errors import HarnessError, RecordError, UsageError
from harness.grid import GRID_FILE, Cell, Contender, Grid
from harness.record_views import read_records
from harness.records.schema import Record
from harness.tables import Table, View, fmt
from harness.tuning import TUNING_FOLDER, Tuned, read_tuned
from harness.verify.across import settings_key


def read_groups(grid: Grid, cells: Sequence[Cell]) -> tuple[list[Group], dict[Path, str]]:
    """Read the complete cells of a grid; returns the contenders that have some, and why other cells cannot be used.

    Args:
        grid: what was asked for.
        cells: all of the comparison.
    """
    groups, broken = [], dict[Path, str]()
    for contender in grid.contenders:
        runs: dict[int, Run] = {}
        for cell in (each for each in cells if each.contender == contender and each.is_complete):
            try:
                runs[cell.seed] = _read_cell(cell)
            except HarnessError as error:
                broken[cell.folder] = str(error)
        if len({settings_key(run.record) for run in runs.values()}) > 1:
            broken |= {
                cell.folder: "its seeds have unlike settings (an edited preset, or a trial that was run again)"
                for cell in cells
                if cell.contender == contender
            }
        elif runs:
            groups.append(Group(name=contender.name, runs=runs))
    return groups, broken


def grid_view(
    folder: Path, grid: Grid, cells: Sequence[Cell], trials: Sequence[Cell], failed: Mapping[Path, str]
) -> View:
    """Compare the complete cells of a grid and list the others with their reasons.

    Args:
        folder: of the grid.
        grid: what was asked for.
        cells: all of the comparison.
        trials: all of the tuning before it.
        failed: why a cell is not complete, by its folder.
    """
    groups, broken = read_groups(grid, cells)
    comparison = compare(groups, target_params=grid.target_params)
    missing = {
        str(cell.folder.relative_to(folder)): broken.get(cell.folder) or failed.get(cell.folder, "not run yet")
        for cell in (*trials, *cells)
        if cell.folder in broken or not cell.is_complete
    }
    started = f", each from {grid.parent} (post-training)" if grid.parent else ""
    title = f"{folder}: {grid.data}, {grid.budget} a cell{started}"
    tables = list(comparison_tables(title, comparison)) if groups else []
    if groups and grid.target_params:
        tables.insert(0, _params_table(comparison.groups, grid.target_params))
    if missing:
        tables.append(Table(title="cells that are not complete", columns=("cell", "why"), rows=list(missing.items())))
    data: dict[str, Any] = {
        "folder": str(folder),
        "grid": grid.model_dump(mode="json", by_alias=True),
        **comparison_data(comparison),
        "incomplete": missing,
    }
    if trials:
        tuned = read_tuned(trials)
        tables.insert(0, _tuning_table(trials, tuned))
        data["tuning"] = [
            {
                "contender": contender.name,
                "num_trials": each.num_trials,
                "tune_bpb": {str(trial): bpb for trial, bpb in each.scores.items()},
                "best": each.best,
            }
            for contender, each in tuned.items()
        ]
    return View(tables=tables, data=data)


def _params_table(groups: Sequence[Group], target_params: int) -> Table:
    rows = []
    for group in groups:
        model = next(iter(group.runs.values())).record.settings.model
        sizes = [model.get(name, "-") for name in ("width", "mlp_width")]
        sizes.append("-" if (stored := group.mean("stored")) is None else f"{stored:,.0f}")
        error = params_error(group, target_params)
        rows.append((group.name, *map(str, sizes), "-" if error is None else f"{error:+.2%}"))
    return Table(
        title=f"widths that come nearest to {target_params:,} stored parameters",
        columns=("contender", "width", "inner width", "stored", "error"),
        rows=rows,
        right=frozenset({1, 2, 3, 4}),
    )


def _read_cell(cell: Cell) -> Run:
    run = read_run(cell.folder)
    found = (run.record.method.name, run.record.preset, run.record.seed)
    if found != (cell.contender.method, cell.contender.preset, cell.seed):
        raise RecordError(f"{cell.folder}: holds a record of {found[0]}/{found[1]}, seed {found[2]}")
    return run


def _tuning_table(trials: Sequence[Cell], tuned: Mapping[Contender, Tuned]) -> Table:
    rows = []
    for contender, each in tuned.items():
        own = [cell for cell in trials if cell.contender == contender]
        best = each.best
        rows.append(
            (
                contender.name,
                str(each.num_trials),
                str(each.num_trials - len(each.scores)),
                fmt(each.scores.get(0)),
                fmt(None if best is None else each.scores[best]),
                "-" if best is None else ", ".join(text.removeprefix("train.") for text in own[best].overrides),
            )
        )
    columns = ("contender", "trials", "not complete", "bits/byte of the preset", "of the best", "its rates")
    return Table(
        title="tuning on the tune split: the same points for everyone, all trials kept",
        columns=columns,
        rows=rows,
        right=frozenset({1, 2, 3, 4}),
    )


def records_view(paths: Sequence[Path], *, is_pooled: bool = False) -> View:
    """Compare records that are there: those of one method at the same settings and budget are its seeds.

    Args:
        paths: record folders, or folders that hold some.
        is_pooled: take those of one method, preset and budget as seeds though their settings differ, as those of
            `dense_small` do, which are worked out for each record that they are as large as.

    Raises:
        UsageError: a path holds no record, one is not complete, one seed stands twice, or some cannot share a table.
        RecordError: a record cannot be read.
    """
    runs: dict[tuple[str, str], dict[int, Run]] = {}
    names: dict[str, list[str]] = {}
    for folder, record in read_records(paths):
        if is_trial(folder):
            continue
        if record.status != "complete":
            raise UsageError(f"{folder}: the record is {record.status}; finish it with --resume, or leave it out")
        name = contender_name(record)
        key = "" if is_pooled else settings_key(record)
        own = runs.setdefault((name, key), {})
        if record.seed in own:
            raise UsageError(f"{folder}: seed {record.seed} of {name} is there already; leave one of the two out")
        own[record.seed] = read_run(folder)
        names.setdefault(name, []).append(key)
    groups = []
    for (name, key), own in runs.items():
        keys = list(dict.fromkeys(names[name]))
        apart = f" (settings {keys.index(key) + 1})" if len(keys) > 1 else ""
        groups.append(Group(name=name + apart, runs=dict(sorted(own.items()))))
    comparison = compare(groups)
    first = next(iter(groups[0].runs.values())).record
    title = f"{first.data.name}, {first.data.splits.test.num_bytes:,} test bytes"
    return View(tables=list(comparison_tables(title, comparison)), data=comparison_data(comparison))


def contender_name(record: Record) -> str:
    """Name what a record is a seed of; seeds of one thing start from parents that differ by their seeds."""
    started = f" from {re.sub(r'-seed[0-9]+$', '', record.lineage[-1].name)}" if record.lineage else ""
    return f"{record.method.name}/{record.preset}, {record.budget.text}{started}"


def is_trial(folder: Path) -> bool:
    """Whether a record is a trial of a grid's tuning: those were selected among, and are no seeds."""
    places = folder.resolve().parents
    return any(place.name == TUNING_FOLDER and (place.parent / GRID_FILE).exists() for place in places)
