"""Every value that was found in a record, with its origin, file and line: what the rules had to judge by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.errors import RecordError
from harness.records.discovery import ForeignFolder
from harness.records.submission import Reading
from harness.tables import Table, View
from harness.verify.agreement import list_values, show
from harness.verify.case import NativeCase
from harness.verify.run import Found

COLUMNS = ("quantity", "stage", "seed", "statistic", "origin", "value", "where")
Row = dict[str, str | int | float | None]


def explain_view(found: Found) -> View:
    """Return the values of some records as tables and as data, by record."""
    values = {case.name: list(_native_rows(case)) for case in found.native}
    values |= {record.folder.name: list(_foreign_rows(record)) for record in found.foreign}
    tables = [_table(name, rows) for name, rows in values.items()]
    return View(tables=tables, data=values)


def _table(name: str, rows: Sequence[Row]) -> Table:
    cells = [
        (
            *(str(row[key] or "") for key in ("quantity", "stage", "seed", "statistic", "origin")),
            str(row["text"]),
            f"{row['path']}{'' if row['line'] is None else ':' + str(row['line'])} {row['label']}",
        )
        for row in rows
    ]
    return Table(title=f"{name}: {len(rows)} values", columns=COLUMNS, rows=cells, right=frozenset({5}))


def _native_rows(case: NativeCase) -> Iterator[Row]:
    try:
        values = list(list_values(case))
    except RecordError:
        return
    for quantity, value in values:
        yield {
            "quantity": quantity,
            "stage": None,
            "seed": None,
            "statistic": "value",
            "origin": value.origin,
            "value": value.value,
            "text": show(value.value),
            "path": value.path,
            "line": value.line,
            "label": value.label,
        }


def _foreign_rows(record: ForeignFolder) -> Iterator[Row]:
    submission = record.format.read(record.folder)
    readings = [*submission.seeds, *submission.all_readings()]
    readings += [run.seed for run in (*submission.runs, *submission.earlier_runs) if run.seed is not None]
    for entry in submission.scripts:
        readings.append(
            Reading(
                quantity="bytes_code",
                value=float(entry.num_bytes),
                origin="measured",
                source="file",
                path=entry.path,
                label="size",
            )
        )
    yield from map(_foreign_row, readings)


def _foreign_row(reading: Reading) -> Row:
    stage = f"step {reading.step:,}" if reading.step is not None else reading.stage
    return {
        "quantity": reading.quantity,
        "stage": f"{stage} (of another run)" if reading.is_reference else stage or None,
        "seed": reading.seed,
        "statistic": reading.statistic,
        "origin": reading.origin,
        "value": reading.shown,
        "text": reading.text or show(reading.shown),
        "path": reading.path,
        "line": reading.line,
        "label": reading.label,
    }
