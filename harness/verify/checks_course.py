"""Foreign records, the course of a run: steps, times, the time limit, what a log says of its own clock."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from harness.records.submission import LoggedRun, Reading
from harness.records.vocabulary import Quantity
from harness.verify.findings import Finding, FindingStatus
from harness.verify.foreign_case import ForeignCase, show_number
from harness.verify.judging import headline, judge, judge_seed, score_witnesses, seed_claims, whole_claims
from harness.verify.rules import Rule
from harness.verify.witnesses import Choose, find, missing_seeds, nearest, of_runs, over_seeds


def steps_are_logged(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XS1: fails when the claimed steps are not those at which a run ended; far off, it is another run."""
    witnesses = [*of_runs(case.submission.runs, _steps), *over_seeds(case.submission, _steps)]
    for claim in whole_claims(case, "steps"):
        near = nearest(claim, witnesses)
        is_far = near is not None and abs(near.value - claim.value) > rule.limits["other_run_fraction"] * near.value
        if find(claim, witnesses) is None and is_far and claim.statistic == "mean" and missing_seeds(case.submission):
            assert near is not None
            message = (
                f"{claim.place} is {show_number(claim)}, yet {near.reading.place} says {show_number(near.reading)}: "
                "runs of one setting and one time limit do not differ so much"
            )
            yield case.say(rule, "fail", message, claim, near.reading, severity="major")
            continue
        yield judge(case, rule, claim, witnesses, severity="major" if is_far else "minor")
    for claim in seed_claims(case, "steps"):
        yield from judge_seed(case, rule, claim, _steps)


def times_are_logged(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XT1: fails when a claimed training or evaluation time is far from every logged one."""
    quantities: tuple[Quantity, ...] = ("train_seconds", "eval_seconds")
    for quantity in quantities:
        choose = _times(quantity)
        witnesses = [*of_runs(case.submission.runs, choose), *over_seeds(case.submission, choose)]
        for claim in whole_claims(case, quantity):
            yield judge(case, rule, _loosened(claim, rule), witnesses)
        for claim in seed_claims(case, quantity):
            yield from judge_seed(case, rule, _loosened(claim, rule), choose)


def step_times_are_logged(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XT5: fails when the claimed time of a step is far from the logged average."""
    witnesses = [*of_runs(case.submission.runs, _step_ms), *over_seeds(case.submission, _step_ms)]
    for claim in whole_claims(case, "step_ms"):
        loose = replace(claim, last_place=max(claim.last_place, rule.relative * claim.value))
        yield judge(case, rule, loose, witnesses)
    for claim in seed_claims(case, "step_ms"):
        loose = replace(claim, last_place=max(claim.last_place, rule.relative * claim.value))
        yield from judge_seed(case, rule, loose, _step_ms)


def _step_ms(run: LoggedRun) -> list[Reading]:
    """Return the averages that a run logged, and its training time over its steps."""
    ends, times = _steps(run), list(_times("train_seconds")(run))
    made = [
        replace(time, quantity="step_ms", value=1e3 * time.value / end.value, text="", label="training time / steps")
        for end in ends[-1:] for time in times[-1:] if end.value
    ]  # fmt: skip
    return [*run.of("step_ms"), *made]


def _loosened(claim: Reading, rule: Rule) -> Reading:
    share = rule.limits["train_fraction"] if claim.quantity == "train_seconds" else rule.relative
    slack = rule.absolute + share * claim.value
    return replace(claim, last_place=max(claim.last_place, slack))


def _steps(run: LoggedRun) -> list[Reading]:
    ends = [reading for reading in run.of("steps") if reading.step is None]
    validated = run.of("steps")[-1:]
    return ends or validated


def _times(quantity: Quantity) -> Choose:
    def choose(run: LoggedRun) -> list[Reading]:
        readings = run.of(quantity)
        ends = [reading for reading in readings if reading.step is None] or readings[-1:]
        if quantity == "eval_seconds" and len(ends) > 1:
            total = replace(ends[0], value=sum(reading.value for reading in ends), text="", label="sum of evaluations")
            return [*ends, total]
        return ends

    return choose


def time_cap_is_kept(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XT2: fails when a run of the timed track trained, or scored, well beyond its limit; notes a slight overshoot."""
    if case.submission.is_main_track is not True:
        return
    cap = rule.limits["cap_seconds"]
    for words, times in (("training", _training_times(case)), ("evaluation", _evaluation_times(case))):
        if not times:
            continue
        longest = max(times, key=lambda reading: reading.value)
        over = longest.value - cap
        message = f"{longest.place}: {longest.value:,.3f} s of {words}, the limit is {cap:,.0f} s"
        is_fail = over > cap * rule.limits["fail_fraction"]
        status: FindingStatus = "fail" if is_fail else "note" if over > rule.limits["slight_seconds"] else "pass"
        yield case.say(rule, status, message, longest)


def _training_times(case: ForeignCase) -> list[Reading]:
    """Return the training times of the claimed runs: the one that has the headline score, or its family of logs."""
    claim = headline(case)
    hit = find(claim, score_witnesses(case, claim)) if claim is not None else None
    runs = case.submission.runs
    if hit is not None:
        family = re.sub(r"\d+", "#", hit.reading.path)
        own = [run for run in runs if run.path == hit.reading.path] if hit.kind == "run" else []
        runs = own or [run for run in runs if re.sub(r"\d+", "#", run.path) == family] or runs
    return [reading for run in runs for reading in run.of("train_seconds") if reading.step is None]


def _evaluation_times(case: ForeignCase) -> list[Reading]:
    """Return the times of the evaluations that gave the headline score; others do not count against the limit."""
    claim = headline(case)
    hit = find(claim, score_witnesses(case, claim)) if claim is not None else None
    if hit is None:
        return []
    label = hit.reading.label.removesuffix("_exact")
    times = []
    for run in case.submission.runs:
        scores = [score for score in run.of("bpb") if score.label.removesuffix("_exact") == label]
        chosen = [score for score in scores if score is hit.reading] if hit.kind == "run" else scores[-1:]
        lines = {line for score in chosen if score.line for line in (score.line - 1, score.line)}
        times += [reading for reading in run.of("eval_seconds") if reading.line in lines]
    return times


def calibration_is_inside(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XT3: notes calibration on training data after the training clock that together exceed the limit."""
    if case.submission.is_main_track is not True:
        return
    cap = rule.limits["cap_seconds"]
    for run in case.submission.runs:
        stops = [reading for reading in run.of("train_seconds") if reading.step is None]
        if run.calibration is None or not stops:
            continue
        total = stops[-1].value + run.calibration.value
        if total > cap:
            parts = [f"{reading.place} {reading.value:.1f} s" for reading in (stops[-1], run.calibration)]
            message = f"{', then '.join(parts)}: {total:.1f} s in all"
            yield case.say(rule, "note", message, run.calibration)
            return


def log_was_in_time(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XT4: fails when a claimed run says itself that it took longer than it may."""
    for run in case.submission.runs:
        for statement in run.overruns[:3]:
            message = f'{statement.path}:{statement.line} says itself: "{statement.text}"'
            yield case.say(rule, "fail", message, path=statement.path, line=statement.line)
