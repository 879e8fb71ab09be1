"""A report as GitHub Markdown, for a pull request's comment or the summary of a job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from harness.tables import clean_markdown
from harness.verify.findings import Finding, Report
from harness.verify.render import describe, listed_findings, record_names, records_table, safe, summary_line


def to_markdown(report: Report, *, with_passes: bool = False) -> str:
    """Return a heading, a row for each record, a section for each that has something to say, and the counts.

    Args:
        report: the report.
        with_passes: whether to list what passed; it is counted in any case.
    """
    table = replace(records_table(report), title="headline: val_bpb").to_markdown()
    blocks = [
        clean_markdown(f"## harness verify: level {report.level}, rules {report.rules_version}"),
        *_listing("rules changed", (_escape(f"rule {change}") for change in report.rule_changes)),
        table.strip(),
        *_sections(report, with_passes),
        *_listing(
            "internal errors", (_escape(f"{error.message} | {error.record}") for error in report.internal_errors)
        ),
        clean_markdown(summary_line(report, with_passes=with_passes)),
    ]
    return "\n\n".join(blocks) + "\n"


def _escape(text: object) -> str:
    return clean_markdown(safe(text))


def _sections(report: Report, with_passes: bool) -> Iterator[str]:
    for name in record_names(report):
        findings = listed_findings(report, name, with_passes=with_passes)
        yield from _listing(_escape(name), (_item(finding, report) for finding in findings))


def _item(finding: Finding, report: Report) -> str:
    title = report.rules[finding.rule].title
    severity = f" ({finding.severity})" if finding.severity else ""
    said = "; ".join(clean_markdown(text) for text in describe(finding))
    return f"**{finding.status.upper()}** {_escape(f'{finding.rule} {title}')}{severity}: {said}"


def _listing(heading: str, items: Iterator[str]) -> Iterator[str]:
    lines = [f"- {item}" for item in items]
    if lines:
        yield "\n".join([f"### {heading}", "", *lines])
