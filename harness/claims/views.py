"""What `harness claims` shows: verdicts, one claim with everything behind it, what is left and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from harness.claims.answer import Answer
from harness.claims.expressions import LANGUAGE, names_in
from harness.claims.fetches import FETCHES
from harness.claims.quantities import Number
from harness.claims.schema import LoadedClaims
from harness.claims.series import Series
from harness.claims.verdict import Judgement, deciding_answers
from harness.tables import Table, View

Judged = Sequence[tuple[LoadedClaims, Sequence[Judgement]]]
VERDICTS = ("confirmed", "contradicted", "undecided", "unverifiable", "evidence")
_SAID = {True: "yes", False: "no", None: "undecided"}


def claims_view(judged: Judged) -> View:
    """Show the verdict of every claim, a line each, and how many there are of each by source."""
    rows = [
        (each.name, each.claim.statement, _verdict_with_signal(each), each.why)
        for _, judgements in judged
        for each in judgements
    ]
    counts = [
        (loaded.content.source.title, *(str(sum(each.verdict == name for each in judgements)) for name in VERDICTS))
        for loaded, judgements in judged
    ]
    return View(
        tables=[
            Table(title="claims", columns=("claim", "statement", "verdict", "why"), rows=rows),
            Table(title="verdicts by source", columns=("source", *VERDICTS), rows=counts, right=frozenset(range(1, 6))),
        ],
        data={"claims": [judgement_data(loaded, each) for loaded, judgements in judged for each in judgements]},
    )


def claim_view(loaded: LoadedClaims, judgement: Judgement) -> View:
    """Show one claim: statement, published numbers, evidence with where it comes from, answers, readings, margins."""
    return View(tables=list(_claim_tables(loaded, judgement)), data=judgement_data(loaded, judgement))


def _verdict_with_signal(judgement: Judgement) -> str:
    """The verdict, and beside it what evidence at reduced scale says."""
    return f"{judgement.verdict}; reduced scale: {judgement.reduced}" if judgement.reduced else judgement.verdict


def cost_view(judged: Judged) -> View:
    """Show what is undecided, the cheapest command that would decide it and what that takes."""
    found = [each for _, judgements in judged for each in judgements if each.verdict == "undecided"]
    rows = [(each.name, each.claim.decide or "-", each.claim.cost or "-", each.why) for each in found]
    data = [{"claim": each.name, "decide": each.claim.decide, "cost": each.claim.cost} for each in found]
    return View(
        tables=[Table(title="undecided claims", columns=("claim", "command", "cost", "why"), rows=rows)],
        data={"undecided": data},
    )


def language_view() -> View:
    """Show the language of predicates and its functions."""
    rows = [(info.call, info.kind, info.summary) for info in FETCHES.values()]
    return View(
        tables=[
            Table(title="the language of predicates", columns=("what", "means"), rows=LANGUAGE),
            Table(title="functions that fetch evidence", columns=("call", "kind", "gives"), rows=rows),
        ],
        data={"language": dict(LANGUAGE), "functions": {name: info._asdict() for name, info in FETCHES.items()}},
    )


def judgement_data(loaded: LoadedClaims, judgement: Judgement) -> dict[str, Any]:
    """Return a judgement as JSON values."""
    claim = judgement.claim
    return {
        "name": judgement.name,
        "source": loaded.content.source.model_dump(),
        "statement": claim.statement,
        "scale": claim.scale,
        "verdict": judgement.verdict,
        "reduced": judgement.reduced,
        "series": [_series_data(each) for each in judgement.series],
        "standing": judgement.standing,
        "claim_sha256": judgement.claim_sha256,
        "why": judgement.why,
        "readings": dict(judgement.readings),
        "remark": claim.remark,
        "decide": claim.decide,
        "cost": claim.cost,
        "counter": claim.counter,
        "counter_evidence": [
            {"not_so": not_so, "quoted": quoted, "from": origin}
            for not_so, quoted, origin in _counter_evidence(loaded, judgement)
            if judgement.verdict == "contradicted"
        ],
        "predicates": [_answer_data(answer) for answer in judgement.answers],
    }


def _answer_data(answer: Answer) -> dict[str, Any]:
    predicate = answer.predicate
    return {
        "says": predicate.says,
        "holds_if": predicate.holds_if,
        "kind": predicate.kind,
        "reading": predicate.reading,
        "is_reduced": predicate.is_reduced,
        "series": predicate.series,
        "truth": answer.truth,
        "missing": answer.missing,
        "standing": answer.standing,
        "p_value": answer.p_value,
        "alpha": answer.alpha,
        "truth_at_half_margin": answer.truth_at_half_margin,
        "truth_at_double_margin": answer.truth_at_double_margin,
        "margins": list(answer.margins),
        "flip_factor": answer.flip_factor,
        "evidence": [asdict(item) for item in answer.items],
    }


def _series_data(series: Series) -> dict[str, Any]:
    sizes = [
        {"num_params": each.num_params, "truth": each.truth, "alpha": each.alpha, **_number_data(each.effect)}
        for each in series.sizes
    ]
    return {
        "name": series.name,
        "asks": series.asks,
        "sizes": sizes,
        "per_doubling": series.per_doubling and _number_data(series.per_doubling),
        "p_value": series.p_value,
        "alpha": series.alpha,
        "trend": series.trend,
    }


def _number_data(number: Number) -> dict[str, float]:
    return {"value": number.value, "low": number.low, "high": number.high}


def _claim_tables(loaded: LoadedClaims, judgement: Judgement) -> Iterator[Table]:
    yield _summary_table(loaded, judgement)
    if judgement.answers:
        yield _answers_table(loaded, judgement.answers)
    if used := published_numbers(loaded, judgement):
        yield Table(title="published numbers", columns=("name", "printed", "where", "note"), rows=used)
    if judgement.verdict == "contradicted":
        quoted = _counter_evidence(loaded, judgement)
        yield Table(title="counter-evidence", columns=("not so", "quoted", "from"), rows=quoted)
    items = {item.call: item for answer in judgement.answers for item in answer.items}
    if items:
        found = [(item.call, item.value, item.kind, item.origin) for item in items.values()]
        yield Table(title="evidence", columns=("call", "value", "kind", "from"), rows=found)
    if judgement.series:
        yield _series_table(judgement.series)
    if judgement.readings:
        stated = judgement.claim.stated_reading
        readings = [
            (f"{reading}{' (as published)' if reading == stated else ''}", verdict)
            for reading, verdict in judgement.readings.items()
        ]
        yield Table(title="under each reading", columns=("reading", "verdict"), rows=readings)


def _summary_table(loaded: LoadedClaims, judgement: Judgement) -> Table:
    claim, source = judgement.claim, loaded.content.source
    summary = [
        ("statement", claim.statement),
        ("source", f"{source.title}, {source.date}, {source.url}"),
        ("scale", claim.scale or "none stated"),
        ("verdict", judgement.verdict),
        ("reduced scale", judgement.reduced),
        ("runs", judgement.standing),
        ("why", judgement.why),
        ("remark", claim.remark),
        ("not published", claim.unpublished),
        ("would decide it", claim.decide and f"{claim.decide} ({claim.cost or 'cost not known'})"),
        ("see for yourself", claim.counter),
    ]
    rows = [(what, value) for what, value in summary if value]
    return Table(title=f"claim {judgement.name}", columns=("what", "value"), rows=rows)


def published_numbers(loaded: LoadedClaims, judgement: Judgement) -> list[tuple[str, str, str, str]]:
    """Return name, print, place and note of each fact and margin that the predicates of a claim name."""
    names = set[str]().union(*(names_in(answer.predicate.tree) for answer in judgement.answers))
    facts, margins = loaded.content.facts.items(), loaded.content.margins.items()
    printed = [(name, fact.value, fact.where, fact.note) for name, fact in facts if name in names]
    return printed + [(name, each.value, "margin of this file", each.reason) for name, each in margins if name in names]


def _counter_evidence(loaded: LoadedClaims, judgement: Judgement) -> list[tuple[str, str, str]]:
    """Quote each published number, margin and piece of evidence by which a predicate of the verdict does not hold."""
    rows = []
    for answer in (each for each in deciding_answers(judgement.claim, judgement.answers) if each.truth is False):
        names = names_in(answer.predicate.tree)
        facts = ((name, fact) for name, fact in loaded.content.facts.items() if name in names)
        quotes = [(f"{name}: {fact.value}", fact.where) for name, fact in facts]
        margins = ((name, loaded.content.margins[name]) for name in sorted(names & loaded.content.margins.keys()))
        quotes += [(f"{name}: {margin.value}", f"margin of this file: {margin.reason}") for name, margin in margins]
        quotes += [(f"{item.call}: {item.value}", item.origin) for item in answer.items]
        quotes = quotes or [(answer.predicate.holds_if, "the predicate")]
        rows += [(answer.predicate.says if at == 0 else "", *quote) for at, quote in enumerate(quotes)]
    return rows


def _answers_table(loaded: LoadedClaims, answers: Sequence[Answer]) -> Table:
    rows = [
        (
            answer.predicate.says,
            answer.predicate.holds_if,
            _counts_for(answer),
            answer.missing or _SAID[answer.truth],
            "-" if answer.p_value is None else f"{answer.p_value:.2g}",
            _at_other_margins(loaded, answer),
        )
        for answer in answers
    ]
    columns = ("asks", "holds if", "counts for", "answer", "p", "at half / double margin; where it flips")
    return Table(title="predicates", columns=columns, rows=rows)


def _counts_for(answer: Answer) -> str:
    predicate = answer.predicate
    scope = "reduced scale" if predicate.is_reduced else predicate.reading or "every reading"
    return f"{scope}, {answer.standing}" if answer.standing else scope


def _series_table(series: Sequence[Series]) -> Table:
    rows = [
        (
            each.name,
            each.asks,
            "; ".join(f"{size.num_params:,.0f}: {size.effect.shown}" for size in each.sizes) or "-",
            each.per_doubling.shown if each.per_doubling else "-",
            "-" if each.p_value is None else f"{each.p_value:.2g}",
            each.trend,
        )
        for each in series
    ]
    columns = ("series", "asks", "effect at stored parameters", "a doubling adds (a ratio: times)", "p", "trend")
    return Table(title="trends over size", columns=columns, rows=rows)


def _at_other_margins(loaded: LoadedClaims, answer: Answer) -> str:
    if not answer.margins:
        return "-"
    said = f"{_SAID[answer.truth_at_half_margin]} / {_SAID[answer.truth_at_double_margin]}"
    if answer.flip_factor is None:
        return f"{said}; none flips it"
    values = {name: answer.flip_factor * loaded.content.margins[name].number.value for name in answer.margins}
    # several margins are moved by one factor
    return f"{said}; flips at {' with '.join(f'{name} {value:.4g}' for name, value in values.items())}"
