"""Findings: what a rule says of a record, as data; and the report that all findings of one command make."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal, Protocol, cast, get_args

from harness.records.safeio import JSON
from harness.records.values import Scalar

FINDINGS_SCHEMA_VERSION = 1

FindingStatus = Literal["pass", "fail", "unverifiable", "note"]
Severity = Literal["major", "minor"]
Family = Literal["files", "bytes", "params", "metrics", "steps", "time", "seeds", "stats", "data"]
Level = Literal["static", "decode", "evaluate", "retrain"]
LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one rule says of one record.

    Attributes:
        record: path of the record folder as found.
        rule: id of the rule.
        family: what the rule is about.
        status: "pass", "fail", "unverifiable" (the evidence is not there) or "note" (unusual, no fault).
        severity: of a failure: "major" changes the headline, the cap or the run's identity, else "minor".
        claimed: what the summary says.
        logged: what the log says.
        measured: what was read off a file or recomputed.
        path: file of the record that holds the evidence.
        line: line of that file, from 1.
        message: what was found, in one sentence.
        fix: what the author of the record can do; empty for "pass".
    """

    record: str
    rule: str
    family: Family
    status: FindingStatus
    severity: Severity | None = None
    claimed: Scalar | None = None
    logged: Scalar | None = None
    measured: Scalar | None = None
    path: str | None = None
    line: int | None = None
    message: str
    fix: str = ""

    def to_json(self) -> dict[str, JSON]:
        """Return the finding as plain JSON; a number that JSON cannot hold becomes a word."""
        return {
            key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class InternalError:
    """A check that raised: a fault of this program, never of the record."""

    record: str
    rule: str
    message: str
    traceback: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordRow:
    """One record of a report, for a row of its table.

    Attributes:
        record: path of the folder as found.
        kind: format of the folder, "native" for this program's own.
        name: what the record calls itself.
        method: name of its method.
        seed: its seed.
        is_partial: whether the score covers only a part of the split; None where unknown.
    """

    record: str
    kind: str = "native"
    name: str = ""
    method: str = ""
    seed: int | None = None
    is_partial: bool | None = None


class RuleText(Protocol):
    """What a report says of a rule; `harness.verify.rules.Rule` is one."""

    @property
    def title(self) -> str:
        """A few words."""

    @property
    def family(self) -> Family:
        """What it is about."""

    @property
    def severity(self) -> Severity:
        """How grave a failure is."""

    @property
    def text(self) -> str:
        """What must hold, in a sentence."""

    @property
    def fix(self) -> str:
        """What the author of a failing record can do."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All findings of one command.

    Attributes:
        level: how deep was looked.
        rules_version: version of the rules, with a mark of the user's changes.
        rule_changes: what the user's own rules file changed, one line each.
        rules: texts of each rule by id.
        headline_rules: the rules whose three numbers are a record's headline; the first that speaks counts.
        rows: one per record, in the order found.
        findings: grouped by record, in the order of `rows`.
        internal_errors: checks that raised.
        is_strict: whether what cannot be verified counts as a failure.
    """

    level: Level
    rules_version: str
    rule_changes: Sequence[str] = ()
    rules: Mapping[str, RuleText]
    headline_rules: Sequence[str]
    rows: Sequence[RecordRow]
    findings: Sequence[Finding]
    internal_errors: Sequence[InternalError] = ()
    is_strict: bool = False

    @cached_property
    def _by_record(self) -> Mapping[str, Sequence[Finding]]:
        groups: dict[str, list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault(finding.record, []).append(finding)
        return groups

    def of_record(self, record: str) -> Sequence[Finding]:
        """Return the findings of one record."""
        return self._by_record.get(record, ())

    def verdict(self, findings: Sequence[Finding]) -> FindingStatus:
        """Return the verdict over some findings: fail before unverifiable before pass; notes do not count."""
        statuses = {finding.status for finding in findings}
        if "fail" in statuses or (self.is_strict and "unverifiable" in statuses):
            return "fail"
        return "unverifiable" if "unverifiable" in statuses else "pass"

    def headline(self, findings: Sequence[Finding]) -> Finding | None:
        """Return the finding that carries the headline number as claimed, logged and measured."""
        return next((finding for finding in findings if finding.rule in self.headline_rules), None)

    def summary(self) -> dict[str, int]:
        """Count records by verdict, findings by status and failures by severity."""
        verdicts = Counter(self.verdict(self.of_record(row.record)) for row in self.rows)
        statuses = Counter(finding.status for finding in self.findings)
        severities = Counter(finding.severity for finding in self.findings if finding.status == "fail")
        return {
            "records": len(self.rows),
            "records_pass": verdicts["pass"],
            "records_fail": verdicts["fail"],
            "records_unverifiable": verdicts["unverifiable"],
            **{status: statuses[status] for status in get_args(FindingStatus)},
            **{f"fail_{severity}": severities[severity] for severity in get_args(Severity)},
            "internal_errors": len(self.internal_errors),
        }

    @property
    def exit_code(self) -> int:
        """0 nothing failed, 1 a record failed (if strict: or is unverifiable), 3 a check of ours broke."""
        if self.internal_errors:
            return 3
        return int(self.verdict(self.findings) == "fail")

    def document(self, command: str, *, with_passes: bool = True) -> dict[str, JSON]:
        """Return the report as one JSON document.

        Args:
            command: the command line that made it.
            with_passes: whether to list the findings that passed; they are counted in any case.
        """
        return {
            "schema": FINDINGS_SCHEMA_VERSION,
            "command": command,
            "level": self.level,
            "strict": self.is_strict,
            "rules_version": self.rules_version,
            "rule_changes": list(self.rule_changes),
            "summary": cast("dict[str, JSON]", self.summary()),
            "records": [self._row_to_json(row) for row in self.rows],
            "findings": [each.to_json() for each in self.findings if with_passes or each.status != "pass"],
            "internal_errors": [asdict(error) for error in self.internal_errors],
        }

    def _row_to_json(self, row: RecordRow) -> dict[str, JSON]:
        findings = self.of_record(row.record)
        headline = self.headline(findings)
        counts = Counter(finding.status for finding in findings)
        numbers = headline.to_json() if headline else {}
        return {
            **asdict(row),
            "verdict": self.verdict(findings),
            "val_bpb": {origin: numbers.get(origin) for origin in ("claimed", "logged", "measured")},
            "counts": {status: counts[status] for status in get_args(FindingStatus)},
        }
