"""Foreign records, what was scored: loss and score of one evaluation, the whole split, the standard one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.records.submission import LoggedRun, Reading, Statement
from harness.verify.findings import Finding, FindingStatus, Severity
from harness.verify.foreign_case import ForeignCase, show_number
from harness.verify.rules import Rule
from harness.verify.witnesses import find, of_runs, readings_of

_PARTIAL = re.compile(
    r"(?i)\b(?:eval|val)\w{0,40}\b[^.\n]{0,60}\b(?:partial|subset|limited|truncated|sampled|first \d|part of|batches)"
    r"|\b(?:partial|subset|limited|truncated|sampled|first \d[\d,]{0,20})\b[^.\n]{0,60}\b(?:eval|val)"
)


def ratio_is_possible(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XM3: fails when a claimed loss and score cannot be of one evaluation: their ratio is the tokenizer's constant."""
    logged = sorted(_logged_ratios(case.submission.runs), key=lambda pair: pair[0])
    for loss, bpb in _pairs(case):
        if {("loss", loss.seed), ("bpb", bpb.seed), ("loss", None)} & case.convicted or not bpb.value:
            continue
        ratio = loss.value / bpb.value
        slack = ratio * (rule.relative + loss.last_place / loss.value + bpb.last_place / bpb.value)
        known = sorted(rule.limits.values())
        targets = [value for value, _ in logged] or known
        near = min(targets, key=lambda value: abs(value - ratio))
        evidence = next((reading for value, reading in logged if value == near), None)
        message = f"{loss.place} / {bpb.place} is {ratio:.5f}"
        if abs(near - ratio) <= slack + (0 if logged else 0.005 * ratio):
            yield case.say(
                rule, "pass", f"{message}, as in {evidence.place if evidence else 'a known tokenizer'}", loss, bpb
            )
        elif logged:
            assert evidence is not None
            message = (
                f"{message}; every evaluation of this tokenizer has {near:.5f} ({evidence.place}): not one evaluation"
            )
            severity: Severity = "minor" if _is_logged(case, loss) and _is_logged(case, bpb) else "major"
            yield case.say(rule, "fail", message, loss, bpb, evidence, severity=severity)
        else:
            yield case.say(rule, "note", f"{message}, which no known tokenizer has", loss, bpb)


def _is_logged(case: ForeignCase, claim: Reading) -> bool:
    return find(claim, of_runs(case.submission.runs, readings_of(claim.quantity))) is not None


def _pairs(case: ForeignCase) -> Iterator[tuple[Reading, Reading]]:
    for source in ("summary", "readme"):
        scores = [
            c
            for c in case.submission.claimed("bpb", source=source)
            if c.statistic in ("value", "mean") and c.step is None
        ]
        for loss in case.submission.claimed("loss", source=source):
            if loss.statistic not in ("value", "mean") or loss.value <= 0 or loss.step is not None:
                continue
            same_place = [
                s for s in scores
                if s.seed == loss.seed and s.stage == loss.stage and s.statistic == loss.statistic
                and (source == "summary" or s.line == loss.line) and _parent(s.label) == _parent(loss.label)
            ]  # fmt: skip
            same_key = [s for s in same_place if s.label.replace("bpb", "loss") == loss.label]
            if source == "readme" and len(same_place) != 1:
                continue
            if same_key or len(same_place) == 1:
                yield loss, (same_key or same_place)[0]


def _parent(label: str) -> str:
    return label.rpartition(".")[0]


def _logged_ratios(runs: list[LoggedRun]) -> Iterator[tuple[float, Reading]]:
    for run in runs:
        scores = {(reading.label, reading.line): reading for reading in run.of("bpb")}
        pairs = [(loss, scores.get((loss.label, loss.line))) for loss in run.of("loss")]
        known = [(loss, bpb) for loss, bpb in pairs if bpb is not None and bpb.value > 0]
        for loss, bpb in sorted(known, key=lambda pair: pair[1].last_place)[:1000]:
            yield loss.value / bpb.value, bpb


def split_is_whole(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XD1: fails when the scores are over a part of the validation split and the record does not say so."""
    limited = [
        (run, statement) for run in case.submission.runs for statement in run.limits if _concerns_score(run, statement)
    ]
    is_disclosed = _PARTIAL.search(case.submission.text) is not None
    if limited:
        run, statement = limited[-1]
        evidence = [*run.finals[-1:]]
        message = (
            f'{statement.path}:{statement.line} "{statement.text}": the score is over a part of the validation split'
        )
        status: FindingStatus = "note" if is_disclosed else "fail"
        yield case.say(rule, status, message, *evidence, path=statement.path, line=statement.line)
        return
    for run in case.submission.runs:
        for tokens in run.of("val_tokens")[-1:]:
            smallest = _smallest(run, rule)
            if smallest is not None and tokens.value < rule.limits["part"] * smallest:
                message = f"{tokens.place} says {show_number(tokens)} validation tokens; the split has {smallest:,.0f}"
                yield case.say(rule, "note" if is_disclosed else "fail", message, tokens)
                return
    tokens_known = [tokens for run in case.submission.runs for tokens in run.of("val_tokens")]
    if tokens_known:
        yield case.say(
            rule,
            "pass",
            f"{tokens_known[-1].place}: {show_number(tokens_known[-1])} validation tokens",
            tokens_known[-1],
        )


def _concerns_score(run: LoggedRun, statement: Statement) -> bool:
    """Whether a limit holds for the score after training; a line before a check in training does not."""
    if "limited" not in statement.text:
        return True
    checks = [reading.line or 0 for reading in run.of("loss") if reading.step is not None]
    finals = [reading for reading in run.finals if reading.step is None]
    return not finals or not checks or statement.line > checks[-1]


def _smallest(run: LoggedRun, rule: Rule) -> float | None:
    """Return the size of the smallest known split of the run's tokenizer, in tokens."""
    match = re.search(r"_sp(\d+)(?:\D|$)", run.dataset)
    vocab = match[1] if match is not None else str(run.vocab_size)
    return rule.limits.get(f"sp{vocab}")


def split_is_the_standard_one(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XD2: fails when the known split is scored with another tokenizer constant; notes a split that is not known."""
    known = {int(key): value for key, value in rule.limits.items() if key.isdigit()}
    seen: set[str] = set()
    for run in case.submission.runs:
        tokens = next(iter(run.of("val_tokens")[-1:]), None)
        ratios = list(_logged_ratios([run]))
        if tokens is None or not ratios or run.limits or (key := f"{tokens.text}{ratios[0][0]:.4f}") in seen:
            continue
        seen.add(key)
        ratio, bpb = ratios[0]
        slack = ratio * (rule.relative + bpb.last_place / bpb.value * 2)
        expected = known.get(int(tokens.value))
        message = (
            f"{tokens.place} says {show_number(tokens)} validation tokens, {bpb.place} has loss / score {ratio:.5f}"
        )
        if expected is not None and abs(expected - ratio) > slack:
            yield case.say(rule, "fail", f"{message}; that split has {expected:.5f} with its tokenizer", tokens, bpb)
        elif expected is None and run.dataset and _is_standard(run):
            yield case.say(
                rule, "note", f"{message}: another validation split than the known ones; scores do not compare", tokens
            )
        elif expected is not None:
            yield case.say(rule, "pass", message, tokens)


def _is_standard(run: LoggedRun) -> bool:
    return re.fullmatch(r"fineweb\w*_sp(1024|4096|8192)", run.dataset) is not None
