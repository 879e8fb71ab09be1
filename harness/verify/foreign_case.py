"""One foreign record under examination, and how its rules speak."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from harness.records.submission import Reading, Submission
from harness.records.values import Value
from harness.verify.findings import Finding, FindingStatus, Severity
from harness.verify.rules import Rule
from harness.verify.settling import choose_claimed_runs, set_other_tables_apart


class ForeignCase:
    """A foreign record folder.

    Attributes:
        submission: what was read.
        name: its path as found.
        kind: its dialect.
        other_tables: lines of the README's tables that are about other runs.
        convicted: quantities (and stages, seeds) that a rule has found contradicted, so that no other rule
            convicts the same number for the same fault again.
    """

    def __init__(self, submission: Submission) -> None:
        choose_claimed_runs(submission)
        self.other_tables = set_other_tables_apart(submission)
        self.submission = submission
        self.name = submission.name
        self.kind = submission.format
        self.convicted: set[object] = set()

    def say(
        self,
        rule: Rule,
        status: FindingStatus,
        message: str,
        *evidence: Reading | Value,
        severity: Severity | None = None,
        path: str | None = None,
        line: int | None = None,
    ) -> Finding:
        """Make a finding; the last piece of evidence gives the place; `severity` overrides the rule's own."""
        values = [piece.as_value() if isinstance(piece, Reading) else piece for piece in evidence]
        finding = rule.finding(self.name, status, message, values=values, path=path, line=line)
        if severity is not None and finding.severity is not None and not rule.is_severity_fixed:
            finding = replace(finding, severity=severity)
        return replace(finding, fix="") if status == "unverifiable" else finding


def outcome(is_right: bool) -> FindingStatus:
    """Return the status of a check that either holds or does not."""
    return "pass" if is_right else "fail"


def show_number(reading: Reading) -> str:
    """Format a reading for a message: as printed where it was printed, else with separators."""
    if reading.quantity.endswith("_seconds"):
        return f"{reading.value:,.3f}".rstrip("0").rstrip(".") + " s"
    if reading.text:
        return reading.text
    return f"{reading.shown:,}" if isinstance(reading.shown, int) else f"{reading.shown:.9g}"


def list_words(words: Iterable[str]) -> str:
    """Join words for a message: "1, 2 and 3"."""
    known = list(words)
    return known[0] if len(known) == 1 else f"{', '.join(known[:-1])} and {known[-1]}" if known else ""
