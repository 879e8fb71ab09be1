"""The live bar: whatever ends a run, the terminal has its cursor back."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from harness.progress import TerminalReporter

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def terminal() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=True, width=80), file


def step(progress: float) -> Any:
    return SimpleNamespace(step=3, total_steps=float("inf"), progress=progress, loss_nats=2.5, tokens_per_second=1000.0)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, OSError, ValueError])
def test_the_cursor_comes_back_however_the_run_ends(error: type[BaseException] | None) -> None:
    console, file = terminal()

    def run() -> None:
        with TerminalReporter(console) as reporter:
            reporter.stepped(step(0.5))
            if error is not None:
                raise error

    if error is None:
        run()
    else:
        with pytest.raises(error):
            run()
    written = file.getvalue()
    assert HIDE_CURSOR in written
    assert written.rindex(SHOW_CURSOR) > written.rindex(HIDE_CURSOR)


def test_the_bar_shows_step_loss_and_speed() -> None:
    console, file = terminal()
    with TerminalReporter(console) as reporter:
        reporter.stepped(step(0.5))
    for word in ("step 3/?", "loss 2.5000", "1,000 tok/s", "50%"):
        assert word in file.getvalue()


def test_a_file_gets_no_bar_and_no_escapes() -> None:
    file = io.StringIO()
    with TerminalReporter(Console(file=file)) as reporter:
        reporter.stepped(step(0.5))
        reporter.said("a line")
    assert file.getvalue() == "a line\n"
