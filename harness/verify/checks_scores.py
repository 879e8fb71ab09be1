"""Foreign records, claimed scores and losses against logs: headline, seeds, stages, training curve, README."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from harness.records.submission import LoggedRun, Reading
from harness.verify.findings import Finding
from harness.verify.foreign_case import ForeignCase, show_number
from harness.verify.judging import (
    any_score,
    headline,
    judge,
    judge_seed,
    score_witnesses,
    seed_claims,
    verdict_of,
    whole_claims,
)
from harness.verify.rules import Rule
from harness.verify.witnesses import Choose, distinct_runs, find, mean_of, nearest, of_runs, over_seeds, readings_of

_SAYS_BEFORE = re.compile(
    r"(?i)pre-?\s?quant|before (?:quant|export|compress)|unquant|post-?\s?ema|float|fp32|bf16|raw model"
)


def headline_is_logged(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XM1: fails when no logged score, mean or extreme is the one that the record is known by."""
    claim = headline(case)
    if claim is None:
        logged = next(
            (w for w in reversed(list(of_runs(case.submission.runs, _finals))) if w.reading.quantity == "bpb"), None
        )
        evidence = [logged.reading] if logged else []
        yield case.say(rule, "unverifiable", "no score in bits a byte is claimed", *evidence)
        return
    finding = judge(case, rule, claim, score_witnesses(case, claim), big=rule.limits["other_run"])
    yield _before_export(case, rule, claim) or finding if finding.status == "pass" else finding


def _before_export(case: ForeignCase, rule: Rule, claim: Reading) -> Finding | None:
    """Say so where the headline is a score before the model was stored, and the stored one was scored, too."""
    after = [
        w
        for w in score_witnesses(case, claim)
        if w.reading.step is None and w.reading.stage not in ("pre_quant", "pre_ttt")
    ]
    before = find(claim, [w for w in score_witnesses(case, claim) if w not in after])
    if before is None or not after or find(claim, after) is not None or before.kind != "run":
        return None
    run = next(run for run in case.submission.runs if before.reading in run.readings)
    stored = [
        r for r in run.finals if r.quantity == "bpb" and r.step is None and r.stage not in ("", "pre_quant", "pre_ttt")
    ]
    if not stored:
        return None
    is_said = any(claim.text in line and _SAYS_BEFORE.search(line) for line in case.submission.text.split("\n"))
    message = (
        f"{claim.place} is {show_number(claim)}: the score before the model was stored ({before.reading.place}); "
        f"stored it has {show_number(stored[-1])} ({stored[-1].place})"
    )
    return case.say(rule, "note" if is_said else "fail", message, claim, stored[-1])


def loss_is_logged(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XM2: fails when a claimed loss of the whole record is logged nowhere, or is a score in bits a byte."""
    for claim in whole_claims(case, "loss"):
        witnesses = score_witnesses(case, claim)
        other = replace(claim, quantity="bpb")
        if (
            find(claim, witnesses) is None
            and (hit := find(other, score_witnesses(case, other))) is not None
            and witnesses
        ):
            case.convicted.add(("loss", None))
            right = nearest(claim, witnesses)
            assert right is not None
            message = (
                f"{claim.place} is {show_number(claim)}: the score in bits a byte ({hit.reading.place}, {hit.what}); "
                f"the loss is {right.value:.6g} nats a token"
            )
            yield case.say(rule, "fail", message, claim, right.reading, severity="major")
            continue
        yield judge(case, rule, claim, witnesses, big=rule.limits["other_run"])


def other_scores_are_logged(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XM6: fails when a claimed score of another stage (before quantisation, round trip) is logged nowhere."""
    first = headline(case)
    for claim in whole_claims(case, "bpb"):
        is_known = claim.is_headline or any(
            other.is_headline and other.text == claim.text for other in case.submission.claims
        )
        if claim is not first and not is_known and claim.step is None:
            yield judge(case, rule, claim, score_witnesses(case, claim), big=rule.limits["other_run"])


def curve_is_logged(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XM7: fails when a table of the training curve gives another score for a step than the log."""
    for claim in case.submission.claimed("bpb", "loss"):
        if claim.step is None:
            continue
        points = list(of_runs([*case.submission.runs, *case.submission.earlier_runs], _at_step(claim)))
        if points and len(distinct_runs(case.submission.runs)) <= 1:
            at_step = replace(claim, label=f"step {claim.step:,}")
            allowed = replace(at_step, last_place=claim.last_place * (1 if claim.last_place < 0.005 else 2))
            yield verdict_of(case, rule, at_step, allowed, points, big=None)


def _at_step(claim: Reading) -> Choose:
    return lambda run: [reading for reading in run.of(claim.quantity) if reading.step == claim.step]


def seed_scores_are_logged(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XM5: fails when the log of a seed has nowhere the score or loss that is claimed for it."""
    for claim in seed_claims(case, "bpb", "loss"):
        yield from judge_seed(case, rule, claim, any_score(claim), big=rule.limits["other_run"])


def readme_is_the_summary(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XM4: fails when README and summary state unlike headline scores, and no log explains the README's."""
    own = headline(case)
    other = next((c for c in case.submission.claims if c.is_headline and c.source == "readme"), None)
    if own is None or other is None or own is other:
        return
    scores = [c for c in case.submission.claimed("bpb") if c is not other and c.statistic in ("value", "mean", "min")]
    place = max(own.last_place, other.last_place)
    if abs(own.value - other.value) <= place * 1.001:
        yield case.say(
            rule, "pass", f"{other.place} says {show_number(other)}, {own.place} is {show_number(own)}", own, other
        )
        return
    choose = readings_of("bpb")
    logged = [*of_runs(case.submission.runs, choose), *over_seeds(case.submission, choose)]
    elsewhere = next(
        (
            c
            for c in scores
            if c.source == "summary" and abs(c.value - other.value) <= max(c.last_place, other.last_place)
        ),
        None,
    )
    table = [c for c in scores if c.seed is not None and c.source == "readme" and c.statistic == "value"]
    by_column = {c.label: [t for t in table if t.label == c.label] for c in table}
    logged += [mean_of(column) for column in by_column.values() if len(column) > 1]
    hit = find(other, logged)
    message = f"{other.place} says {show_number(other)}, {own.place} is {show_number(own)}"
    if hit is not None or elsewhere is not None:
        why = (
            f"{hit.what} ({hit.reading.place})" if hit is not None else elsewhere.place if elsewhere is not None else ""
        )
        yield case.say(rule, "note", f"{message}: the former is {why}", own, other)
    elif ("bpb", None) not in case.convicted:
        yield case.say(rule, "fail", message, own, other)


def _finals(run: LoggedRun) -> list[Reading]:
    return run.finals
