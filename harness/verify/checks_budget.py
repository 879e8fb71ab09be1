"""Static checks of the budget: what was asked for, what was spent, and whether the log's clock says the same."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from harness.errors import UsageError
from harness.records.logs import LOG_FILE
from harness.records.native import CONFIG_FILE, RECORD_FILE
from harness.records.schema import BudgetPart
from harness.records.values import Value
from harness.training.budget import parse_budget
from harness.verify.agreement import logged, show
from harness.verify.case import NativeCase, UnavailableError
from harness.verify.checks_run import stretched
from harness.verify.findings import Finding, FindingStatus
from harness.verify.rules import Rule

_ROUNDING_SECONDS = 0.01  # step lines have three decimals


def budget_is_kept(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """S3: fails when the budget is not the one asked for, means another amount, or too much was spent.

    A timed run whose last step began in time may still end late, since its export is slower than it was when it was
    timed: that is a note where the record states the overrun.
    """
    budget = case.record.budget
    line = case.lines.get("budget.text")
    if problem := _text_problem(case, budget) or _spent_problem(case, budget):
        yield rule.finding(case.name, "fail", problem, path=RECORD_FILE, line=line)
        return
    spent = _spent(case)
    over = float(spent.value) - budget.amount
    is_kept = over <= max(_step_cost(case, spent), min(rule.relative, budget.tolerance) * budget.amount)
    status: FindingStatus = "pass" if is_kept else "note" if _is_stated_and_began_in_time(case) else "fail"
    claim = case.claim("budget.amount", budget.amount)
    message = f"{spent.place} says {show(spent.value)} {budget.kind}, the budget is {show(budget.amount)}"
    if status == "note":
        took, reserved = _export_seconds(case)
        message += f"; the record says so, the export took {took:.3g} s of the {reserved:.3g} s kept for it"
    yield rule.finding(case.name, status, message, values=[claim, spent])


def _step_cost(case: NativeCase, spent: Value) -> float:
    """Return what one step costs in the budget's unit: no more than the mean, and than the record's own median."""
    budget = case.record.budget
    mean = float(spent.value) / max(1, budget.spent.steps)
    median_seconds = case.progress.median_step_seconds
    if budget.kind not in ("seconds", "gpu_seconds") or median_seconds is None:
        return mean
    return min(mean, median_seconds * _num_devices(case))


def _num_devices(case: NativeCase) -> int:
    return case.record.max_num_ranks if case.record.budget.kind == "gpu_seconds" else 1


def _is_stated_and_began_in_time(case: NativeCase) -> bool:
    """Whether the record states an overrun, and its log says that the last step began with room for it and the export.

    What the step and the export then took is on the machine; a step that began too late is on the run.
    """
    budget, steps = case.record.budget, case.log.steps
    _, reserved_seconds = _export_seconds(case)
    median_seconds = case.progress.median_step_seconds
    if budget.overrun is None or reserved_seconds is None or median_seconds is None or len(steps) < 2:
        return False
    began_seconds = steps[-2].seconds
    if began_seconds is None:
        return False
    planned = (began_seconds + median_seconds + reserved_seconds) * _num_devices(case)
    return planned <= budget.amount * (1 + budget.tolerance)


def _export_seconds(case: NativeCase) -> tuple[float | None, float | None]:
    """Return the seconds that the export took and those that were kept for it, as far as they are logged."""
    export = case.log.last("export")
    took, kept = (export.fields.get(key) if export else None for key in ("export_seconds", "reserved_seconds"))
    return (
        float(took) if isinstance(took, int | float) else None,
        float(kept) if isinstance(kept, int | float) else None,
    )


def _text_problem(case: NativeCase, budget: BudgetPart) -> str | None:
    """Say what is wrong with the wording of the budget: refused, asked otherwise, or another amount."""
    try:
        meant = parse_budget(budget.text)
    except UsageError as error:
        return f"budget.text: {error}"
    if (asked := case.config.get("budget")) != budget.text:
        return f"{RECORD_FILE} has the budget {budget.text}, {CONFIG_FILE} {asked!r:.60}"
    if meant.kind != budget.kind or not math.isclose(meant.amount, budget.amount, rel_tol=1e-9):
        is_amount = f"{meant.amount:,.9g} {meant.kind}, not {budget.amount:,.9g} {budget.kind}"
        return f"budget.text {budget.text} is {is_amount}"
    return None


def _spent_problem(case: NativeCase, budget: BudgetPart) -> str | None:
    """Say what is wrong with the spent amount: the record's overrun is another one, or the log's clock says more."""
    if budget.overrun is not None:
        over = max(0.0, getattr(budget.spent, budget.kind) - budget.amount)
        if not math.isclose(over, budget.overrun, rel_tol=1e-6, abs_tol=1e-6):
            return f"budget.overrun is {show(budget.overrun)}, spent minus amount {show(over)}"
    if budget.kind in ("seconds", "gpu_seconds"):
        return _logged_spent_problem(case, budget.kind, _ROUNDING_SECONDS)
    return None


def _logged_spent_problem(case: NativeCase, kind: str, slack_seconds: float) -> str | None:
    """Say where the spent time is not the log's: at the written file, or at its last step and the export together."""
    case.require(LOG_FILE)
    spent = float(getattr(case.record.budget.spent, kind))
    at_export = logged("export", kind, optional=True)(case)
    exported = spent if at_export is None or isinstance(at_export.value, str) else float(at_export.value)
    if at_export is not None and abs(exported - spent) > slack_seconds:
        return f"{at_export.place} has {show(at_export.value)} {kind} at the export, spent are {show(spent)}"
    steps, export_seconds = case.log.steps, case.time.export_seconds
    last_seconds = (steps[-1].seconds if steps else None) or 0.0
    if last_seconds + export_seconds > case.record.budget.spent.seconds + slack_seconds:
        where = f"the last step in {LOG_FILE} ends at {last_seconds:,.2f} s"
        return f"{where}, the export took {export_seconds:,.2f} s: more than the {spent:,.2f} {kind} spent"
    return None


def _spent(case: NativeCase) -> Value:
    """Return what was spent in the budget's unit: as the log ends where it says so, else from the record."""
    kind = case.record.budget.kind
    if kind not in ("steps", "tokens"):
        return case.claim(f"budget.spent.{kind}", getattr(case.record.budget.spent, kind))
    case.require(kind)
    value = logged("end", kind)(case)
    if value is None or isinstance(value.value, str):
        raise UnavailableError(f"{LOG_FILE} does not say how many {kind} were spent")
    return value


def clock_holds_stages(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """T2: fails when the spent seconds are not those of their stages or of the log, or exceed the wall clock."""
    case.require("spent")
    case.require("wall")
    spent_seconds = case.record.budget.spent.seconds
    claim = case.claim("budget.spent.seconds", spent_seconds)
    problem = _stages_problem(case, rule) or _log_clock_problem(case, rule)
    status: FindingStatus = "fail" if problem else "pass"
    yield rule.finding(case.name, status, problem or f"{spent_seconds:,.1f} s were spent", values=[claim])


def _stages_problem(case: NativeCase, rule: Rule) -> str | None:
    time, spent_seconds = case.time, case.record.budget.spent.seconds
    stages_seconds = time.train_seconds + time.compression_seconds + time.export_seconds
    if stages_seconds > stretched(spent_seconds, rule) or spent_seconds > stretched(stages_seconds, rule):
        return f"train, compression and export take {stages_seconds:,.1f} s, spent are {spent_seconds:,.1f} s"
    if spent_seconds > stretched(time.wall_seconds, rule):
        return f"spent are {spent_seconds:,.1f} s, the wall clock shows {time.wall_seconds:,.1f} s"
    return None


def _log_clock_problem(case: NativeCase, rule: Rule) -> str | None:
    """Say where the log's clock runs backwards or is not that of the record; a log that is not trusted says nothing."""
    try:
        case.require(LOG_FILE)
        steps = case.log.steps
    except UnavailableError:
        return None
    for before, after in pairwise(steps):
        if before.seconds is not None and after.seconds is not None and after.seconds < before.seconds:
            return (
                f"{LOG_FILE}:{after.line} has {after.seconds:g} s after {before.seconds:g} s: its clock runs backwards"
            )
    slack_seconds = stretched(case.record.budget.spent.seconds, rule) - case.record.budget.spent.seconds
    return _logged_spent_problem(case, "seconds", slack_seconds)
