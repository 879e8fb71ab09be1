"""What a comparison says: the contenders with everything they spent, the relation of each pair, what to beware of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from harness.comparison import FIGURES, Comparison, Group, Relation, machines
from harness.tables import Table, fmt

MIN_SEEDS = 3
_HEADINGS = {
    "loss_nats": "nats/token",
    "token_accuracy": "accuracy",
    "artifact_bytes": "file bytes",
    "flops": "FLOPs",
    "peak_memory_bytes": "peak MB",
}
_AXES = {
    "artifact_bytes": "file bytes",
    "stored": "stored parameters",
    "seconds": "seconds",
    "peak_memory_bytes": "peak memory",
}


def comparison_tables(title: str, comparison: Comparison) -> Iterator[Table]:
    """Lay a comparison out: contenders, pairs, notes."""
    yield _groups_table(title, comparison)
    if comparison.relations:
        yield _relations_table(comparison)
    if notes := list(_notes(comparison)):
        yield Table(title="notes", columns=("note",), rows=[(note,) for note in notes])


def comparison_data(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values."""
    is_one_machine = len(machines(comparison.groups)) == 1
    return {
        "contenders": [
            {
                "name": group.name,
                "seeds": list(group.runs),
                "val_bpb": group.scores,
                "mean_bpb": group.mean_bpb,
                "sd_bpb": group.sd_bpb,
                **{name: group.mean(name) if name != "seconds" or is_one_machine else None for name in FIGURES},
                "fronts": [axis for axis, names in comparison.fronts.items() if group.name in names],
            }
            for group in comparison.groups
        ],
        "relations": [_relation_data(relation) for relation in comparison.relations],
        "matched": list(comparison.matched),
        "winner": comparison.winner,
        "notes": list(_notes(comparison)),
    }


def _relation_data(relation: Relation) -> dict[str, Any]:
    return {**asdict(relation), "better": relation.better, "verdict": relation.verdict}


def _groups_table(title: str, comparison: Comparison) -> Table:
    is_one_machine = len(machines(comparison.groups)) == 1
    names = [_HEADINGS.get(name, name) for name in FIGURES]
    rows = [
        (
            group.name,
            str(len(group.runs)),
            fmt(group.mean_bpb),
            fmt(group.sd_bpb),
            *(_cell(group, name) if name != "seconds" or is_one_machine else "-" for name in FIGURES),
            ", ".join(_AXES[axis] for axis, found in comparison.fronts.items() if group.name in found) or "-",
        )
        for group in comparison.groups
    ]
    matched = ", ".join(_AXES.get(name, _HEADINGS.get(name, name)) for name in comparison.matched) or "nothing"
    return Table(
        title=f"{title}; means over seeds; matched: {matched}",
        columns=("contender", "n", "bits/byte", "sd", *names, "Pareto front with"),
        rows=rows,
        right=frozenset(range(1, 4 + len(FIGURES))),
    )


def _cell(group: Group, name: str) -> str:
    value = group.mean(name)
    if value is None:
        return "-"
    match name:
        case "loss_nats":
            return fmt(value)
        case "token_accuracy":
            return f"{value:.2%}"
        case "flops":
            return f"{value:.3g}"
        case "seconds":
            return fmt(value, 1)
        case "peak_memory_bytes":
            return f"{value / 1e6:,.0f}"
    return f"{value:,.0f}"


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
    yield from comparison.problems
    if comparison.groups and not comparison.matched:
        yield "nothing is matched: the contenders spent and stored unlike amounts of everything, so there is no winner"
    if len(found := machines(comparison.groups)) > 1:
        yield f"seconds of unlike machines are not compared: {'; '.join(sorted(found))}"
    if few := [group.name for group in comparison.groups if len(group.runs) < MIN_SEEDS]:
        yield f"fewer than {MIN_SEEDS} seeds, which a difference between methods needs: {', '.join(few)}"
