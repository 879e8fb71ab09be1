"""Static checks of the log's steps: none missing, tokens as the batches give them, rates as the recipe says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from harness.records.logs import LOG_FILE, LogStep
from harness.records.safeio import JSON
from harness.records.values import Value
from harness.training.phases import Phases
from harness.training.schedule import Curve
from harness.verify.agreement import show, values_agree
from harness.verify.case import NativeCase
from harness.verify.findings import Finding
from harness.verify.rules import Rule

_CURVES: Mapping[str, str] = {"lr_scale": "lr_curve", "momentum": "momentum_curve"}


def steps_agree(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """S1: fails when record and log disagree on the steps, or the log misses one or has one beyond them.

    A resumed log has each step once, too: it is cut back to the checkpoint.
    """
    findings = list(values_agree(case, rule))
    yield from findings
    if findings[0].status != "pass" or LOG_FILE in case.blocked:
        return
    claim = case.claim("progress.steps", case.progress.steps)
    for expected, entry in enumerate(case.log.steps, 1):
        if entry.step != expected or entry.step > case.progress.steps:
            fact = Value(origin="logged", value=entry.step, path=LOG_FILE, line=entry.line)
            message = f"{fact.place} is step {entry.step:,} where step {expected:,} of {show(claim.value)} belongs"
            yield rule.finding(case.name, "fail", message, values=[claim, fact])
            return
    if len(case.log.steps) != case.progress.steps:
        message = f"{LOG_FILE} has {len(case.log.steps):,} steps, {claim.place} {show(claim.value)}"
        yield rule.finding(case.name, "fail", message, values=[claim], path=LOG_FILE)


def tokens_agree(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """S2: fails when record and log disagree on tokens, or tokens, epochs or operations are not those of the steps."""
    findings = list(values_agree(case, rule))
    yield from findings
    if findings[0].status == "pass" and (problem := _token_problem(case) or _progress_problem(case)):
        yield rule.finding(case.name, "fail", problem, path=LOG_FILE)


def _token_problem(case: NativeCase) -> str | None:
    batch_tokens = case.record.settings.train.get("batch_tokens")
    if not isinstance(batch_tokens, int) or {LOG_FILE, "steps"} & case.blocked.keys():
        return None
    for entry in case.log.steps:
        if entry.tokens is not None and entry.tokens != entry.step * batch_tokens:
            return f"{LOG_FILE}:{entry.line} has {entry.tokens:,.0f} tokens after {entry.step:,} x {batch_tokens:,}"
    if case.progress.tokens != case.progress.steps * batch_tokens:
        return f"progress.tokens is {case.progress.tokens:,}, {case.progress.steps:,} steps have {batch_tokens:,} each"
    return None


def _progress_problem(case: NativeCase) -> str | None:
    progress, train, spent = case.progress, case.record.data.splits.train, case.record.budget.spent
    epochs = progress.tokens / max(1, train.num_tokens)
    if not math.isclose(progress.epochs, epochs, rel_tol=1e-6):
        return f"progress.epochs is {show(progress.epochs)}, {progress.tokens:,} / {train.num_tokens:,} is {epochs:.9g}"
    flops = (progress.flops_per_step or 0.0) * progress.steps
    is_known = progress.flops_per_step is not None and "steps" not in case.blocked
    if is_known and not math.isclose(spent.flops, flops, rel_tol=1e-6):
        return f"budget.spent.flops is {show(spent.flops)}, the steps take {show(flops)}"
    return None


def schedule_is_followed(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """S6: fails at the first step whose learning rate or momentum is not that of the recipe's curve or phase.

    Replay and distillation have constant rates of their own, from the step that their positions name.
    Under a timed budget the curves follow the machine's clock, so the log is the only witness.
    """
    case.require(LOG_FILE)
    case.require("steps")
    case.require("spent")
    curves = _curves(case.record.settings.train)
    fits = _fits(case)
    for begin, total_steps in fits if curves else ():
        phases = _phases(case.record.settings.train)
        steps = [entry for entry in case.log.steps if begin < entry.step <= begin + total_steps]
        for entry in steps:
            phases.advance(entry.step - begin - 1, total_steps)
            if problem := _schedule_problem(curves, phases, entry, entry.step - begin - 1, total_steps):
                yield rule.finding(case.name, "fail", problem, path=LOG_FILE, line=entry.line)
                return
    followed = curves and fits
    message = "every step follows the curves of the recipe" if followed else "no curve to hold the steps against"
    yield rule.finding(case.name, "pass", message, path=LOG_FILE)


def _curves(train: Mapping[str, JSON]) -> dict[str, Curve]:
    found = {}
    for key, name in _CURVES.items():
        try:
            found[key] = Curve.model_validate(train[name])
        except (KeyError, ValueError):  # a lone surrogate is no ValidationError
            continue
    return found


def _phases(train: Mapping[str, JSON]) -> Phases:
    try:
        return Phases(train)
    except (KeyError, TypeError, ValueError):
        return Phases({})


def _fits(case: NativeCase) -> Sequence[tuple[int, int]]:
    """List the step before each fit and its steps: as logged where there are several, else the whole step budget."""
    budget = case.record.budget
    if budget.kind in ("seconds", "gpu_seconds"):
        return ()
    logged = [
        (entry.fields.get("step"), entry.fields.get("steps")) for entry in case.log.events if entry.event == "fit"
    ]
    known = [(begin, steps) for begin, steps in logged if isinstance(begin, int) and isinstance(steps, int)]
    if len(known) > 1 or (known and budget.kind != "steps"):
        return known
    return [(0, int(budget.amount))] if budget.kind == "steps" else ()


def _schedule_problem(
    curves: Mapping[str, Curve], phases: Phases, entry: LogStep, step: int, total_steps: int
) -> str | None:
    for key, curve in curves.items():
        value, expected = getattr(entry, key), curve.value(step, total_steps)
        source = _CURVES[key]
        if key == "lr_scale" and (name := phases.rate_name):
            expected, source = phases.lr_scale(expected), name
        if value is None or not math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-12):
            where = f"{LOG_FILE}:{entry.line} step {entry.step:,}"
            return f"{where} has {key} {value}, {source} gives {expected:.9g}"
    return None
