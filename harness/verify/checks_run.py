"""Static checks of the run: bytes against parts and caps, steps, budget, times."""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.errors import UsageError
from harness.records.caps import charges
from harness.records.logs import LOG_FILE
from harness.records.native import ARTIFACT_FILE, CONFIG_FILE, RECORD_FILE
from harness.records.safeio import file_bytes
from harness.records.schema import BudgetPart
from harness.records.values import Value
from harness.training.budget import parse_budget
from harness.verify.agreement import (
    logged,
    show,
    values_agree,
)
from harness.verify.case import NativeCase, UnavailableError
from harness.verify.findings import Finding, FindingStatus
from harness.verify.rules import Rule


def parts_add_up(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """B3: fails when the parts of the artifact do not add up to the size of the file."""
    case.require(ARTIFACT_FILE)
    claim = case.claim("artifact.parts", sum(case.artifact_part.parts.values()))
    fact = Value(origin="measured", value=file_bytes(case.folder, ARTIFACT_FILE), path=ARTIFACT_FILE)
    status: FindingStatus = "pass" if claim.value == fact.value else "fail"
    message = f"the parts add up to {show(claim.value)} bytes, the file has {show(fact.value)}"
    yield rule.finding(case.name, status, message, values=[claim, fact])


def cap_is_respected(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """B4: fails when the file, with its code where the rules count it, has more bytes than its cap."""
    if not charges(case.artifact_part):
        yield rule.finding(case.name, "pass", "no cap was set")
        return
    case.require(ARTIFACT_FILE)
    size_bytes = file_bytes(case.folder, ARTIFACT_FILE)
    for charge in charges(case.artifact_part.model_copy(update={"artifact_bytes": size_bytes})):
        values = [
            case.claim(charge.key, charge.cap_bytes),
            Value(origin="measured", value=charge.charged_bytes, path=ARTIFACT_FILE),
        ]
        message = f"{charge.charged_bytes:,} bytes are charged ({charge.what}), the cap is {charge.cap_bytes:,}"
        yield rule.finding(case.name, "pass" if charge.is_kept else "fail", message, values=values)


def steps_agree(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """S1: fails when record and log disagree on the steps, or the log has a step beyond them."""
    findings = list(values_agree(case, rule))
    yield from findings
    if findings[0].status != "pass":
        return
    last = max((entry.step for entry in case.log.steps), default=0)
    claim = case.claim("progress.steps", case.progress.steps)
    if last > case.progress.steps:
        line = next(entry.line for entry in case.log.steps if entry.step == last)
        fact = Value(origin="logged", value=last, path=LOG_FILE, line=line)
        message = f"{fact.place} is step {last:,}, {claim.place} ends at {show(claim.value)}"
        yield rule.finding(case.name, "fail", message, values=[claim, fact])


def budget_is_kept(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """S3: fails when the budget is not the one asked for, means another amount, or too much was spent."""
    budget = case.record.budget
    line = case.lines.get("budget.text")
    if problem := _text_problem(case, budget):
        yield rule.finding(case.name, "fail", problem, path=RECORD_FILE, line=line)
        return
    spent = _spent(case)
    allowed = budget.amount + max(_step_cost(case, spent), min(rule.relative, budget.tolerance) * budget.amount)
    status: FindingStatus = "pass" if float(spent.value) <= allowed else "fail"
    claim = case.claim("budget.amount", budget.amount)
    message = f"{spent.place} says {show(spent.value)} {budget.kind}, the budget is {show(budget.amount)}"
    yield rule.finding(case.name, status, message, values=[claim, spent])


def _step_cost(case: NativeCase, spent: Value) -> float:
    """Return what the last step cost, in the budget's unit: its own seconds where they are logged, else the mean."""
    budget, steps = case.record.budget, case.log.steps
    mean = float(spent.value) / max(1, budget.spent.steps)
    if budget.kind not in ("seconds", "gpu_seconds") or len(steps) < 2:
        return mean
    before, last = steps[-2].seconds, steps[-1].seconds
    if before is None or last is None:
        return mean
    num_devices = case.record.max_num_ranks if budget.kind == "gpu_seconds" else 1
    return max(mean, (last - before) * num_devices)


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


def time_adds_up(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """T1: fails when the parts exceed the wall-clock time; notes much time that no part explains."""
    time = case.time
    parts_seconds = math.fsum(
        getattr(time, f"{name}_seconds")
        for name in ("train", "compression", "validation", "compilation", "export", "data")
    )
    wall_seconds, num_ranks = time.wall_seconds, case.record.max_num_ranks
    claim = case.claim("time.wall_seconds", wall_seconds)
    fact = Value(origin="measured", value=parts_seconds, path=RECORD_FILE, line=claim.line, label="sum of parts")
    status: FindingStatus = "pass"
    message = f"the parts take {parts_seconds:,.1f} s of {wall_seconds:,.1f} s"
    if parts_seconds > _stretched(wall_seconds, rule):
        status = "fail"
    elif time.device_seconds > _stretched(wall_seconds * num_ranks, rule):
        status = "fail"
        message = f"{time.device_seconds:,.1f} device seconds do not fit into {num_ranks} x {wall_seconds:,.1f} s"
    elif wall_seconds - parts_seconds > max(
        rule.limits["unexplained_seconds"], rule.limits["unexplained_fraction"] * wall_seconds
    ):
        status = "note"
    yield rule.finding(case.name, status, message, values=[claim, fact])


def _stretched(seconds: float, rule: Rule) -> float:
    return seconds * (1 + rule.relative) + rule.absolute


def clock_holds_stages(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """T2: fails when the spent seconds do not hold their stages, or exceed the wall clock."""
    case.require("spent")
    case.require("wall")
    time, spent_seconds = case.time, case.record.budget.spent.seconds
    stages_seconds = time.train_seconds + time.compression_seconds + time.export_seconds
    claim = case.claim("budget.spent.seconds", spent_seconds)
    if stages_seconds > _stretched(spent_seconds, rule):
        message = f"train, compression and export take {stages_seconds:,.1f} s, spent are {spent_seconds:,.1f} s"
        yield rule.finding(case.name, "fail", message, values=[claim])
    elif spent_seconds > _stretched(time.wall_seconds, rule):
        message = f"spent are {spent_seconds:,.1f} s, the wall clock shows {time.wall_seconds:,.1f} s"
        yield rule.finding(case.name, "fail", message, values=[claim])
    else:
        yield rule.finding(case.name, "pass", f"{spent_seconds:,.1f} s were spent", values=[claim])


def machine_was_free(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """T3: notes a record whose times were taken on a machine that did other work."""
    is_contended = case.record.contended
    message = "the machine did other work: seconds of this record are upper bounds" if is_contended else "no contention"
    line = case.lines.get("contended")
    yield rule.finding(case.name, "note" if is_contended else "pass", message, path=RECORD_FILE, line=line)
