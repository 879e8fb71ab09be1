"""What `harness diff` says: the fields in which two records differ, and a paired test over blocks of the test text."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import RecordError, UsageError
from harness.record_views import Found, read_records
from harness.tables import Table, View, fmt

if TYPE_CHECKING:
    from harness.stats import PairedDifference

# They differ between any two runs and say nothing of what was run.
SKIPPED_FIELDS = ("files", "created_utc", "data.test_openings", "artifact.sha256", "name")


def diff_view(first: Path, second: Path) -> View:
    """Say where two records differ: settings, costs and scores, and the paired difference of the scores.

    Raises:
        UsageError: a path does not hold exactly one record.
        RecordError: a record cannot be read.
    """
    a, b = _read_one(first), _read_one(second)
    fields = _changed_fields(a.record.to_json(), b.record.to_json())
    rows = [tuple(_cell(entry, key) for key in ("field", "a", "b", "delta")) for entry in fields]
    changes = Table(title=f"A = {a.folder}, B = {b.folder}", columns=("field", "A", "B", "B - A"), rows=rows)
    try:
        result = _compare(a, b)
    except (UsageError, RecordError) as error:
        paired, data = _paired_table(("not made",), [str(error)]), {"not_made": str(error)}
    else:
        paired, data = _result_table(result), asdict(result)
    document = {"a": str(a.folder), "b": str(b.folder), "fields": fields, "paired": data}
    return View(tables=[changes, paired], data=document)


def _read_one(path: Path) -> Found:
    found = read_records([path])
    if len(found) != 1:
        raise UsageError(f"{path} holds {len(found)} records, harness diff compares two; name the folder of one")
    return found[0]


def _changed_fields(a: object, b: object) -> list[dict[str, Any]]:
    flat_a, flat_b = _flatten(a), _flatten(b)
    return [
        {
            "field": key,
            "a": flat_a.get(key),
            "b": flat_b.get(key),
            "delta": _delta(flat_a.get(key), flat_b.get(key)),
        }
        for key in flat_a | flat_b
        if flat_a.get(key) != flat_b.get(key) and not key.startswith(SKIPPED_FIELDS)
    ]


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        flat: dict[str, Any] = {}
        for key, child in value.items():
            flat |= _flatten(child, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: value}


def _delta(a: object, b: object) -> float | int | None:
    if isinstance(a, bool) or isinstance(b, bool) or not isinstance(a, int | float) or not isinstance(b, int | float):
        return None
    return b - a


def _cell(entry: dict[str, Any], key: str) -> str:
    value, sign = entry[key], "+" if key == "delta" else ""
    if value is None:
        return "" if sign else "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        text, is_hash = str(value), entry["field"].endswith("sha256")
        return f"{text[:12]}..." if key in ("a", "b") and is_hash else text
    return f"{value:{sign},}" if isinstance(value, int) else f"{value:{sign}.7g}"


def _compare(a: Found, b: Found) -> PairedDifference:
    """Compare the scores block by block, or raise what is in the way."""
    from harness.records.scores import read_scores
    from harness.stats import compare_blocks

    test_a, test_b = a.record.metrics.test, b.record.metrics.test
    data_a, data_b = a.record.data, b.record.data
    if test_a is None or test_b is None:
        raise UsageError("a record without test scores cannot be paired")
    if test_a.eval_mode != test_b.eval_mode:
        raise UsageError("the eval modes differ, so the scores are not comparable")
    if data_a.splits.test.num_bytes != data_b.splits.test.num_bytes or data_a.corpus_sha256 != data_b.corpus_sha256:
        raise UsageError("the test texts differ, so the scores are not comparable")
    scores_a, scores_b = read_scores(a.folder), read_scores(b.folder)
    return compare_blocks(scores_a.block_nats, scores_a.block_bytes, scores_b.block_nats, scores_b.block_bytes)


def _result_table(result: PairedDifference) -> Table:
    row = [
        fmt(result.num_blocks),
        f"{result.difference:+.5f}",
        f"{result.standard_error:.5f}",
        f"{result.low:+.5f} to {result.high:+.5f}",
        f"{result.p_value:.2g}",
    ]
    return _paired_table(("blocks", "B - A [bits/byte]", "standard error", "95% interval", "p"), row)


def _paired_table(columns: tuple[str, ...], row: list[str]) -> Table:
    title = "paired test over blocks of the test text (text sampling only; seeds add their own spread)"
    right = frozenset(range(len(columns))) if len(columns) > 1 else frozenset()
    return Table(title=title, columns=columns, rows=[row], right=right)
