"""What `make bench` ends with: a table of ratios, and lines of other figures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from side_by_side import Pairs

from harness.tables import Table

_ROWS = pytest.StashKey[list[tuple[str, ...]]]()
_LINES = pytest.StashKey[list[str]]()
_COLUMNS = ("A / B, aim", "A ms", "B ms", "A / B", "quartiles", "rounds")


@pytest.fixture
def show_ratio(request: pytest.FixtureRequest) -> Callable[[str, Pairs], None]:
    """Put a line into the table."""
    rows = request.config.stash.setdefault(_ROWS, [])
    return lambda label, pairs: rows.append((label, *pairs.cells()))


@pytest.fixture
def show_line(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Put a line below the table."""
    return request.config.stash.setdefault(_LINES, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not config.getoption("benchmark_enable"):
        return
    if rows := config.stash.get(_ROWS, []):
        right = frozenset(range(1, len(_COLUMNS)))
        table = Table(title="ratios on one thread, side by side", columns=_COLUMNS, rows=rows, right=right)
        terminalreporter.write_line(table.to_markdown())
    for line in config.stash.get(_LINES, []):
        terminalreporter.write_line(line)
