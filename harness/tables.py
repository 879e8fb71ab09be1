"""What a command shows: tables for a terminal (rich) or Markdown (tabulate), and the raw values as one JSON document.

Every cell is escaped, strangers' names too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from harness.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

FORMATS = ("table", "markdown", "json")
# A longer word (a path, a hash) is folded; a column that folds shorter ones cannot be read.
MAX_UNFOLDED = 20
COLUMN_GAP = 2
# What GitHub turns into a link or a message to somebody although it is no markup: @name and addresses, #12, GH-12,
# http://, www. Backslashes do not stop it, an invisible character inside does.
_AUTOLINK = re.compile(r"@(?=\w)|#(?=\d)|\bGH(?=-\d)|:(?=//)|www(?=\.)", re.IGNORECASE)
_BREAK = "&#8203;"


def clean(text: object) -> str:
    """Make text safe for a terminal: control characters (escape sequences, line breaks) become visible escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def clean_markdown(text: object) -> str:
    """Make text safe for the inside of a line of Markdown: nothing in it is markup, HTML, a link or a mention."""
    plain = clean(text).replace("&", "&amp;").replace("<", "&lt;")
    plain = _AUTOLINK.sub(rf"\g<0>{_BREAK}", plain)
    for mark in "\\|`*_[]~$":
        plain = plain.replace(mark, f"\\{mark}")
    return plain


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of text under named columns.

    Attributes:
        title: what the table shows.
        columns: headings; a heading that ends in a unit says it in brackets.
        rows: cells, one string a column.
        right: indices of columns aligned right (numbers).
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: frozenset[int] = field(default_factory=frozenset)

    def to_markdown(self) -> str:
        """Return a GitHub table under a bold title."""
        from tabulate import tabulate

        align = ["right" if i in self.right else "left" for i in range(len(self.columns))]
        rows = [[clean_markdown(cell) for cell in row] for row in self.rows]
        body = tabulate(rows, self.columns, tablefmt="github", colalign=align if rows else None, disable_numparse=True)
        return f"**{clean_markdown(self.title)}**\n\n{body}\n"

    def print_to(self, console: Console) -> None:
        """Print to a console; a table that is too wide for it is turned: one column for each row, a few at a time."""
        is_too_wide = len(self.columns) > 2 and self._spare(console.width) < 0
        tables = self._turned(console.width) if is_too_wide else [self]
        for table in tables:
            console.print(table._to_rich(console.width))

    def _spare(self, width: int) -> int:
        return width - sum(self._least_width(i) + COLUMN_GAP for i in range(len(self.columns)))

    def _cells(self, i: int) -> list[str]:
        return [clean(text) for text in (self.columns[i], *(row[i] for row in self.rows))]

    def _least_width(self, i: int) -> int:
        if i in self.right:
            return self._full_width(i)
        return min(MAX_UNFOLDED, max(len(word) for cell in self._cells(i) for word in cell.split() or [""]))

    def _full_width(self, i: int) -> int:
        return max(map(len, self._cells(i)))

    def _widths(self, width: int) -> dict[int, int]:
        """Share out what the least widths leave, to the columns that lack the least first."""
        spare = max(0, self._spare(width))
        lacking = {i: self._full_width(i) - self._least_width(i) for i in range(len(self.columns))}
        widths = {}
        for num_done, i in enumerate(sorted(lacking, key=lacking.__getitem__)):
            given = min(lacking[i], spare // (len(lacking) - num_done))
            widths[i] = self._least_width(i) + given
            spare -= given
        return widths

    def _turned(self, width: int) -> Iterator[Table]:
        left = max(map(len, self.columns)) + COLUMN_GAP
        num_at_once = max(1, (width - left) // (MAX_UNFOLDED + COLUMN_GAP))
        for start in range(0, len(self.rows), num_at_once):
            columns, *rows = zip(self.columns, *self.rows[start : start + num_at_once], strict=True)
            yield Table(title=self.title if start == 0 else "(continued)", columns=columns, rows=rows)

    def _to_rich(self, width: int) -> RichTable:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        title = Text(clean(self.title), style="bold")
        # The divider of the box is the other half of the gap.
        padding = (0, COLUMN_GAP - 1, 0, 0)
        table = RichTable(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=padding, pad_edge=False)
        widths = self._widths(width)
        for i, column in enumerate(self.columns):
            justify: Literal["left", "right"] = "right" if i in self.right else "left"
            table.add_column(Text(clean(column)), justify=justify, overflow="fold", width=widths[i])
        for row in self.rows:
            table.add_row(*(Text(clean(cell)) for cell in row))
        return table


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What a command found: tables for people, one value for programs.

    Attributes:
        tables: in the order of reading.
        data: the same as plain JSON values, numbers as numbers.
    """

    tables: Sequence[Table]
    data: object

    def print_to(self, console: Console, output_format: str) -> None:
        """Print to a console in one of `FORMATS`; JSON is a single document.

        Raises:
            UsageError: no such format.
        """
        check_format(output_format)
        if output_format == "json":
            console.file.write(json.dumps(self.data, indent=2, allow_nan=False) + "\n")
        for table in self.tables:
            if output_format == "markdown":
                console.file.write(table.to_markdown() + "\n")
            elif output_format == "table":
                table.print_to(console)


def open_console(stderr: bool = False) -> Console:
    """Return a console that prints text as it is: no markup, no emoji, no colours of numbers."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, emoji=False, markup=False)


def check_format(output_format: str) -> None:
    """Refuse an unknown format, before what is to be shown takes minutes.

    Raises:
        UsageError: no such format.
    """
    if output_format not in FORMATS:
        raise UsageError(f"--format {output_format}: choose one of {', '.join(FORMATS)}")


def shares_table(title: str, parts: Mapping[str, float], *, unit: str, digits: int = 0) -> Table:
    """Return a table of amounts with their shares of the sum.

    Args:
        title: what the parts make up.
        parts: amount of each part, in `unit`; at least zero.
        unit: heading of the amounts.
        digits: decimals of the amounts.
    """
    total = sum(parts.values()) or 1
    rows = [(name, f"{amount:,.{digits}f}", f"{amount / total:.1%}") for name, amount in parts.items()]
    return Table(title=title, columns=("part", unit, "share"), rows=rows, right=frozenset({1, 2}))


def fmt(value: float | int | None, digits: int = 4) -> str:
    """Format a number for a cell: integers with thousands separators, floats with fixed digits, None as a dash."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
