"""What a comparison says: the contenders with everything they spent, the relation of each pair, what to beware of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from harness.comparison import AXES, FIGURES, Comparison, Group, Relation, total_spent
from harness.method import BYTES_TOLERANCE, ExportSettings
from harness.record_views import describe_machine
from harness.records.schema import Record
from harness.tables import Table, fmt

# A time budget is matched when it is kept to this part of it; a step may be no longer.
SECONDS_TOLERANCE = 0.005
MIN_SEEDS = 3


def comparison_tables(title: str, comparison: Comparison) -> Iterator[Table]:
    """Lay a comparison out: contenders, pairs, notes."""
    yield _groups_table(title, comparison)
    if comparison.relations:
        yield _relations_table(comparison)
    if notes := list(_notes(comparison)):
        yield Table(title="notes", columns=("note",), rows=[(note,) for note in notes])


def comparison_data(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values."""
    return {
        "contenders": [
            {
                "name": group.name,
                "seeds": list(group.runs),
                "val_bpb": group.scores,
                "mean_bpb": group.mean_bpb,
                "sd_bpb": group.sd_bpb,
                "loss_nats": group.mean(_loss_nats),
                "token_accuracy": group.mean(_accuracy),
                **{axis: group.mean(figure) for axis, figure in FIGURES.items()},
                "fronts": [axis for axis in AXES if group.name in comparison.fronts[axis]],
            }
            for group in comparison.groups
        ],
        "relations": [_relation_data(relation) for relation in comparison.relations],
        "winner": comparison.winner,
        "notes": list(_notes(comparison)),
    }


def _groups_table(title: str, comparison: Comparison) -> Table:
    is_one_machine = len(_machines(comparison)) == 1
    columns = (
        "contender",
        "n",
        "bits/byte",
        "sd",
        "nats/token",
        "accuracy",
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
    title = f"{title}; means over seeds"
    return Table(title=title, columns=columns, rows=rows, right=frozenset(range(1, 15)))


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
        fmt(group.mean(_loss_nats)),
        f"{group.mean(_accuracy):.2%}",
        _whole(group.mean(FIGURES["bytes"])),
        *map(_whole, (*params, steps, tokens)),
        "-" if flops is None else f"{flops:.3g}",
        fmt(group.mean(FIGURES["seconds"]), 1) if is_one_machine else "-",
        "-" if memory is None else f"{memory / 1e6:,.0f}",
        ", ".join(fronts) or "-",
    )


def _loss_nats(record: Record) -> float | None:
    return record.metrics.test.loss_nats if record.metrics.test else None


def _accuracy(record: Record) -> float | None:
    return record.metrics.test.token_accuracy if record.metrics.test else None


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


def _notes(comparison: Comparison) -> Iterator[str]:
    if len(machines := _machines(comparison)) > 1:
        yield f"seconds of unlike machines are not compared: {'; '.join(sorted(machines))}"
    for group in comparison.groups:
        for seed, run in group.runs.items():
            if problem := match_problem(run.record):
                yield f"{group.name}, seed {seed}: {problem}"
            if problem := size_problem(run.record):
                yield f"{group.name}, seed {seed}: {problem}"
            if run.record.contended:
                yield f"{group.name}, seed {seed}: contended, the machine's speed drifted by more than 5%"
    if few := [group.name for group in comparison.groups if len(group.runs) < MIN_SEEDS]:
        yield f"fewer than {MIN_SEEDS} seeds, which a difference between methods needs: {', '.join(few)}"


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


def size_problem(record: Record) -> str | None:
    """Say how far a file is below the size that it was to fill, None where it is within 2% or was to fill none."""
    target_bytes = ExportSettings.model_validate(record.settings.export).target_bytes
    if not target_bytes or record.artifact is None:
        return None
    below = 1 - record.artifact.artifact_bytes / target_bytes
    if 0 <= below <= BYTES_TOLERANCE:
        return None
    return f"not matched: its file is {below:.1%} below {target_bytes:,} bytes; the network is too small for that size"


def _machines(comparison: Comparison) -> set[str]:
    return {describe_machine(run.record.environment) for group in comparison.groups for run in group.runs.values()}


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _relation_data(relation: Relation) -> dict[str, Any]:
    data = asdict(relation)
    del data["over_text"]["p_value"]  # a bootstrap interval has none
    return {**data, "visible_bpb": relation.visible_bpb, "is_settled": relation.is_settled, "verdict": relation.verdict}
