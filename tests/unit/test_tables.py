"""Tables: what fits is shown as it is, what does not is turned; one JSON document."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from harness.errors import UsageError
from harness.tables import Table, View, clean_markdown, fmt, shares_table

COLUMNS = ("record", "bits/byte", "file bytes", "what it is")
ROWS = [(f"record-{i}", f"{i}.25", f"{i},000,000", "some words that wrap") for i in range(1, 6)]
TABLE = Table(title="five", columns=COLUMNS, rows=ROWS, right=frozenset({1, 2}))


def show(table: Table, width: int) -> list[str]:
    file = io.StringIO()
    table.print_to(Console(file=file, width=width))
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [30, 39, 40, 60, 80, 120])
def test_numbers_and_words_are_never_broken(width: int) -> None:
    lines = show(TABLE, width)
    assert all(len(line) <= width for line in lines)
    words = {word for line in lines for word in line.split()}
    for row in ROWS:
        assert {row[0], row[1], row[2], *row[3].split()} <= words


def test_a_wide_table_has_a_column_for_each_row() -> None:
    lines = show(TABLE, 39)
    headings = [line.split()[1:] for line in lines if line.startswith(" record")]
    numbers = [line.split()[1:] for line in lines if line.startswith(" bits/byte")]
    assert [name for names in headings for name in names] == [row[0] for row in ROWS]
    assert [number for line in numbers for number in line] == [row[1] for row in ROWS]


def test_words_longer_than_their_column_are_folded_whole() -> None:
    path = "/a/very/long/path/" + "x" * 90
    lines = show(Table(title="t", columns=("what", "value"), rows=[("path", path)]), 60)
    assert path in "".join(line.removeprefix(" path").strip() for line in lines)


def test_json_is_one_document_of_raw_values() -> None:
    file = io.StringIO()
    data = [{"bytes": 1234, "name": "a\x1b[31m"}]
    View(tables=[TABLE, TABLE], data=data).print_to(Console(file=file), "json")
    assert json.loads(file.getvalue()) == data
    assert "\x1b" not in file.getvalue()


def test_markdown_has_every_table() -> None:
    file = io.StringIO()
    View(tables=[TABLE, TABLE], data=None).print_to(Console(file=file), "markdown")
    assert file.getvalue().count("**five**") == 2


def test_strangers_names_neither_link_nor_mention_in_markdown() -> None:
    table = Table(title="@team", columns=["record"], rows=[["#12 www.example.org GH-3 ~~a~~"]])
    assert "**@&#8203;team**" in table.to_markdown()
    assert r"#&#8203;12 www&#8203;.example.org GH&#8203;-3 \~\~a\~\~" in table.to_markdown()
    # Text in which nothing would act stays as it is.
    assert clean_markdown("a@ # 12: 1/2") == "a@ # 12: 1/2"


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(UsageError, match="--format xml: choose one of table, markdown, json"):
        View(tables=[], data=None).print_to(Console(file=io.StringIO()), "xml")


def test_shares_are_of_the_sum() -> None:
    table = shares_table("bytes", {"a": 3000, "b": 1000}, unit="bytes")
    assert table.rows == [("a", "3,000", "75.0%"), ("b", "1,000", "25.0%")]
    assert shares_table("none", {"a": 0}, unit="bytes").rows == [("a", "0", "0.0%")]


def test_numbers_in_cells() -> None:
    assert [fmt(None), fmt(1234), fmt(1234.5, 1)] == ["-", "1,234", "1,234.5"]
