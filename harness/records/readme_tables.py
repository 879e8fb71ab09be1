"""Tables in a README, Markdown and HTML: headings, rows with their lines, and the words they stand under."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import re2

MAX_LINE_CHARACTERS = 4000
MAX_TABLE_LINES = 2000
MAX_COLUMNS = 64

_SEPARATOR = re2.compile(r"^\|?\s*:?-+:?\s*(\|\s*:?-*:?\s*)*\|?\s*$")
_CELL = re.compile(r"(?:\\.|[^|\\])*")
_ROW = re.compile(r"<tr[\s>]", re.I)
_HTML_CELL = re.compile(r"<t[dh](?:\s[^>]{0,200})?>([^\n]{0,400}?)(?=</t[dh]>|<t[dh][\s>]|$)", re.I)
_BLANKS = re.compile(r"\s{5,}")
_TAG = re.compile(r"<[^>]{0,200}>")
# A table under such words is about other runs than the claimed ones.
_OTHER_RUNS = re.compile(
    r"(?i)superseded|previous|earlier|older?\b|outdated|baseline|re-?runs?\b|re-?ran|"
    r"reproduc|local|ablat|not part of|appendix|history|negative|failed|w/o|archive|\bprior\b|original|reference|"
    r"sweep|explorat|sanity|debug|"
    r"single[- ]gpu|1x\s?h100|pilot|preliminary|other (?:runs|seeds|settings)|for comparison"
)


class Line(NamedTuple):
    """A line of a README: its number from 1, its text, whether it stands in a code fence."""

    number: int
    text: str
    is_code: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadmeTable:
    """A table.

    Attributes:
        line: of its headings.
        headings: its first row.
        rows: each with its line and cells.
        lines: numbers of all lines that it takes.
        is_about_others: whether the heading or caption that it stands under speaks of other runs.
    """

    line: int
    headings: Sequence[str]
    rows: Sequence[tuple[Line, list[str]]]
    lines: range
    is_about_others: bool


def split_lines(text: str) -> Iterator[Line]:
    """Yield the lines of a README, cut to a bounded length; blanks are cut short: patterns start over in them."""
    fence = ""
    for number, raw in enumerate(text.split("\n"), 1):
        line = _BLANKS.sub("    ", raw[: 4 * MAX_LINE_CHARACTERS])
        start = line.lstrip()[:3]
        if fence:
            yield Line(number, line[:MAX_LINE_CHARACTERS], True)
            fence = "" if start == fence else fence
        elif start in ("```", "~~~"):
            fence = start
            yield Line(number, "", True)
        else:
            yield Line(number, line[:MAX_LINE_CHARACTERS], False)


def find_tables(lines: Sequence[Line]) -> list[ReadmeTable]:
    """Find every table outside of code fences."""
    tables: list[ReadmeTable] = []
    i, title = 0, ""
    while i < len(lines):
        text = lines[i].text
        if lines[i].is_code:
            i += 1
            continue
        if text.lstrip().startswith("#"):
            # the title of the README is of the record itself, whatever it was made from
            title = text if text.lstrip().startswith("##") else ""
        found = _read_pipes(lines, i) or _read_html(lines, i)
        if found is None:
            i += 1
            continue
        headings, rows, end = found
        words = f"{title} {_caption(lines, i)}"
        tables.append(
            ReadmeTable(
                line=lines[i].number,
                headings=headings,
                rows=rows,
                lines=range(lines[i].number, lines[end - 1].number + 1),
                is_about_others=speaks_of_other_table(words),
            )
        )
        i = end
    return tables


def speaks_of_other_table(words: str) -> bool:
    """Whether a heading or caption says that what stands below it is of other runs than the claimed ones."""
    return _OTHER_RUNS.search(words) is not None


def _caption(lines: Sequence[Line], index: int) -> str:
    """Return the line of text right above a table, where it ends in a colon or is bold: its caption."""
    for line in lines[max(0, index - 2) : index][::-1]:
        text = line.text.strip()
        if text and not line.is_code:
            is_caption = text.endswith((":", "**", "</summary>")) or text.startswith(("**", "<summary"))
            return text if is_caption and len(text) < 200 else ""
    return ""


_Found = tuple[list[str], list[tuple[Line, list[str]]], int]


def _read_pipes(lines: Sequence[Line], i: int) -> _Found | None:
    if i + 1 >= len(lines) or "|" not in lines[i].text:
        return None
    below = lines[i + 1].text.strip()
    if "-" not in below or _SEPARATOR.match(below) is None:
        return None
    end = i + 2
    while end < len(lines) and "|" in lines[end].text and not lines[end].is_code:
        end += 1
    rows = [(line, split_cells(line.text)) for line in lines[i + 2 : end]]
    return split_cells(lines[i].text)[:MAX_COLUMNS], rows, end


def split_cells(line: str) -> list[str]:
    """Split a table row at its unescaped pipes."""
    text = line.strip()
    text = text[1:] if text.startswith("|") else text
    cells = [match[0] for match in _CELL.finditer(text)]
    # finditer yields an empty match at each pipe and at the end
    result, expect = [], True
    for cell in cells:
        if expect or cell:
            result.append(cell.strip())
        expect = not cell if not expect else False
    return result[:-1] if text.endswith("|") and result and not result[-1] else result


def _read_html(lines: Sequence[Line], i: int) -> _Found | None:
    if "<table" not in lines[i].text.lower():
        return None
    end = i
    while end < min(len(lines), i + MAX_TABLE_LINES) and "</table" not in lines[end].text.lower():
        end += 1
    rows: list[tuple[Line, list[str]]] = []
    for line in lines[i : end + 1]:
        for part in _ROW.split(line.text)[1:] if _ROW.search(line.text) else [line.text]:
            cells = [html.unescape(_TAG.sub("", match[1])).strip() for match in _HTML_CELL.finditer(part)]
            if _ROW.search(line.text) or not rows:
                rows.append((line, cells))
            else:
                rows[-1][1].extend(cells)
    filled = [(line, cells) for line, cells in rows if cells]
    return (filled[0][1], filled[1:], min(end + 1, len(lines))) if filled else None
