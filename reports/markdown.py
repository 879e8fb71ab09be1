"""The same content as GitHub Markdown, for a pull request: every cell escaped, nobody mentioned, nothing linked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.tables import Table, clean_markdown
from reports.ledger import Cell, Sheet, columns, words
from reports.plots import Figure
from reports.view import Page
from reports.view_bytes import Bar

FIGURES_FOLDER = "figures"


def render_markdown(page: Page) -> str:
    """Return the report as Markdown."""
    blocks = [
        *_summary(page),
        *_claims(page),
        *_comparisons(page),
        *_records(page),
        *_audit(page),
        *_gaps(page),
        *_repeat(page),
    ]
    return "\n\n".join(block.strip("\n") for block in blocks if block) + "\n"


def _summary(page: Page) -> Iterator[str]:
    counts = {key: cell.text for key, cell in page.counts.items()}
    yield "# What was claimed, what holds"
    yield clean_markdown(
        f"{counts['claims']} claims of {counts['sources']} publications, judged by {counts['records']} runs: "
        f"{counts['confirmed']} hold, {counts['contradicted']} do not, {counts['undecided']} are open, "
        f"{counts['unverifiable']} cannot be checked, {counts['evidence']} are published facts."
    )
    items = []
    for each in page.sources:
        parts = ", ".join(f"{cell.text} {word}" for _, word, cell, _ in each.parts)
        title, date = each.source["title"], each.source["date"]
        items.append(f"- {clean_markdown(f'{title} ({date}): of {each.total.text} claims {parts}.')}")
    yield "\n".join(items)


def _claims(page: Page) -> Iterator[str]:
    yield "## Claims"
    yield _table(page.claims)
    for card in page.cards:
        claim = card.claim
        yield f"### {clean_markdown(claim['name'])}: {clean_markdown(claim['statement'])}"
        said = [
            ("verdict", claim["verdict"]),
            ("why", claim["why"]),
            ("scale", claim["scale"] or "none stated"),
            ("reduced scale", claim["reduced"]),
            ("runs", claim["standing"]),
            ("remark", claim["remark"]),
            ("not published", claim["unpublished"]),
            ("would decide it", claim["decide"]),
            ("cost", claim["cost"]),
            ("see for yourself", claim["counter"]),
        ]
        yield _list(said)
        yield from map(_table, card.sheets)
        yield from _replies(card.replies)


def _comparisons(page: Page) -> Iterator[str]:
    yield "## Scores"
    for view in page.groups:
        yield f"### {clean_markdown(view.group['title'])}"
        yield clean_markdown(view.headline)
        yield clean_markdown("".join(cell.text for cell in view.conditions))
        yield from map(_table, view.sheets)
        if view.bars:
            yield _table(_bytes_sheet(view.bars))
        yield from map(_figure, page.figures_of(view.group["slug"]))
        yield "\n".join(f"- {clean_markdown(note)}" for note in view.notes)
        yield f"Repeat: {clean_markdown(view.command)}"
    yield from map(_table, page.trends)
    yield from map(_figure, page.figures_of(""))


def _bytes_sheet(bars: Sequence[Bar]) -> Sheet:
    names = list(dict.fromkeys(part for bar in bars for part, *_ in bar.parts))
    rows = []
    for bar in bars:
        own = {part: cell for part, cell, _ in bar.parts}
        rows.append([words(bar.name), bar.total, *(own.get(name, words("")) for name in names)])
    heads = ("contender", "file bytes", *names)
    return Sheet(
        title="Stored bytes by part, mean over seeds", columns=columns(*heads, numbers="|".join(heads[1:])), rows=rows
    )


def _records(page: Page) -> Iterator[str]:
    yield "## Records"
    for card in page.records:
        yield f"### {clean_markdown(card.entry['folder'])}"
        yield _list([("what", card.title), ("verified", card.entry["verdict"]), *card.facts])
        yield from map(_table, card.sheets)
        if card.parts:
            yield _list([(f"{name}, bytes", cell.text) for name, cell, _ in card.parts])
        yield _list([*card.hashes, *card.commands])
        yield from _replies(card.replies)
    if page.trials.rows:
        yield _table(page.trials)


def _audit(page: Page) -> Iterator[str]:
    audit = page.document["audit"]
    yield "## Audit"
    yield clean_markdown(f"Level {audit['level'] or 'none'}, rules {audit['rules_version'] or 'none'}.")
    yield "\n".join(f"- {clean_markdown(f'rules changed: {change}')}" for change in audit["rule_changes"])
    yield from (_table(sheet) for sheet in (page.foreign, page.audited) if sheet.rows)
    shown = {card.entry["folder"] for card in page.records}
    for record, _, sheet in page.findings:
        yield _table(sheet)
        if record not in shown:
            yield from _replies(page.replies_to(record))


def _gaps(page: Page) -> Iterator[str]:
    yield "## Not verified, and why"
    items = []
    for gap in page.gaps:
        settle = f" Settle it: {gap.command}" if gap.command else ""
        cost = f" ({gap.cost})" if gap.cost else ""
        items.append(f"- **{clean_markdown(gap.what)}**: {clean_markdown(f'{gap.why}.{settle}{cost}')}")
    yield "\n".join(items)


def _repeat(page: Page) -> Iterator[str]:
    yield "## How to repeat it"
    yield _list(page.repeat)
    yield _table(page.environments)
    yield _table(page.inputs)


def _table(sheet: Sheet) -> str:
    right = frozenset(at for at, column in enumerate(sheet.columns) if column.is_number)
    rows = [[_text(cell) for cell in row] for row in sheet.rows]
    table = Table(
        title=sheet.title, columns=[clean_markdown(column.name) for column in sheet.columns], rows=rows, right=right
    )
    note = f"\n\n{clean_markdown(sheet.note)}" if sheet.note else ""
    return table.to_markdown().strip() + note


def _text(cell: Cell) -> str:
    return f"{cell.text} ({cell.detail})" if cell.detail else cell.text


def _list(items: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- {clean_markdown(what)}: {clean_markdown(value)}" for what, value in items if value)


def _figure(figure: Figure) -> str:
    return f"![{clean_markdown(figure.title)}]({FIGURES_FOLDER}/{figure.slug}.png)\n\n{clean_markdown(figure.caption)}"


def _replies(replies: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for each in replies:
        when = "" if each["is_current"] else " (to an earlier version of it)"
        yield f"Reply of {clean_markdown(each['author'] or 'its author')}{when}:"
        text = each["problem"] or each["text"]
        yield "\n".join(f"> {clean_markdown(line)}" for line in text.splitlines())
