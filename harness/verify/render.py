"""A report as text: one row a record, then a line for each finding, then the count of those lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from typing import TYPE_CHECKING

from harness.records.values import Scalar
from harness.tables import Table, clean
from harness.verify.agreement import show
from harness.verify.findings import Finding, InternalError, RecordRow, Report

if TYPE_CHECKING:
    from rich.console import Console

MAX_TEXT_CHARACTERS = 400
_ORDER = ("fail", "unverifiable", "note", "pass")


def safe(text: object) -> str:
    """Make a stranger's text safe for a terminal, on one line and not endless."""
    shown = clean(text)
    left = len(shown) - MAX_TEXT_CHARACTERS
    return shown if left <= 0 else f"{shown[:MAX_TEXT_CHARACTERS]}... ({left} characters more)"


def records_table(report: Report) -> Table:
    """Return one row a record: verdict, the headline as claimed, logged and measured, counts of findings."""
    columns = ("record", "verdict", "claimed", "logged", "measured", "fail", "unver.", "note")
    rows = [_row(report, row) for row in report.rows]
    title = f"verify, level {report.level}, rules {report.rules_version}; headline: val_bpb"
    return Table(title=title, columns=columns, rows=rows, right=frozenset(range(2, 8)))


def _row(report: Report, row: RecordRow) -> list[str]:
    findings = report.of_record(row.record)
    headline = report.headline(findings)
    numbers = [headline.claimed, headline.logged, headline.measured] if headline else [None] * 3
    counts = [sum(finding.status == status for finding in findings) for status in _ORDER[:3]]
    partial = " PARTIAL" if row.is_partial else ""
    return [
        safe(row.record),
        report.verdict(findings).upper() + partial,
        *(_number(number) for number in numbers),
        *(str(count) for count in counts),
    ]


def _number(value: Scalar | None) -> str:
    if value is None:
        return "-"
    return f"{value:.5f}" if isinstance(value, float) else safe(show(value))


def finding_line(finding: Finding, title: str) -> str:
    """Return a finding as a line: `FAIL B1 artifact bytes | record | claimed 1, measured 2 (file) | ...`."""
    head = (f"{finding.status.upper()} {finding.rule} {title}", finding.record)
    return " | ".join([*map(safe, head), *describe(finding, with_evidence=finding.status == "fail")])


def describe(finding: Finding, *, with_evidence: bool = True) -> list[str]:
    """Return what a finding says in up to three safe texts: evidence (`claimed 1 (file:2)`), message, fix."""
    evidence = _evidence(finding) if with_evidence else ""
    texts = (evidence, finding.message, f"fix: {finding.fix}" if finding.fix else "")
    return [safe(text) for text in texts if text]


def _evidence(finding: Finding) -> str:
    values = {"claimed": finding.claimed, "logged": finding.logged, "measured": finding.measured}
    numbers = ", ".join(f"{origin} {show(value)}" for origin, value in values.items() if value is not None)
    line = f":{finding.line}" if finding.line is not None else ""
    place = f" ({finding.path}{line})" if finding.path is not None else ""
    return f"{numbers}{place}".strip()


def record_names(report: Report) -> list[str]:
    """Return the names of all that a report speaks of: its records, then folders with a finding only."""
    items: list[RecordRow | Finding | InternalError] = [*report.rows, *report.findings, *report.internal_errors]
    return list(dict.fromkeys(item.record for item in items))


def listed_findings(report: Report, record: str, *, with_passes: bool) -> list[Finding]:
    """Return the findings of a record that are listed, failures first."""
    findings = sorted(report.of_record(record), key=lambda finding: _ORDER.index(finding.status))
    return [finding for finding in findings if with_passes or finding.status != "pass"]


def ordinals(keys: Iterable[Hashable]) -> list[int]:
    """Number equal keys from 1, each kind for itself."""
    counts: Counter[Hashable] = Counter()
    numbers = []
    for key in keys:
        counts[key] += 1
        numbers.append(counts[key])
    return numbers


def report_lines(report: Report, *, with_passes: bool = False) -> Iterator[str]:
    """Yield the changed rules, the findings by record (failures first) and the summary.

    Args:
        report: the report.
        with_passes: whether to list what passed; it is counted in any case.
    """
    for change in report.rule_changes:
        yield safe(f"rules changed: {change}")
    for name in dict.fromkeys(finding.record for finding in report.findings):
        findings = listed_findings(report, name, with_passes=with_passes)
        yield from (finding_line(finding, report.rules[finding.rule].title) for finding in findings)
    yield from (safe(f"{error.message} | {error.record}") for error in report.internal_errors)
    yield summary_line(report, with_passes=with_passes)


def summary_line(report: Report, *, with_passes: bool = False) -> str:
    """Return the counts of records by verdict and of findings by status, in one line."""
    counts = report.summary()
    records = ", ".join(f"{counts[f'records_{verdict}']} {verdict}" for verdict in ("pass", "fail", "unverifiable"))
    severity = f"{counts['fail_major']} major, {counts['fail_minor']} minor"
    unlisted = "" if with_passes else " (not listed)"
    broken = f", {counts['internal_errors']} internal errors" if counts["internal_errors"] else ""
    strict = "; strict: what is unverifiable fails" if report.is_strict else ""
    plural = "" if counts["records"] == 1 else "s"
    return (
        f"{counts['records']} record{plural}: {records}. Findings: {counts['fail']} fail ({severity}), "
        f"{counts['unverifiable']} unverifiable, {counts['note']} note, {counts['pass']} pass{unlisted}"
        f"{broken}{strict}."
    )


def print_text(report: Report, console: Console, *, with_passes: bool = False) -> None:
    """Print a report; no text of a record acts as markup or reaches the terminal as a control sequence."""
    records_table(report).print_to(console)
    for line in report_lines(report, with_passes=with_passes):
        console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)


def to_json(report: Report, command: str) -> str:
    """Return the JSON document of a report as text."""
    return json.dumps(report.document(command), indent=2, allow_nan=False)
