"""Streams of logs: line numbers, cuts and encodings, against a reader that holds the whole file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.records import log_stream
from harness.records.log_stream import LogBudget, LogLine, StreamState, stream_lines

BORDER = re.compile(r"={40,}|(?:import|from|def|class) [a-zA-Z_].*|#!/.*")
WORDS = re.compile(r"val_loss|val_bpb|model:|seed\b|OVER|loss:")


def read(raw: bytes) -> tuple[list[LogLine], StreamState]:
    state = StreamState()
    return list(stream_lines(BytesIO(raw), state)), state


def read_slowly(text: str) -> Iterator[LogLine]:
    for number, line in enumerate(text.split("\n"), 1):
        body = line.rstrip("\r")
        if WORDS.search(body):
            yield LogLine(number, body)
        if BORDER.fullmatch(body):
            yield LogLine(number, body, is_border=True)


LINES = st.lists(
    st.sampled_from(["val_loss:1", "step:3/9 val_bpb:2", "noise", "", "seed:4", "import os", "=" * 40, "def f(x):  # seed",
                     "x" * 30 + " loss:2", "é val_loss:ü", "\tmodel: 3"])
    | st.text("abel_sv:ö 1=\x1b", max_size=60),
    max_size=40,
)  # fmt: skip


@given(
    LINES,
    st.integers(1, 200),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_a_stream_is_read_like_a_whole_file(
    lines: list[str], block: int, end: str, has_end: bool, encoding: str
) -> None:
    text = end.join(lines) + (end if has_end else "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_stream, "BLOCK_BYTES", max(block, 4))
        found, state = read(text.encode(encoding))
    assert found == list(read_slowly(text))
    assert (state.cut_lines, state.is_dropping, state.is_binary) == (0, False, False)


@given(st.lists(st.integers(0, 300), max_size=20), st.integers(8, 400), st.booleans())
def test_long_lines_are_cut_and_counted(lengths: list[int], block: int, has_end: bool) -> None:
    lines = [b"seed:" + b"x" * length for length in lengths]
    raw = b"\n".join(lines) + (b"\n" if has_end else b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_stream, "BLOCK_BYTES", block)
        patch.setattr(log_stream, "MAX_LINE_BYTES", 64)
        found, state = read(raw)
    assert [(line.number, line.text) for line in found] == [(i, ln[:64].decode()) for i, ln in enumerate(lines, 1)]
    assert state.cut_lines == sum(len(line) > 64 for line in lines)


def test_a_line_of_many_blocks_costs_one_line() -> None:
    raw = b"seed:1\n" + b"val_loss:" + b"9" * (3 * log_stream.BLOCK_BYTES) + b"\nseed:2\n"
    found, state = read(raw)
    assert [line.number for line in found] == [1, 2, 3]
    assert (len(found[1].text), found[2].text, state.cut_lines) == (log_stream.MAX_LINE_BYTES, "seed:2", 1)


def test_lines_of_steps_are_given_only_while_they_are_wanted() -> None:
    state = StreamState(wants_steps=False)
    raw = b"step:1/9 train_loss:2\nstep:1/9 val_loss:2\n"
    assert [line.number for line in stream_lines(BytesIO(raw), state)] == [2]
    state.wants_steps = True
    assert [line.number for line in stream_lines(BytesIO(raw), state)] == [1, 2]


def test_of_too_many_lines_of_interest_the_first_and_the_last_are_read_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_stream, "MIN_FIRST_LINES", 3)
    monkeypatch.setattr(log_stream, "MAX_LAST_LINES", 2)
    state = StreamState(budget=LogBudget(lines_left=0))
    found = list(stream_lines(BytesIO(b"seed:1\n" * 9), state))
    assert [line.number for line in found] == [1, 2, 3, 8, 9]
    assert state.is_dropping


@pytest.mark.parametrize("raw", [b"seed:1\x00\n", b"seed:\xff\n", b"\xffnoise\n" * 9])
def test_bytes_that_are_no_text_are_said(raw: bytes) -> None:
    assert read(raw)[1].is_binary


@pytest.mark.parametrize("raw", [b"", b"\n\n\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff\x00"])
def test_nothing_is_found_in_nothing(raw: bytes) -> None:
    assert read(raw)[0] == []
