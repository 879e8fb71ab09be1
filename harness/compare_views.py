"""What `harness compare` says: the cells, the contenders with everything they spent, their relations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from harness.comparison import AXES, FIGURES, Comparison, Group, Relation, compare, read_run, total_spent
from harness.grid import Cell, Contender, Grid
from harness.record_views import describe_machine
from harness.records.schema import Record
from harness.tables import Table, View, fmt
from harness.tuning import Tuned, read_tuned

# A time budget is matched when it is kept to this part of it; a step may be no longer.
SECONDS_TOLERANCE = 0.005


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
    complete = [cell for cell in cells if cell.is_complete]
    groups = [
        Group(name=contender.name, runs={cell.seed: read_run(cell.folder) for cell in own})
        for contender in grid.contenders
        if (own := [cell for cell in complete if cell.contender == contender])
    ]
    comparison = compare(groups) if groups else None
    missing = {
        str(cell.folder.relative_to(folder)): failed.get(cell.folder, "not run yet")
        for cell in (*trials, *cells)
        if not cell.is_complete
    }
    tables = list(_tables(folder, grid, comparison, missing))
    data = _data(folder, grid, comparison, missing)
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


def _tables(folder: Path, grid: Grid, comparison: Comparison | None, missing: Mapping[str, str]) -> Iterator[Table]:
    if comparison is not None:
        yield _groups_table(folder, grid, comparison)
        if comparison.relations:
            yield _relations_table(comparison)
        if notes := list(_notes(grid, comparison)):
            yield Table(title="notes", columns=("note",), rows=[(note,) for note in notes])
    if missing:
        yield Table(title="cells that are not complete", columns=("cell", "why"), rows=list(missing.items()))


def _groups_table(folder: Path, grid: Grid, comparison: Comparison) -> Table:
    is_one_machine = len(_machines(comparison)) == 1
    columns = (
        "contender",
        "n",
        "bits/byte",
        "sd",
        "file bytes",
        "stored",
        "effective",
        "active",
        "steps",
        "tokens",
        "FLOPs",
        "seconds" if is_one_machine else "seconds (unlike machines)",
        "peak MB",
        "Pareto front with",
    )
    rows = [_row(group, comparison, is_one_machine) for group in comparison.groups]
    started = f", each from {grid.parent} (post-training)" if grid.parent else ""
    title = f"{folder}: {grid.data}, {grid.budget} a cell{started}; means over seeds"
    return Table(title=title, columns=columns, rows=rows, right=frozenset(range(1, 13)))


def _row(group: Group, comparison: Comparison, is_one_machine: bool) -> tuple[str, ...]:
    fronts = [AXES[axis] for axis in AXES if group.name in comparison.fronts[axis]]
    memory = group.mean(FIGURES["memory"])
    params = [group.mean(partial(_params, kind)) for kind in ("stored", "effective", "active")]
    steps, tokens, flops = (group.mean(partial(total_spent, kind=kind)) for kind in ("steps", "tokens", "flops"))
    return (
        group.name,
        str(len(group.runs)),
        fmt(group.mean_bpb),
        fmt(group.sd_bpb),
        _whole(group.mean(FIGURES["bytes"])),
        *map(_whole, (*params, steps, tokens)),
        "-" if flops is None else f"{flops:.3g}",
        fmt(group.mean(FIGURES["seconds"]), 1) if is_one_machine else "-",
        "-" if memory is None else f"{memory / 1e6:,.0f}",
        ", ".join(fronts) or "-",
    )


def _params(kind: str, record: Record) -> float | None:
    return getattr(record.params, kind) if record.params else None


def _relations_table(comparison: Comparison) -> Table:
    rows = [
        (
            relation.first,
            relation.second,
            str(relation.num_seeds),
            f"{relation.difference:+.4f}",
            "-" if (seeds := relation.over_seeds) is None else f"{seeds.low:+.4f} to {seeds.high:+.4f}",
            f"{relation.over_text.low:+.4f} to {relation.over_text.high:+.4f}",
            fmt(relation.p_holm),
            fmt(relation.visible_bpb),
            relation.verdict,
        )
        for relation in comparison.relations
    ]
    columns = (
        "A",
        "B",
        "seeds",
        "A - B",
        "95% over seeds",
        "95% over text",
        "p (Holm)",
        "visible",
        "verdict",
    )
    title = f"bits/byte of pairs; {f'winner: {comparison.winner}' if comparison.winner else 'no winner'}"
    return Table(title=title, columns=columns, rows=rows, right=frozenset(range(2, 8)))


def _notes(grid: Grid, comparison: Comparison) -> Iterator[str]:
    if len(machines := _machines(comparison)) > 1:
        yield f"seconds of unlike machines are not compared: {'; '.join(sorted(machines))}"
    for group in comparison.groups:
        for seed, run in group.runs.items():
            if problem := match_problem(run.record):
                yield f"{group.name}, seed {seed}: {problem}"
            if run.record.contended:
                yield f"{group.name}, seed {seed}: contended, the machine's speed drifted by more than 5%"
    if len(grid.seeds) < 3:
        yield f"{len(grid.seeds)} seed(s): a difference between methods needs three or more"


def match_problem(record: Record) -> str | None:
    """Say why a run under a time budget does not match others, None where it does."""
    budget, progress = record.budget, record.progress
    if budget.kind not in ("seconds", "gpu_seconds") or progress is None:
        return None
    tolerance = SECONDS_TOLERANCE * budget.amount
    step_seconds = progress.median_step_seconds or 0.0
    if step_seconds > tolerance:
        return f"not matched: a step takes {step_seconds:.3g} s, more than 0.5% of the budget; give a larger --budget"
    spent = budget.spent.seconds if budget.kind == "seconds" else budget.spent.gpu_seconds
    if abs(spent - budget.amount) > tolerance + step_seconds:
        return f"not matched: {spent:.1f} s of {budget.amount:.1f} s were spent"
    return None


def _machines(comparison: Comparison) -> set[str]:
    return {describe_machine(run.record.environment) for group in comparison.groups for run in group.runs.values()}


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _data(folder: Path, grid: Grid, comparison: Comparison | None, missing: Mapping[str, str]) -> dict[str, Any]:
    found = comparison or Comparison(groups=(), relations=(), fronts={})
    return {
        "folder": str(folder),
        "grid": grid.model_dump(mode="json", by_alias=True),
        "contenders": [
            {
                "name": group.name,
                "seeds": list(group.runs),
                "val_bpb": group.scores,
                "mean_bpb": group.mean_bpb,
                "sd_bpb": group.sd_bpb,
                **{axis: group.mean(figure) for axis, figure in FIGURES.items()},
                "fronts": [axis for axis in AXES if group.name in found.fronts[axis]],
            }
            for group in found.groups
        ],
        "relations": [_relation_data(relation) for relation in found.relations],
        "winner": found.winner if found.groups else None,
        "incomplete": dict(missing),
    }


def _relation_data(relation: Relation) -> dict[str, Any]:
    data = asdict(relation)
    del data["over_text"]["p_value"]  # a bootstrap interval has none
    return {**data, "visible_bpb": relation.visible_bpb, "is_settled": relation.is_settled, "verdict": relation.verdict}
