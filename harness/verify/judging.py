"""How one claim of a foreign record is judged by its witnesses, and which claims there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache

from harness.records.submission import LoggedRun, Reading, Source
from harness.records.vocabulary import Quantity
from harness.verify.findings import Finding, Severity
from harness.verify.foreign_case import ForeignCase, list_words, show_number
from harness.verify.rules import Rule
from harness.verify.witnesses import (
    Choose,
    Witness,
    distinct_runs,
    find,
    is_binary,
    is_disclosed,
    mean_of,
    missing_seeds,
    nearest,
    of_readings,
    of_runs,
    over_seeds,
    remember,
)

_SOURCES: tuple[Source, ...] = ("summary", "readme")


def judge(
    case: ForeignCase,
    rule: Rule,
    claim: Reading,
    witnesses: Sequence[Witness],
    *,
    big: float | None = None,
    severity: Severity | None = None,
) -> Finding:
    """Judge a claim of the whole record."""
    if find(claim, witnesses) is None and witnesses:
        if (gap := runs_not_shipped(case, claim)) is not None:
            return case.say(rule, "unverifiable", gap, claim, *_shown(claim, witnesses))
        lacking = missing_seeds(case.submission)
        num_runs = len(distinct_runs(case.submission.runs))
        if lacking and (claim.statistic in ("mean", "max", "min") or len(case.submission.claimed_seeds) > 1):
            seeds = f"{len(case.submission.claimed_seeds)} seeds; no log of seed {list_words(lacking)}"
            message = f"{claim.place} is {show_number(claim)} over {seeds}"
            return case.say(rule, "unverifiable", message, claim, *_shown(claim, witnesses))
        if claim.statistic == "mean" and num_runs == 1 and not case.submission.claimed_seeds:
            message = f"{claim.place} is a mean ({show_number(claim)}); one run is logged"
            return case.say(rule, "unverifiable", message, claim, *_shown(claim, witnesses))
        if claim.is_headline and not any(
            r.step is None for run in case.submission.runs for r in run.of(claim.quantity)
        ):
            message = f"{claim.place} is {show_number(claim)}; no log goes as far as a score after training"
            return case.say(rule, "unverifiable", message, claim, *_shown(claim, witnesses))
        if claim.quantity == "loss" and not any(r.step is None for run in case.submission.runs for r in run.of("loss")):
            message = f"{claim.place} is {show_number(claim)}; no log goes as far as a loss after training"
            return case.say(rule, "unverifiable", message, claim, *_shown(claim, witnesses))
        if _is_disclosed_apart(case, claim):
            message = f"{claim.place} is {show_number(claim)}; the record says itself that no log shows it"
            return case.say(rule, "unverifiable", message, claim, *_shown(claim, witnesses))
    return verdict_of(case, rule, claim, claim, witnesses, big=big, severity=severity)


def runs_not_shipped(case: ForeignCase, claim: Reading) -> str | None:
    """Say why a claim that goes with a list of results cannot be checked: fewer runs are logged than it lists."""
    listed, num_runs = case.submission.listed(claim.quantity), len(case.submission.runs)
    if len(listed) <= num_runs:
        return None
    values = [*of_readings(listed), mean_of(listed)] if listed else []
    if claim.statistic != "mean" and find(claim, values) is None:
        return None
    return f"{claim.place} is {show_number(claim)} over {len(listed)} listed runs; {num_runs} are logged"


def judge_seed(
    case: ForeignCase,
    rule: Rule,
    claim: Reading,
    choose: Choose,
    *,
    big: float | None = None,
    severity: Severity | None = None,
) -> Iterator[Finding]:
    """Judge what is claimed for one seed by its logs; a seed without a log is another rule's matter."""
    runs = case.submission.runs_of(claim.seed or "")
    witnesses = list(of_runs(runs, choose))
    if not witnesses:
        return
    if find(claim, witnesses) is None and (reason := _why_not_shown(case, claim)) is not None:
        message = f"{claim.place} is {show_number(claim)}; {reason}"
        yield case.say(rule, "unverifiable", message, claim, *_shown(claim, witnesses))
        return
    finding = verdict_of(case, rule, claim, claim, witnesses, big=big, severity=severity)
    if finding.status == "fail":
        others = [run for run in case.submission.runs if run not in runs]
        stolen = find(claim, of_runs(others, choose))
        twins = [c for c in case.submission.claimed(claim.quantity) if c.seed not in (None, claim.seed)]
        if (
            stolen is not None
            and severity is None
            and any(c.text == claim.text and c.path == claim.path for c in twins)
        ):
            finding = replace(finding, severity="major")
        if stolen is not None and claim.last_place < 0.001 or stolen is not None and claim.quantity.startswith("bytes"):
            assert stolen is not None
            hint = f"; it is what {stolen.what} has ({stolen.reading.place})"
            finding = replace(finding, message=finding.message + hint)
    yield finding


def _why_not_shown(case: ForeignCase, claim: Reading) -> str | None:
    """Say why the log of a seed may lack what is claimed for it, or None."""
    if is_disclosed(case.submission, claim):
        return "the record says itself that no log shows it"
    if claim.seed in missing_seeds(case.submission):
        return f"the log of seed {claim.seed} ends before a score after training"
    return None


def verdict_of(
    case: ForeignCase,
    rule: Rule,
    claim: Reading,
    allowed: Reading,
    witnesses: Sequence[Witness],
    *,
    big: float | None,
    severity: Severity | None = None,
) -> Finding:
    """Say whether a claim is one of its witnesses.

    Args:
        case: the record.
        rule: the rule that speaks.
        claim: as stated.
        allowed: the claim with the precision that it is judged by.
        witnesses: what it may rest on.
        big: a difference from which on it is of another run, and major; None where the rule's severity stands.
        severity: overrides both.
    """
    hit = find(allowed, witnesses)
    if hit is not None:
        return agree(case, rule, claim, hit)
    near = nearest(claim, witnesses)
    if near is None:
        return case.say(rule, "unverifiable", f"{claim.place} is {show_number(claim)}; no log says", claim)
    seed = f" for seed {claim.seed}" if claim.seed is not None else ""
    if claim.step is None:
        case.convicted.add((claim.quantity, claim.seed))
    difference = abs(claim.value - near.value)
    if severity is None and big is not None:
        severity = "major" if difference > big or claim.is_headline else "minor"
    mean = f"{near.what} {near.value:.9g}; " if near.kind != "run" else ""
    message = (
        f"{claim.place} is {show_number(claim)}{seed}; nothing logged is that: nearest is "
        f"{mean}{near.reading.place} {show_number(near.reading)}"
    )
    return case.say(rule, "fail", message, claim, near.reading, severity=severity)


def agree(case: ForeignCase, rule: Rule, claim: Reading, hit: Witness | None) -> Finding:
    """Say what a claim rests on; a mean of the best runs, or MB that are MiB, is a note."""
    assert hit is not None
    if is_binary(claim, hit):
        message = (
            f"{claim.place} is {show_number(claim)}, which fits {hit.reading.place} only in units of 1,024 (KiB, MiB)"
        )
        return case.say(rule, "note", message, claim, hit.reading)
    if hit.kind == "subset":
        message = f"{claim.place} is {show_number(claim)}: a mean of the best of more logged runs"
        return case.say(rule, "note", message, claim, hit.reading)
    shown = replace(hit.reading, value=hit.value) if hit.kind == "mean" else hit.reading
    return case.say(rule, "pass", f"{claim.place} is {show_number(claim)}: {hit.what}", claim, shown)


def whole_claims(case: ForeignCase, quantity: Quantity) -> list[Reading]:
    """Return the claims of the whole record, each number once, the summary's before the README's."""
    claims = [
        claim
        for source in _SOURCES
        for claim in case.submission.claimed(quantity, source=source)
        if claim.seed is None and claim.step is None and claim.statistic in ("value", "mean", "max", "min")
    ]
    return _once(claims)


def seed_claims(case: ForeignCase, *quantities: Quantity) -> list[Reading]:
    """Return the claims for single seeds, each number once, the summary's before the README's."""
    claims = [
        claim
        for source in _SOURCES
        for claim in case.submission.claimed(*quantities, source=source)
        if claim.seed is not None and claim.step is None and claim.statistic == "value"
    ]
    return _once(claims)


def _once(claims: Iterable[Reading]) -> list[Reading]:
    kept: dict[object, Reading] = {}
    for claim in claims:
        kept.setdefault((claim.quantity, claim.seed, claim.text.rstrip("0"), claim.statistic), claim)
    return list(kept.values())


def _shown(claim: Reading, witnesses: Sequence[Witness]) -> list[Reading]:
    near = nearest(claim, witnesses)
    return [near.reading] if near else []


def _is_disclosed_apart(case: ForeignCase, claim: Reading) -> bool:
    """Whether the claim, or the headline that it goes with, is said to come from outside the logs."""
    first = headline(case)
    submission = case.submission
    if is_disclosed(submission, claim):
        return True
    if first is None or claim.quantity not in ("bpb", "loss", "bytes_total", "bytes_model", "eval_seconds"):
        return False
    return (
        is_disclosed(submission, first)
        and find(first, score_witnesses(case, first)) is None
        and claim.stage in ("", first.stage)
    )


def headline(case: ForeignCase) -> Reading | None:
    """Return the claimed score of a record: of its summary, else of its README."""
    claims = [claim for claim in case.submission.claims if claim.is_headline]
    return next((c for source in _SOURCES for c in claims if c.source == source), claims[0] if claims else None)


def score_witnesses(case: ForeignCase, claim: Reading) -> list[Witness]:
    """Return what a score or loss of the whole record may rest on."""
    choose = any_score(claim)
    with_subsets = claim.quantity == "bpb" and claim.is_headline

    def make() -> list[Witness]:
        means = over_seeds(case.submission, choose, with_subsets=with_subsets)
        return [*of_runs(case.submission.runs, choose), *means]

    return remember(case.submission, ("scores", choose, with_subsets), make)


def any_score(claim: Reading) -> Choose:
    """Choose what a score may be: evaluations after training, the last validation and the best one."""
    return _any_score(claim.quantity)


@cache
def _any_score(quantity: Quantity) -> Choose:
    def choose(run: LoggedRun) -> list[Reading]:
        readings = run.of(quantity)
        points = [reading for reading in readings if reading.step is not None]
        best = min(points, key=lambda reading: reading.value, default=None)
        return [r for r in readings if r.step is None or r is points[-1] or r is best]

    return choose
