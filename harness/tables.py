"""One table, two renderings: a terminal (rich) and Markdown (tabulate). Every cell is escaped, strangers' names too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("table", "markdown", "json")


def clean(text: object) -> str:
    """Make text safe for a terminal: control characters (escape sequences, line breaks) become visible escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def _clean_markdown(text: object) -> str:
    plain = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace("\\", "\\\\")
    for mark in "|`*_[]":
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
        rows = [[_clean_markdown(cell) for cell in row] for row in self.rows]
        body = tabulate(rows, self.columns, tablefmt="github", colalign=align if rows else None, disable_numparse=True)
        return f"**{_clean_markdown(self.title)}**\n\n{body}\n"

    def to_json(self) -> str:
        """Return a JSON document with the title and one object a row."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return json.dumps({"title": self.title, "rows": rows}, indent=2)

    def print_to(self, console: Console, output_format: str = "table") -> None:
        """Print to a console in one of `FORMATS`."""
        if output_format == "markdown":
            console.file.write(self.to_markdown() + "\n")
        elif output_format == "json":
            console.file.write(self.to_json() + "\n")
        elif output_format == "table":
            console.print(self._to_rich())
        else:
            raise UsageError(f"--format {output_format}: choose one of {', '.join(FORMATS)}")

    def _to_rich(self) -> object:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=Text(clean(self.title), style="bold"), title_justify="left", box=box.SIMPLE_HEAD)
        for i, column in enumerate(self.columns):
            is_number = i in self.right  # a number that wraps is a number misread
            table.add_column(Text(column), justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
        for row in self.rows:
            table.add_row(*(Text(clean(cell)) for cell in row))
        return table


def fmt(value: float | int | None, digits: int = 4) -> str:
    """Format a number for a cell: integers with thousands separators, floats with fixed digits, None as a dash."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
