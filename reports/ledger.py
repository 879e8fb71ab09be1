"""Cells of tables. A number is looked up in the document by its source, so that none stands on a page without one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from harness.tables import clean
from reports.document import REPORT_FILE

NONE_TEXT = "–"
STYLES: Mapping[str, Callable[[Any], str]] = {
    "count": lambda value: f"{value:,.0f}",
    "bpb": lambda value: f"{value:.4f}",
    "signed": lambda value: f"{value:+.4f}",
    "tenths": lambda value: f"{value:,.1f}",
    "percent": lambda value: f"{value:.2%}",
    "power": lambda value: f"{value:.3g}",
    "megabytes": lambda value: f"{value / 1e6:,.0f}",
    "p": lambda value: f"{value:.4f}" if value >= 1e-4 else f"{value:.1e}",
    "plain": str,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What stands in a place of a page.

    Attributes:
        text: as shown.
        source: `FILE#FIELD` of the number; empty for words.
        href: where a click leads; empty for nowhere.
        value: what a column is sorted by.
        style: how a renderer sets it: "", "code" or a verdict or status.
        detail: a second line, set as code.
    """

    text: str
    source: str = ""
    href: str = ""
    value: float | str | None = None
    style: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column: its heading, whether it holds numbers, and what the heading means."""

    name: str
    is_number: bool = False
    hint: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """A table of a page.

    Attributes:
        title: caption.
        columns: headings.
        rows: cells, one a column.
        note: a sentence below.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


def without_empty(sheet: Sheet) -> Sheet:
    """Return a sheet without the columns in which no row says anything."""
    kept = [at for at in range(len(sheet.columns)) if any(row[at].text != NONE_TEXT for row in sheet.rows)]
    rows = [[row[at] for at in kept] for row in sheet.rows]
    return replace(sheet, columns=[sheet.columns[at] for at in kept], rows=rows)


def columns(*names: str, numbers: str = "") -> list[Column]:
    """Return columns by name; those named in `numbers`, parted by |, hold numbers."""
    are_numbers = set(numbers.split("|"))
    return [Column(name=name, is_number=name in are_numbers) for name in names]


def words(text: object, *, style: str = "", href: str = "", detail: str = "") -> Cell:
    """Return a cell without a number of its own."""
    shown = str(text) if text not in (None, "") else NONE_TEXT
    return Cell(text=shown, style=style, href=href, value=shown, detail=detail)


def resolve(document: Mapping[str, Any], source: str) -> Any:
    """Return what stands at `FILE#FIELD`; keys of a field are joined by dots and may hold some themselves.

    Raises:
        KeyError: nothing does.
    """
    ends = [at for at, character in enumerate(source) if character == "#"]
    for end in ends:
        file, path = source[:end], source[end + 1 :]
        if file != REPORT_FILE and file not in document["files"]:
            continue
        try:
            return _descend(document if file == REPORT_FILE else document["files"][file], path.split("."))
        except KeyError:
            break
    raise KeyError(source)


def _descend(place: Any, keys: Sequence[str]) -> Any:
    if not keys:
        return place
    if isinstance(place, list):
        if not keys[0].isdecimal() or int(keys[0]) >= len(place):
            raise KeyError(keys[0])
        return _descend(place[int(keys[0])], keys[1:])
    if isinstance(place, dict):
        for end in range(1, len(keys) + 1):
            if (key := ".".join(keys[:end])) in place:
                with suppress(KeyError):
                    return _descend(place[key], keys[end:])
        for key, value in place.items():
            # a source on a page shows the control characters of a stranger's key as escapes
            if clean(key) == ".".join(keys):
                return value
    raise KeyError(".".join(keys))


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """Makes cells of a document.

    Attributes:
        document: as `build_document` returns it.
        anchors: element of the page that shows a file, by the file's name.
    """

    document: Mapping[str, Any]
    anchors: Mapping[str, str] = field(default_factory=dict)

    def number(self, source: str, style: str, *, href: str = "", suffix: str = "") -> Cell:
        """Return the cell of a number; a dash where the document has none at its place."""
        try:
            value = resolve(self.document, source)
        except KeyError:
            value = None
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return Cell(text=NONE_TEXT, value=None)
        shown = f"{STYLES[style](value)}{suffix}"
        anchor = self.anchors.get(source.partition("#")[0], "")
        return Cell(text=shown, source=source, href=href or (f"#{anchor}" if anchor else ""), value=value)

    def computed(self, path: str, style: str, **more: str) -> Cell:
        """Return the cell of a number that was computed for the report."""
        return self.number(f"{REPORT_FILE}#{path}", style, **more)
