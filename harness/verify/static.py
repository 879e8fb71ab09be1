"""Level static: which check belongs to which rule, and how one record is taken through them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from harness.records.native import RECORD_FILE
from harness.verify import checks_budget, checks_data, checks_files, checks_run, checks_steps
from harness.verify.agreement import values_agree
from harness.verify.case import NativeCase, UnavailableError
from harness.verify.findings import Finding, InternalError
from harness.verify.rules import Rule

Check = Callable[[NativeCase, Rule], Iterable[Finding]]

CHECKS: Mapping[str, Check] = {
    "F1": checks_files.record_is_readable,
    "F2": checks_files.record_fits_schema,
    "F3": checks_files.run_is_complete,
    "F4": checks_files.files_are_present,
    "F5": checks_files.file_hashes_match,
    "F6": checks_files.evidence_is_readable,
    "F7": checks_files.content_is_known,
    "B1": values_agree,
    "B2": values_agree,
    "B3": checks_run.parts_add_up,
    "B4": checks_run.cap_is_respected,
    "M1": values_agree,
    "M2": values_agree,
    "M3": values_agree,
    "M4": values_agree,
    "M5": checks_data.tune_metrics_hold,
    "M6": values_agree,
    "M7": checks_data.source_is_not_beaten,
    "M8": checks_data.ways_beside_hold,
    "S1": checks_steps.steps_agree,
    "S2": checks_steps.tokens_agree,
    "S3": checks_budget.budget_is_kept,
    "S4": values_agree,
    "S6": checks_steps.schedule_is_followed,
    "T1": checks_run.time_adds_up,
    "T2": checks_budget.clock_holds_stages,
    "T3": checks_run.machine_was_free,
    "E1": values_agree,
    "E2": checks_data.settings_match,
    "D1": checks_data.split_is_covered,
    "D2": checks_data.test_is_opened_once,
    "D3": checks_data.encoding_is_stated,
}

# What a failure of these rules makes useless as evidence for the rules after them.
BLOCKED_BY_FILE = frozenset({"F1", "F2", "F4", "F5", "F6"})
BLOCKED_QUANTITY: Mapping[str, str] = {
    "M1": "totals",
    "B3": "parts",
    "S1": "steps",
    "S2": "tokens",
    "S3": "spent",
    "T1": "wall",
    "A1": "decoding",
    "V1": "data",
}
COMPLETENESS_RULE = "F3"


class Examiner:
    """Runs checks; one that raises is a fault of ours: it is kept with its traceback and the next goes on."""

    def __init__(self) -> None:
        self.errors: list[InternalError] = []

    def run(self, record: str, rule: Rule, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
        """Return the findings of one check; missing evidence makes it unverifiable."""
        try:
            return list(check())
        except UnavailableError as gap:
            return [rule.gap(record, str(gap))]
        except Exception as error:
            return [rule.gap(record, self.keep_error(record, rule, error))]

    def keep_error(self, record: str, rule: Rule, error: Exception) -> str:
        """Keep an error that is being handled; returns it in words."""
        message = f"internal error in {rule.id}: {type(error).__name__}: {error}"
        self.errors.append(
            InternalError(record=record, rule=rule.id, message=message, traceback=traceback.format_exc())
        )
        return message


def examine(
    case: NativeCase, rules: Sequence[Rule], checks: Mapping[str, Check], examiner: Examiner
) -> Iterator[Finding]:
    """Take one record through checks, in the order of the rules.

    A record that cannot be read makes the other rules unverifiable; a run that is not complete ends it.
    """
    for rule in rules:
        if rule.id not in checks:
            continue
        findings = examiner.run(case.name, rule, partial(checks[rule.id], case, rule))
        yield from findings
        _note_failures(case, findings)
        if rule.id == COMPLETENESS_RULE and RECORD_FILE not in case.blocked and not case.is_complete:
            return


def _note_failures(case: NativeCase, findings: Iterable[Finding]) -> None:
    for finding in findings:
        if finding.status != "fail":
            continue
        case.failed_rules.add(finding.rule)
        if finding.rule in BLOCKED_BY_FILE and finding.path is not None:
            case.block(finding.path, finding.rule)
        if finding.rule in BLOCKED_QUANTITY:
            case.block(BLOCKED_QUANTITY[finding.rule], finding.rule)
