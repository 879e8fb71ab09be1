"""Foreign records, seeds: identity, copies, logs, number, choice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations

from harness.records.submission import LoggedRun
from harness.verify.findings import Finding
from harness.verify.foreign_case import ForeignCase, list_words, outcome, show_number
from harness.verify.judging import headline
from harness.verify.rules import Rule
from harness.verify.witnesses import distinct_runs, find, is_near, mean_of, missing_seeds, name_of, of_runs, readings_of


def seeds_are_those_logged(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XE1: fails when a log that stands for one seed prints another, or the only seed is another."""
    submission = case.submission
    for run in submission.runs:
        if run.seed is not None and run.file_seed is not None and run.seed.text != run.file_seed:
            if run.file_seed not in submission.claimed_seeds and run.seed.text in submission.claimed_seeds:
                continue
            message = f"{run.path} stands for seed {run.file_seed}, but {run.seed.place} says {run.seed.text}"
            claim = next((seed for seed in submission.seeds if seed.text == run.file_seed), None)
            is_claimed = claim is not None or not submission.claimed_seeds
            evidence = [claim, run.seed] if claim is not None else [run.seed]
            yield case.say(rule, "fail" if is_claimed else "note", message, *evidence)
    yield from _single_seed(case, rule)
    yield from _wrong_list(case, rule)


def _single_seed(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    claims = [seed for seed in case.submission.seeds if seed.source == "summary"]
    runs = [run for run in distinct_runs(case.submission.runs) if run.seed is not None]
    if len({claim.text for claim in claims}) == 1 and len(runs) == 1 and runs[0].file_seed is None:
        claim, seed = claims[0], runs[0].seed
        assert seed is not None
        status = outcome(claim.text == seed.text)
        yield case.say(rule, status, f"{claim.place} is {claim.text}, {seed.place} says {seed.text}", claim, seed)


def _wrong_list(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """Several claimed seeds without a log, and as many logged seeds that nobody claims."""
    submission = case.submission
    lacking = missing_seeds(submission)
    claimed = set(submission.claimed_seeds)
    spare = [run for run in distinct_runs(submission.runs) if run.seed is not None and not run.seeds & claimed]
    if (
        len(claimed) < 2
        or not lacking
        or len(spare) != len(lacking)
        or len(distinct_runs(submission.runs)) != len(claimed)
    ):
        return
    scores = readings_of("bpb")
    for claim in submission.claimed("bpb"):
        if claim.seed in lacking and find(claim, of_runs(spare, scores)) is None:
            return
    for seed, run in zip(lacking, spare, strict=True):
        claim = next(reading for reading in submission.seeds if reading.text == seed)
        assert run.seed is not None
        message = (
            f"seed {seed} is claimed; none of {len(claimed)} logs is of it, and {run.seed.place} says {run.seed.text}"
        )
        yield case.say(rule, "fail", message, claim, run.seed)


def seeds_are_not_copies(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XE2: fails when two seeds have the same curve, or one seed is claimed twice."""
    submission = case.submission
    lists = [seed for seed in submission.seeds if seed.is_headline]
    for seed, count in Counter(reading.text for reading in lists).items():
        if count > 1:
            claim = next(reading for reading in lists if reading.text == seed)
            yield case.say(rule, "fail", f"{claim.place}: seed {seed} stands {count} times in the list", claim)
    copies: set[str] = set()
    exact = {id(run): _exact_scores(run) for run in submission.runs}
    for first, second in combinations(submission.runs, 2):
        is_copy = _same_curve(first, second, exact[id(first)], exact[id(second)])
        if second.path not in copies and is_copy and _other_seeds(first, second):
            copies.add(second.path)
            message = (
                f"{second.path} ({name_of(second)}) has the same curve as {first.path} ({name_of(first)}): "
                f"{len(first.curve)} points, every digit alike"
            )
            evidence = second.seed or second.readings[0]
            yield case.say(rule, "fail", message, evidence)


def _exact_scores(run: LoggedRun) -> list[str]:
    return [r.text for r in run.readings if r.quantity in ("bpb", "loss") and r.last_place < 1e-6]


def _same_curve(first: LoggedRun, second: LoggedRun, first_scores: list[str], second_scores: list[str]) -> bool:
    if len(first.curve) >= 3 and len(second.curve) >= 3:
        return first.curve == second.curve
    return len(first_scores) >= 2 and first_scores == second_scores


def _other_seeds(first: LoggedRun, second: LoggedRun) -> bool:
    """Whether two logs stand for unlike seeds; a copy under a name without a seed does not."""
    names = [run.file_seed or (run.seed.text if run.seed else None) for run in (first, second)]
    return None not in names and names[0] != names[1]


def seeds_have_logs(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XE3: unverifiable where a claimed seed has no log."""
    submission = case.submission
    lacking = missing_seeds(submission)
    if not submission.runs or not submission.claimed_seeds:
        return
    if lacking:
        claim = next(reading for reading in submission.seeds if reading.text == lacking[0])
        message = f"no log to the end of seed {list_words(lacking)}, of {len(submission.claimed_seeds)} claimed"
        yield case.say(rule, "unverifiable", message, claim)
    else:
        yield case.say(rule, "pass", f"every claimed seed has a log: {list_words(submission.claimed_seeds)}")


def seed_count_holds(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XE4: fails when the stated number of seeds is not that of the list."""
    listed = [
        seed
        for seed in case.submission.claimed_seeds
        if any(reading.text == seed and reading.source == "summary" for reading in case.submission.seeds)
    ]
    for claim in case.submission.claimed("num_seeds"):
        if listed:
            status = outcome(claim.value == len(listed))
            yield case.say(
                rule, status, f"{claim.place} is {show_number(claim)}; {len(listed)} seeds are listed", claim
            )
    yield from _unlike_lists(case, rule)


def _unlike_lists(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """As many seeds in two lists of the record, but not the same ones."""
    seeds = case.submission.seeds
    listed = {seed.text: seed for seed in seeds if seed.source == "summary" and seed.is_headline}
    results = {seed.text: seed for seed in seeds if seed.source == "summary" and not seed.is_headline}
    scored = {c.seed for c in case.submission.claimed("bpb", "loss", source="summary") if c.seed is not None}
    results |= {seed: listed[seed] for seed in scored if seed in listed}
    table = {seed.text: seed for seed in seeds if seed.source == "readme" and not seed.is_reference}
    words = {seed.text: seed for seed in seeds if seed.label == "list of seeds"}
    for first, second in ((listed, results), (listed or results, table), (listed or results, words)):
        odd = [seed for seed in second if seed not in first]
        if first and len(first) == len(second) and odd:
            claim = second[odd[0]]
            message = (
                f"{claim.place}: seed {odd[0]} is not among {list_words(first)} ({next(iter(first.values())).place})"
            )
            yield case.say(rule, "fail", message, next(iter(first.values())), claim)


def choice_of_seed_is_plain(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XE5: notes a headline that is the best of several seeds, or rests on one seed."""
    claim = headline(case)
    runs = [run for run in distinct_runs(case.submission.runs) if any(r.quantity == "bpb" for r in run.finals)]
    if claim is None or not runs:
        return
    if len(runs) == 1 and len(case.submission.claimed_seeds) <= 1:
        yield case.say(rule, "note", "one seed: no spread is known", claim)
        return
    scores = readings_of("bpb")
    hit = find(claim, of_runs(runs, scores))
    if hit is None or len({tuple(sorted(run.seeds)) for run in runs}) < 2 or claim.statistic == "mean":
        return
    per_run = [[r for r in run.finals if r.quantity == "bpb" and r.label == hit.reading.label] for run in runs]
    finals = [readings[-1] for readings in per_run if readings]
    if (
        len(finals) > 1
        and hit.value <= min(r.value for r in finals) + hit.slack
        and not is_near(claim, mean_of(finals))
    ):
        message = f"{claim.place} is the best of {len(finals)} seeds; their mean is {mean_of(finals).value:.6g}"
        yield case.say(rule, "note", message, claim, hit.reading)
