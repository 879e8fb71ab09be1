"""From predicates to a verdict: what holds, at which scale, under which reading, and at which margin it would flip.

Intervals of our runs are corrected for the number of predicates of one source that rest on runs (Holm): the p-value of
a predicate is the level at which its answer stops being the answer of the point estimates, found by asking it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness.claims.answer import ALPHA, Answer, Standing
from harness.claims.evidence import Evidence, Item
from harness.claims.expressions import Names, evaluate_truth, may_say_equal, names_in
from harness.claims.quantities import Truth, all_of
from harness.claims.reproduction import MissingEvidenceError
from harness.claims.schema import Claim, LoadedClaims, Predicate, numbers_of
from harness.claims.sealing import hash_claim, hashes_by_length
from harness.claims.series import Series, correct_series, find_series
from harness.errors import HarnessError
from harness.stats import holm_levels

Verdict = Literal["confirmed", "contradicted", "undecided", "unverifiable", "evidence"]
Signal = Literal["supports", "opposes", "no signal", ""]
# A predicate whose answer holds at this level holds at any that is asked for.
_SMALLEST_ALPHA = 1e-9
_NUM_HALVINGS = 40
_MAX_DOUBLINGS = 10


class WrongPredicateError(MissingEvidenceError):
    """A predicate that cannot be asked: it stays undecided, and the others are asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """A claim, its answers and the verdict.

    Attributes:
        name: of the claim across files.
        claim: that was judged.
        answers: one a predicate, in order.
        verdict: of the claim as it was published.
        reduced: what evidence at another scale says, in the reading in which it was published.
        series: effects at several sizes, with their trends.
        readings: the verdict under each reading.
    """

    name: str
    claim: Claim
    answers: tuple[Answer, ...]
    verdict: Verdict
    reduced: Signal
    series: tuple[Series, ...]
    readings: Mapping[str, Verdict]
    claim_sha256: str

    @property
    def standing(self) -> Standing:
        """`sealed` where every answer that rests on runs is, else `exploratory`; empty without runs."""
        standings = {answer.standing for answer in self.answers if answer.standing}
        return "" if not standings else "sealed" if standings == {"sealed"} else "exploratory"

    @property
    def why(self) -> str:
        """The verdict's reason in a line."""
        if self.verdict == "evidence":
            return "a published fact by which other claims are judged"
        deciding = deciding_answers(self.claim, self.answers)
        against = [each.predicate.says for each in deciding if each.truth is False]
        if against:
            return f"not so: {against[0]}"
        if self.verdict == "unverifiable":
            return f"not published: {self.claim.unpublished}"
        if self.verdict == "confirmed":
            more = f"; and {len(deciding) - 2} more" if len(deciding) > 2 else ""
            return "; ".join(each.predicate.says for each in deciding[:2]) + more
        missing = [each.missing or f"not decided: {each.predicate.says}" for each in deciding if each.truth is None]
        if missing:
            return missing[0]
        return "not run at its scale, only smaller" if self.reduced else f"not run; {self.claim.decide}"


def judge(loaded: LoadedClaims, evidence: Evidence) -> list[Judgement]:
    """Judge every claim of a file.

    Args:
        loaded: the claims.
        evidence: where it comes from.

    A predicate that calls a function wrongly stays undecided and says so.
    """
    asked = [(claim, predicate) for claim in loaded.content.claims for predicate in claim.predicates]
    answers = {id(predicate): _ask_first(loaded, claim, predicate, evidence) for claim, predicate in asked}
    p_values = {key: each.p_value for key, each in answers.items() if each.p_value is not None}
    levels = dict(zip(p_values, holm_levels(list(p_values.values()), ALPHA), strict=True))
    for claim, predicate in asked:
        answer = answers[id(predicate)]
        if not answer.missing:
            level = levels.get(id(predicate), ALPHA)
            answers[id(predicate)] = _ask_margins(loaded, claim, replace(answer, alpha=level), evidence)
    by_claim = [[answers[id(each)] for each in claim.predicates] for claim in loaded.content.claims]
    series = correct_series([find_series(each) for each in by_claim])
    return [_judge(loaded, *each) for each in zip(loaded.content.claims, by_claim, series, strict=True)]


def _judge(loaded: LoadedClaims, claim: Claim, answers: Sequence[Answer], series: Sequence[Series]) -> Judgement:
    hashes = hashes_by_length(loaded, claim)
    answers = [replace(each, standing=_standing(each, hashes[at:])) for at, each in enumerate(answers)]
    return Judgement(
        name=loaded.name_of(claim),
        claim=claim,
        answers=tuple(answers),
        verdict=_verdict(claim, deciding_answers(claim, answers)),
        reduced=_signal(_reduced_truths(claim, answers)),
        series=tuple(series),
        claim_sha256=hash_claim(loaded, claim),
        readings={reading: _verdict(claim, deciding_answers(claim, answers, reading)) for reading in claim.readings},
    )


def _standing(answer: Answer, hashes: Sequence[str]) -> Standing:
    runs = [seals for item in answer.items for seals in item.seals]
    return "" if not runs else "sealed" if all(set(seals) & set(hashes) for seals in runs) else "exploratory"


def deciding_answers(claim: Claim, answers: Sequence[Answer], reading: str | None = None) -> list[Answer]:
    """The answers that decide the claim at its scale, in the reading in which it was published or in another."""
    readings = ("", claim.stated_reading if reading is None else reading)
    return [each for each in answers if not each.predicate.is_reduced and each.predicate.reading in readings]


def _verdict(claim: Claim, answers: Sequence[Answer]) -> Verdict:
    if claim.evidence:
        return "evidence"
    truth = all_of([each.truth for each in answers]) if answers else None
    if truth is False:
        return "contradicted"
    if claim.unpublished:
        return "unverifiable"
    return "confirmed" if truth else "undecided"


def _reduced_truths(claim: Claim, answers: Sequence[Answer]) -> list[Truth]:
    """What evidence at reduced scale says in the published reading; series, which no seal covers, play no part."""
    stated = ("", claim.stated_reading)
    reduced = (each for each in answers if each.predicate.is_reduced and each.predicate.reading in stated)
    return [each.truth for each in reduced if not each.missing]


def _signal(truths: Sequence[Truth]) -> Signal:
    if not truths:
        return ""
    truth = all_of(truths)
    return "no signal" if truth is None else "supports" if truth else "opposes"


def _ask(
    loaded: LoadedClaims, claim: Claim, predicate: Predicate, evidence: Evidence, *, alpha: float, factor: float = 1.0
) -> tuple[Truth, dict[str, Item]]:
    """Ask a predicate at a level and with its margins times a factor.

    Raises:
        MissingEvidenceError: evidence is not there.
        WrongPredicateError: the predicate calls a function wrongly, or computes no finite number.
    """
    items: dict[str, Item] = {}
    names = Names(facts=numbers_of(loaded, factor), fetches=evidence.fetches(alpha, items))
    try:
        return evaluate_truth(predicate.tree, names), items
    except MissingEvidenceError:
        raise
    except HarnessError as error:
        raise WrongPredicateError(f"wrong predicate: {error}") from error


def _ask_again(
    loaded: LoadedClaims, claim: Claim, predicate: Predicate, evidence: Evidence, *, alpha: float, factor: float = 1.0
) -> tuple[Truth, dict[str, Item]]:
    """As `_ask`, of a predicate that could be asked: undecided where wider limits or another margin give no number."""
    try:
        return _ask(loaded, claim, predicate, evidence, alpha=alpha, factor=factor)
    except WrongPredicateError:
        return None, {}


def _ask_first(loaded: LoadedClaims, claim: Claim, predicate: Predicate, evidence: Evidence) -> Answer:
    try:
        truth, items = _ask(loaded, claim, predicate, evidence, alpha=ALPHA)
    except WrongPredicateError as error:
        # no number within the limits of our runs, such as a division by what may be zero, is no mistake of the file
        has_points = predicate.kind == "reproduction" and _ask_again(loaded, claim, predicate, evidence, alpha=1.0)[1]
        missing = f"not decided within the limits of the runs: {error.__cause__}" if has_points else str(error)
        return Answer(predicate=predicate, truth=None, missing=missing, is_wrong=not has_points)
    except MissingEvidenceError as error:
        return Answer(predicate=predicate, truth=None, missing=str(error))
    p_value = _p_value(loaded, claim, predicate, evidence) if predicate.kind == "reproduction" else None
    return Answer(predicate=predicate, truth=truth, items=tuple(items.values()), p_value=p_value)


def _p_value(loaded: LoadedClaims, claim: Claim, predicate: Predicate, evidence: Evidence) -> float | None:
    """The level at which the answer of the point estimates ceases to be the answer; None where they give none."""

    def answer(alpha: float) -> Truth:
        return _ask_again(loaded, claim, predicate, evidence, alpha=alpha)[0]

    if (of_points := answer(1.0)) is None:
        return None
    low, high = math.log(_SMALLEST_ALPHA), 0.0
    if answer(_SMALLEST_ALPHA) == of_points:
        # that two numbers may be one is no rejection of anything, however wide their limits
        return 1.0 if may_say_equal(predicate.tree, of_points) else _SMALLEST_ALPHA
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if answer(math.exp(middle)) == of_points else (middle, high)
    return math.exp(high)


def _ask_margins(loaded: LoadedClaims, claim: Claim, answer: Answer, evidence: Evidence) -> Answer:
    """Ask again at the corrected level, with half and double margins, and for the margin at which the answer flips."""
    predicate = answer.predicate
    truth, items = _ask_again(loaded, claim, predicate, evidence, alpha=answer.alpha)
    answer = replace(answer, truth=truth, items=tuple(items.values()) or answer.items)
    if not (margins := tuple(sorted(names_in(predicate.tree) & loaded.content.margins.keys()))):
        return answer

    def at(factor: float) -> Truth:
        return _ask_again(loaded, claim, predicate, evidence, alpha=answer.alpha, factor=factor)[0]

    return replace(
        answer,
        truth_at_half_margin=at(0.5),
        truth_at_double_margin=at(2.0),
        margins=margins,
        flip_factor=_flip_factor(at, truth),
    )


def _flip_factor(at: Callable[[float], Truth], truth: Truth) -> float | None:
    """Return the factor nearest to 1 at which the answer is no longer `truth`, to six digits."""
    for doublings in range(1, _MAX_DOUBLINGS + 1):
        for sign in (-1, 1):
            if at(2.0 ** (sign * doublings)) == truth:
                continue
            same, other = float(sign * (doublings - 1)), float(sign * doublings)
            for _ in range(_NUM_HALVINGS):
                middle = (same + other) / 2
                same, other = (middle, other) if at(2.0**middle) == truth else (same, middle)
            return float(f"{2.0**other:.6g}")
    return None
