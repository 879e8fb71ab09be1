"""Foreign records, what is computed from seeds: means, deviations, p-values, differences."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import pstdev, stdev

from harness.records.submission import Reading
from harness.verify.checks_lists import p_value_of_list
from harness.verify.findings import Finding, Severity
from harness.verify.foreign_case import ForeignCase, outcome, show_number
from harness.verify.judging import headline
from harness.verify.rules import Rule
from harness.verify.witnesses import distinct_runs, is_near, mean_of

_SPREAD = ("bpb", "loss", "bytes_total", "steps", "train_seconds", "eval_seconds", "step_ms")


def means_hold(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XV1: fails when a mean is not that of the values beside it."""
    for claim, values in _statistics(case, "mean"):
        if (claim.quantity, None) in case.convicted or claim.is_headline and ("bpb", None) in case.convicted:
            continue
        own = [group for group in values if len(group) >= 2]
        if not own or any((r.quantity, r.seed) in case.convicted for group in own for r in group):
            continue
        hits = [
            group
            for group in own
            if is_near(claim, mean_of(group))
            or (claim.statistic == "value" and any(is_near(claim, mean_of([reading])) for reading in group))
        ]
        best = (hits or own)[0]
        message = f"{claim.place} is {show_number(claim)}; the mean of {_list(best)} is {mean_of(best).value:.9g}"
        recomputed = replace(best[-1], value=mean_of(best).value, origin="measured", label=f"mean of {len(best)} seeds")
        severity: Severity = "major" if claim.is_headline else "minor"
        yield case.say(rule, outcome(bool(hits)), message, claim, recomputed, severity=severity)


def _value(reading: Reading) -> float:
    return reading.value


def deviations_hold(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XV2: fails when a deviation is neither the sample's nor the population's of the seeds; notes the latter."""
    seen: set[tuple[str, str]] = set()
    for claim, values in sorted(_statistics(case, "std"), key=lambda pair: pair[0].source != "summary"):
        if (claim.quantity, claim.text.rstrip("0")) in seen:
            continue
        seen.add((claim.quantity, claim.text.rstrip("0")))
        logged = [] if case.submission.listed(claim.quantity) else _logged_groups(case, claim)
        groups = [group for group in [*values, *logged] if len(group) >= 2]
        if not groups:
            yield case.say(rule, "unverifiable", f"{claim.place}: the values of the seeds are not given", claim)
            continue
        if any(_fits(claim, group, stdev, rule) for group in groups):
            yield case.say(rule, "pass", f"{claim.place} is the sample deviation of {len(groups[0])} seeds", claim)
            continue
        group = groups[0]
        sample, population = stdev(map(_value, group)), pstdev(map(_value, group))
        shown = f"sample {sample:.4g}, population {population:.4g} of {_list(group)}"
        recomputed = replace(group[-1], value=sample, origin="measured", label="sample deviation")
        if any(_fits(claim, group, pstdev, rule) for group in groups):
            yield case.say(rule, "note", f"{claim.place} is a population deviation ({shown})", claim, recomputed)
        else:
            yield case.say(rule, "fail", f"{claim.place} is {show_number(claim)}; {shown}", claim, recomputed)


def _fits(claim: Reading, group: Sequence[Reading], deviation: Callable[[Iterable[float]], float], rule: Rule) -> bool:
    n = len(group)
    value = deviation(map(_value, group))
    half = max(reading.last_place for reading in group) / 2
    slack = half * math.sqrt(n / (n - 1)) + rule.relative * value
    place = claim.last_place or (1.0 if claim.value == int(claim.value) else 0.0)
    return abs(claim.value - value) <= place + slack


def _statistics(case: ForeignCase, statistic: str) -> Iterator[tuple[Reading, list[list[Reading]]]]:
    """Yield each claimed statistic with the sets of per-seed values that it may be over.

    A column's statistic is over the column; a summary's over its own seeds, then over the README's columns.
    """
    by_seed = [
        c
        for c in case.submission.claims
        if c.seed is not None and c.statistic == "value" and not c.is_reference and c.step is None
    ]
    columns: dict[tuple[str, str, str], dict[str, Reading]] = defaultdict(dict)
    for reading in by_seed:
        label = reading.label.rpartition(".")[2] if reading.source == "summary" else reading.label
        columns[(reading.path, reading.quantity, label)].setdefault(reading.seed or "", reading)
    for claim in case.submission.claims:
        is_mean = statistic == "mean" and (claim.statistic == "mean" or claim.is_headline and claim.source == "summary")
        if claim.seed is not None or claim.is_reference or claim.quantity not in _SPREAD:
            continue
        if not (is_mean or claim.statistic == statistic):
            continue
        own = columns.get((claim.path, claim.quantity, claim.label))
        if claim.source == "readme" and own:
            yield claim, [list(own.values())]
        elif claim.source == "readme" and statistic == "std":
            yield claim, [list(v.values()) for (_, quantity, _), v in columns.items() if quantity == claim.quantity]
        elif claim.source == "summary":
            sets = [
                list(values.values())
                for (path, quantity, _), values in columns.items()
                if quantity == claim.quantity and path == claim.path
            ]
            others = [
                list(v.values())
                for (path, quantity, _), v in columns.items()
                if quantity == claim.quantity and path != claim.path
            ]
            named = [group for group in sets if not claim.stage or group[0].stage == claim.stage]
            yield claim, [*(named or sets), *others] if statistic == "std" else named


def _logged_groups(case: ForeignCase, claim: Reading) -> list[list[Reading]]:
    runs = distinct_runs(case.submission.runs)
    groups: dict[tuple[str, str], list[Reading]] = defaultdict(list)
    for run in runs:
        latest = {(run.group, r.label): r for r in run.of(claim.quantity) if r.step is None}
        for key, reading in latest.items():
            groups[key].append(reading)
    return [group for group in groups.values() if len(group) >= 2]


def _list(readings: Iterable[Reading]) -> str:
    shown = [show_number(reading) for reading in readings]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def p_value_holds(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XV3: fails when a p-value follows neither from the t-statistic and the seeds beside it nor from its list."""
    claims = list(case.submission.claimed("p_value"))
    statistics = list(case.submission.claimed("t_statistic"))
    num_seeds = len(case.submission.claimed_seeds)
    losses = case.submission.listed("loss")
    for claim in claims:
        if len(losses) >= 2 and not statistics:
            yield p_value_of_list(case, rule, claim, losses)
            continue
        if not statistics or num_seeds < 2:
            yield case.say(rule, "unverifiable", f"{claim.place}: no t-statistic and seeds to derive it from", claim)
            continue
        from scipy import stats

        t = abs(statistics[0].value)
        options = [
            sides * float(stats.t.sf(t, freedom))
            for freedom in {num_seeds - 1, 2 * num_seeds - 2, num_seeds}
            for sides in (1, 2)
        ]
        factor = rule.limits["factor"]
        is_right = any(
            value <= claim.value * factor
            if claim.bound == "<"
            else claim.value - claim.last_place <= value * factor and value / factor <= claim.value + claim.last_place
            for value in options
        )
        message = (
            f"{claim.place} is {show_number(claim)}; t = {show_number(statistics[0])} with {num_seeds} seeds gives "
            f"{min(options):.3g} to {max(options):.3g}"
        )
        yield case.say(rule, outcome(is_right), message, statistics[0], claim)


def differences_hold(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XV4: fails when a difference in nats is not the one in bits a byte beside it, or not that of its row."""
    ratio = _ratio(case)
    summary = [(b, n) for b in _deltas(case, "bpb") for n in _deltas(case, "loss") if _twin(b.label) == _twin(n.label)]
    for bpb, nats in [*case.submission.pairs, *summary]:
        if ratio is None or not bpb.value:
            continue
        expected = bpb.value * ratio
        slack = bpb.last_place * ratio + nats.last_place + rule.relative * abs(expected)
        is_right = abs(abs(nats.value) - abs(expected)) <= slack or _is_across_tokenizers(case, bpb, nats, rule)
        bar = rule.limits["bar_nats"]
        crosses = (abs(nats.value) >= bar) != (abs(expected) >= bar)
        message = f"{bpb.place}: {show_number(bpb)} is {expected:.5f} nats at {ratio:.5f}, not {show_number(nats)}"
        yield case.say(rule, outcome(is_right), message, nats, severity="major" if crosses else "minor")
    own = headline(case)
    gaps = [(own, former, delta) for former, delta in case.submission.gaps if own is not None]
    for first, second, claimed in [*case.submission.differences, *gaps]:
        if abs(first.value - second.value) > rule.limits["far"] or first.place == second.place:
            continue
        slack = first.last_place + second.last_place + claimed.last_place
        is_right = abs(abs(first.value - second.value) - abs(claimed.value)) <= slack
        numbers = f"{show_number(first)} and {show_number(second)}"
        expected = abs(first.value - second.value)
        message = f"{claimed.place}: {numbers} differ by {expected:.6g}, not {show_number(claimed)}"
        yield case.say(rule, outcome(is_right), message, claimed)
    yield from _against_base(case, rule)
    yield from _gains(case, rule)


def _is_across_tokenizers(case: ForeignCase, bpb: Reading, nats: Reading, rule: Rule) -> bool:
    """Whether the other run may have had another known tokenizer: its loss then is its score times another constant."""
    own, ratio = headline(case), _ratio(case)
    if own is None or ratio is None:
        return False
    others = [own.value - sign * abs(bpb.value) for sign in (1, -1)]
    constants = [value for key, value in rule.limits.items() if key.startswith("tokenizer")]
    return any(
        abs(abs(own.value * ratio - other * constant) - abs(nats.value)) <= rule.relative * abs(nats.value) + 1e-4
        for other in others
        for constant in constants
    )


def _against_base(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """A difference to a base whose score the summary gives."""
    bases = [
        c
        for c in case.submission.claims
        if c.is_reference
        and c.quantity == "bpb"
        and c.statistic == "value"
        and c.source == "summary"
        and c.seed is None
    ]
    own = headline(case)
    deltas = _deltas(case, "bpb")
    if len(bases) != 1 or own is None or not deltas:
        return
    for delta in deltas:
        slack = own.last_place + bases[0].last_place + delta.last_place
        expected = own.value - bases[0].value
        if "base" in delta.label or len(deltas) == 1:
            is_right = abs(abs(expected) - abs(delta.value)) <= slack
            message = (
                f"{delta.place} is {show_number(delta)}; {show_number(own)} - {show_number(bases[0])} is {expected:.6g}"
            )
            yield case.say(rule, outcome(is_right), message, bases[0], delta)


def _gains(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """A gain of adaptation beside the scores before and after it."""
    own = headline(case)
    before = [c for c in case.submission.claimed("bpb", source="summary") if (c.stage, c.seed) == ("pre_ttt", None)]
    gains = [
        c for c in case.submission.claims if (c.quantity, c.statistic, c.stage, c.seed) == ("bpb", "delta", "ttt", None)
    ]
    if own is None or own.source != "summary" or len(before) != 1 or len(gains) != 1:
        return
    expected = own.value - before[0].value
    slack = own.last_place + before[0].last_place + gains[0].last_place
    is_right = abs(abs(expected) - abs(gains[0].value)) <= slack
    message = (
        f"{gains[0].place} is {show_number(gains[0])}; {show_number(own)} - {show_number(before[0])} is {expected:.6g}"
    )
    yield case.say(rule, outcome(is_right), message, before[0], gains[0])


def _deltas(case: ForeignCase, quantity: str) -> list[Reading]:
    return [
        claim
        for claim in case.submission.claims
        if (claim.statistic, claim.quantity, claim.seed, claim.source) == ("delta", quantity, None, "summary")
        and "delta" in claim.label
    ]  # fmt: skip


def _twin(label: str) -> str:
    words = [w for w in label.lower().replace("val_", "").split("_") if w not in ("bpb", "nats", "loss", "bpp")]
    return "_".join(words)


def _ratio(case: ForeignCase) -> float | None:
    """Return nats a token over bits a byte of this record's own evaluation, from its log, else from its claims."""
    for run in case.submission.runs:
        losses = {(r.label, r.line): r.value for r in run.of("loss")}
        for bpb in reversed(run.of("bpb")):
            loss = losses.get((bpb.label, bpb.line))
            if loss and bpb.value:
                return loss / bpb.value
    own = headline(case)
    loss_claim = next(
        (c for c in case.submission.claimed("loss", source="summary") if c.seed is None and c.statistic == "value"),
        None,
    )
    return loss_claim.value / own.value if own and loss_claim and own.value else None
