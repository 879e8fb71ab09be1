"""Claims as rows and cards: what was said, what is so, and by what evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.ledger import Cell, Ledger, Sheet, columns, without_empty, words

VERDICT_WORDS = {
    "confirmed": ("holds", "hold"),
    "contradicted": ("does not hold", "do not hold"),
    "undecided": ("is open", "are open"),
    "unverifiable": ("cannot be checked", "cannot be checked"),
    "evidence": ("is a published fact", "are published facts"),
}
_TRUTHS = {True: "yes", False: "no", None: "undecided"}
Fields = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSummary:
    """A publication and how its claims fare.

    Attributes:
        source: of the document.
        total: number of claims.
        parts: each verdict that occurs: its name, its words, the number, the part of the whole.
    """

    source: Fields
    total: Cell
    parts: Sequence[tuple[str, str, Cell, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimCard:
    """A claim with everything behind it.

    Attributes:
        claim: of the document.
        anchor: id of its element.
        sheets: published numbers, predicates, evidence, readings.
        replies: of its authors.
    """

    claim: Fields
    anchor: str
    sheets: Sequence[Sheet]
    replies: Sequence[Fields]


def summarise_sources(ledger: Ledger) -> Iterator[SourceSummary]:
    """Yield every source with the number of each verdict."""
    for index, source in enumerate(ledger.document["sources"]):
        path = f"sources.{index}"
        parts = [
            (
                verdict,
                VERDICT_WORDS[verdict][number != 1],
                ledger.computed(f"{path}.verdicts.{verdict}", "count"),
                number,
            )
            for verdict, number in source["verdicts"].items()
            if number
        ]
        total = source["num_claims"]
        yield SourceSummary(
            source=source,
            total=ledger.computed(f"{path}.num_claims", "count"),
            parts=[(verdict, word, cell, number / total) for verdict, word, cell, number in parts],
        )


def claims_sheet(ledger: Ledger) -> Sheet:
    """Return the table of all claims."""
    rows = [
        [
            words(claim["name"], href=f"#claim-{claim['name']}"),
            words(claim["statement"]),
            words(claim["verdict"], style=claim["verdict"]),
            words(claim["reduced"]),
            words(_kind(claim)),
            words(claim["why"]),
        ]
        for claim in ledger.document["claims"]
    ]
    return Sheet(
        title="Claims",
        columns=columns("claim", "statement", "verdict", "reduced scale", "evidence", "why"),
        rows=rows,
    )


def _kind(claim: Fields) -> str:
    return ", ".join(claim["kinds"])


def claim_cards(ledger: Ledger) -> Iterator[ClaimCard]:
    """Yield a card for each claim."""
    for index, claim in enumerate(ledger.document["claims"]):
        replies = [
            each for each in ledger.document["responses"] if (each["kind"], each["subject"]) == ("claim", claim["name"])
        ]
        yield ClaimCard(
            claim=claim,
            anchor=f"claim-{claim['name']}",
            sheets=[without_empty(sheet) for sheet in _sheets(ledger, index, claim)],
            replies=replies,
        )


def _sheets(ledger: Ledger, index: int, claim: Fields) -> Iterator[Sheet]:
    if published := [*_published(ledger, claim)]:
        yield Sheet(
            title="Published numbers",
            columns=columns("name", "printed", "where", "note", numbers="printed"),
            rows=published,
        )
    if claim["predicates"]:
        names = ("asks", "counts for", "answer", "p", "at half / double margin", "flips at margin times")
        rows = [
            _predicate(ledger, f"claims.{index}.predicates.{at}", each) for at, each in enumerate(claim["predicates"])
        ]
        yield Sheet(title="What has to be so", columns=columns(*names, numbers=f"p|{names[-1]}"), rows=rows)
    if evidence := [*_evidence(ledger, index, claim)]:
        yield Sheet(title="Evidence", columns=columns("call", "value", "kind", "from", numbers="value"), rows=evidence)
    if claim["series"]:
        yield _series_sheet(ledger, index, claim)
    if claim["readings"]:
        stated = claim["stated_reading"]
        readings = [
            [words(f"{name}{' (as published)' if name == stated else ''}"), words(verdict, style=verdict)]
            for name, verdict in claim["readings"].items()
        ]
        yield Sheet(title="Under each reading", columns=columns("reading", "verdict"), rows=readings)


def _published(ledger: Ledger, claim: Fields) -> Iterator[list[Cell]]:
    content = ledger.document["files"][claim["file"]]
    for name in claim["facts"]:
        fact = content["facts"][name]
        printed = ledger.number(f"{claim['file']}#facts.{name}.value", "plain")
        yield [words(name, style="code"), printed, words(fact["where"]), words(fact["note"])]
    for name in claim["margins"]:
        printed = ledger.number(f"{claim['file']}#margins.{name}.value", "plain")
        yield [
            words(name, style="code"),
            printed,
            words("margin of this file"),
            words(content["margins"][name]["reason"]),
        ]


def _predicate(ledger: Ledger, path: str, each: Fields) -> list[Cell]:
    scope = "reduced scale" if each["is_reduced"] else each["reading"] or "every reading"
    scope += f", {each['standing']}" if each["standing"] else ""
    margins = [_TRUTHS[each[key]] for key in ("truth_at_half_margin", "truth_at_double_margin")]
    has_margins = any(each[key] is not None for key in ("truth_at_half_margin", "truth_at_double_margin"))
    answer = each["missing"] or _TRUTHS[each["truth"]]
    return [
        words(each["says"], detail=each["holds_if"]),
        words(scope),
        words(answer, style="" if each["missing"] else f"answer-{answer}"),
        ledger.computed(f"{path}.p_value", "p"),
        words(" / ".join(margins) if has_margins else ""),
        ledger.computed(f"{path}.flip_factor", "power"),
    ]


def _series_sheet(ledger: Ledger, index: int, claim: Fields) -> Sheet:
    """An effect at each size on a row, the line through them on the last."""
    names = ("effect", "stored parameters", "is", "from", "to", "p", "trend")
    rows = []
    for at, series in enumerate(claim["series"]):
        path = f"claims.{index}.series.{at}"
        label = f"{series['name']}: {series['asks']}"
        style = "bpb" if series["asks"].startswith("ratio") else "signed"
        for nth in range(len(series["sizes"])):
            size = f"{path}.sizes.{nth}"
            params = ledger.computed(f"{size}.num_params", "count")
            rows.append([words(label), params, *_limits(ledger, size, style), words(""), words("")])
        p_value = ledger.computed(f"{path}.p_value", "p")
        trend = words(series["trend"])
        doubling = words(f"{label}, for a doubling")
        rows.append([doubling, words(""), *_limits(ledger, f"{path}.per_doubling", style), p_value, trend])
    return Sheet(
        title="Effects over size",
        columns=columns(*names, numbers="|".join(names[1:6])),
        rows=rows,
        note="Intervals of effects at the levels of their answers, of slopes at 95%, each corrected for how many there "
        "are of one source (Holm). A doubling of the stored parameters adds to a difference and multiplies a ratio; "
        "nothing follows for other sizes.",
    )


def _limits(ledger: Ledger, path: str, style: str) -> list[Cell]:
    return [ledger.computed(f"{path}.{key}", style) for key in ("value", "low", "high")]


def _evidence(ledger: Ledger, index: int, claim: Fields) -> Iterator[list[Cell]]:
    seen: set[str] = set()
    for at, predicate in enumerate(claim["predicates"]):
        for nth, item in enumerate(predicate["evidence"]):
            if item["call"] in seen:
                continue
            seen.add(item["call"])
            value = ledger.computed(f"claims.{index}.predicates.{at}.evidence.{nth}.value", "plain")
            yield [words(item["call"], style="code"), value, words(item["kind"]), words(item["origin"])]
