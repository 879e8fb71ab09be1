"""Foreign records, lists of results without seeds, one value a run: against the logs, and what is tested with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean, pstdev

from harness.records.submission import LoggedRun, Reading
from harness.records.vocabulary import Quantity
from harness.verify.findings import Finding, FindingStatus
from harness.verify.foreign_case import ForeignCase, show_number
from harness.verify.rules import Rule
from harness.verify.witnesses import is_near, nearest, of_readings


def losses_are_logged(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XM8: fails when a list of losses has a value that no log has though a log is shipped for each."""
    yield from _list_is_logged(case, rule, "loss")


def times_are_logged(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XT6: fails when a list of times has a value that no log has though a log is shipped for each."""
    yield from _list_is_logged(case, rule, "train_seconds")


def _list_is_logged(case: ForeignCase, rule: Rule, quantity: Quantity) -> Iterator[Finding]:
    listed = case.submission.listed(quantity)
    logged = [end for run in case.submission.runs if (end := _end(run, quantity)) is not None]
    if not listed:
        return
    if not logged:
        message = f"{listed[0].place}: {len(listed)} values are listed; no log goes to the end of a run"
        yield case.say(rule, "unverifiable", message, listed[0])
        return
    odd, spare = _pair_off(listed, logged)
    is_whole = len(listed) == len(logged) == len(case.submission.runs)
    if is_whole and odd:
        yield from _convict(case, rule, odd, spare)
    elif spare:
        message = (
            f"{listed[0].place}: {show_number(spare[0])} ({spare[0].place}) is not among {len(listed)} listed values"
        )
        yield case.say(rule, "note", message, listed[0], spare[0])
    elif odd:
        message = f"{listed[0].place}: {len(listed)} values are listed; {len(logged)} runs are logged, all among them"
        yield case.say(rule, "unverifiable", message, listed[0], logged[0])
    else:
        message = f"{listed[0].place}: {len(listed)} values, those of {len(logged)} logs"
        yield case.say(rule, "pass", message, listed[0], logged[0])


def _end(run: LoggedRun, quantity: Quantity) -> Reading | None:
    return next((reading for reading in reversed(run.of(quantity)) if reading.step is None), None)


def _convict(case: ForeignCase, rule: Rule, odd: Sequence[Reading], spare: Sequence[Reading]) -> Iterator[Finding]:
    for claim in odd:
        near = nearest(claim, of_readings(spare))
        assert near is not None
        case.convicted.add((claim.quantity, claim.seed))
        message = (
            f"{claim.place} lists {show_number(claim)}, which no log has; {near.reading.place} has "
            f"{show_number(near.reading)}, which is not listed"
        )
        yield case.say(rule, "fail", message, claim, near.reading)


def _pair_off(listed: Sequence[Reading], logged: Sequence[Reading]) -> tuple[list[Reading], list[Reading]]:
    """Pair listed with logged values from the smallest on; returns those of either that are left over."""
    odd, spare = [], sorted(logged, key=_value)
    for claim in sorted(listed, key=_value):
        hit = next((w.reading for w in of_readings(spare) if is_near(claim, w)), None)
        if hit is None:
            odd.append(claim)
        else:
            spare.remove(hit)
    return odd, spare


def _value(reading: Reading) -> float:
    return reading.value


def p_value_of_list(case: ForeignCase, rule: Rule, claim: Reading, losses: Sequence[Reading]) -> Finding:
    """Judge a p-value by a t-test of the listed losses against the loss that the contest asks for."""
    from scipy import stats

    values, target = [reading.value for reading in losses], rule.limits["target_loss"]
    if pstdev(values) == 0 or abs(fmean(values) - target) > rule.limits["near_target"]:
        message = f"{claim.place}: the losses are not about the target of {target:g}, or all alike"
        return case.say(rule, "unverifiable", message, claim)
    one_sided = float(stats.ttest_1samp(values, target, alternative="less").pvalue)
    two_sided = float(stats.ttest_1samp(values, target).pvalue)
    status: FindingStatus = "fail"
    if _is_about(claim, one_sided, rule):
        status = "pass"
    elif _is_about(claim, two_sided, rule):
        status = "note"
    message = (
        f"{claim.place} is {show_number(claim)}; a one-sided t-test of {len(values)} listed losses against {target:g} "
        f"gives {one_sided:.3g}, a two-sided one {two_sided:.3g}"
    )
    return case.say(rule, status, message, losses[0], claim)


def _is_about(claim: Reading, value: float, rule: Rule) -> bool:
    factor = rule.limits["factor"]
    return (claim.value - claim.last_place) / factor <= value <= (claim.value + claim.last_place) * factor
