"""Stream a stranger's log: only the lines that can hold evidence, each with its number, in linear time.

A log may have gigabytes, binary junk, one endless line, or escape sequences. It is read in blocks; a pattern that
runs in linear time (RE2) finds the lines of interest, and only those become Python objects.
"""

from __future__ import annotations

import codecs
import heapq
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import IO

import re2

from harness.errors import RecordError

MAX_LINE_BYTES = 64 * 2**10
BLOCK_BYTES = 2**20
MAX_RECORD_BYTES = 4 * 2**30
_TOO_LARGE = f"not read: the logs of a record are read up to {MAX_RECORD_BYTES / 2**30:.0f} GiB in all"
# Of a log with too many lines of interest, the first ones and the last ones are read: there the final scores stand.
MIN_FIRST_LINES = 500
CHARACTERS_OF_A_LINE = 256
MAX_LAST_LINES = 2000
LAST_BYTES = 256 * 2**10

# Words that a line of interest holds; the rest of a log (source, progress, warnings) is passed over.
_WORDS = (
    r"val_loss|val_bpb|artifact_bytes|stopping_early|[Cc]ode size|[Cc]ode:|[Ss]erialized model|[Ss]ubmission|model:|"
    r"eval_time|params|\bseed\b|SEED|tokens:|limited|collected|wallclock|budget|valid:|OVER|EXCEED|exceed|"
    r"too large|vocab_size|fineweb|VAL_MAX|val_max|_frac|final_eval_mode"
)
_LINES = re2.compile(rf"(?m)^[^\n]*(?:{_WORDS})[^\n]*$".encode())
_LINES_WITH_STEPS = re2.compile(rf"(?m)^[^\n]*(?:{_WORDS}|loss:)[^\n]*$".encode())
_BORDERS = re2.compile(rb"(?m)^(?:={40,}|(?:import|from|def|class) [a-zA-Z_][^\n]*|#!/[^\n]*)$")


@dataclass(slots=True)
class LogLine:
    """A line of interest: its number from 1, its text without the line end, whether it borders embedded source."""

    number: int
    text: str
    is_border: bool = False


@dataclass(slots=True)
class LogBudget:
    """How much of the logs of one record is still read, all of them together.

    Attributes:
        bytes_left: of text.
        lines_left: of interest, a long one counting as several; a few of each log are read in any case.
        readings_left: numbers that are kept; a few of each run are in any case.
        runs_left: runs that are kept; the last of each log is in any case.
    """

    bytes_left: int = MAX_RECORD_BYTES
    lines_left: int = 60_000
    readings_left: int = 10_000
    runs_left: int = 200


@dataclass(slots=True)
class StreamState:
    """What the reader of a stream learns and may steer.

    Attributes:
        budget: what may be read; used up in reading.
        wants_steps: whether lines of training steps are of interest, too; the consumer turns this off.
        cut_lines: lines that were longer than is read.
        is_dropping: whether more lines were of interest than are read.
        is_binary: whether the text is not UTF-8 or holds NUL bytes.
    """

    budget: LogBudget = field(default_factory=LogBudget)
    wants_steps: bool = True
    cut_lines: int = 0
    is_dropping: bool = False
    is_binary: bool = False


def stream_lines(handle: IO[bytes], state: StreamState) -> Iterator[LogLine]:
    """Yield the lines of interest of a log.

    Args:
        handle: the log, open for reading; UTF-16 with a byte-order mark is decoded.
        state: told what was cut; asked which lines are wanted.

    Raises:
        RecordError: the logs of the record have more bytes than are read.
    """
    number, num_first, last = 1, max(MIN_FIRST_LINES, state.budget.lines_left), b""
    for block in _blocks(handle, state):
        if not state.is_binary and (b"\0" in block or not _is_text(block)):
            state.is_binary = True
        place = 0
        for line, end in _lines_of_interest(block, number, state) if num_first > 0 else ():
            yield line
            place = end
            num_first -= 1 + len(line.text) // CHARACTERS_OF_A_LINE
            if num_first <= 0:
                break
        if num_first <= 0:
            last += block[place:]
            state.is_dropping = state.is_dropping or len(last) > LAST_BYTES
            last = last[-LAST_BYTES:]
        number += block.count(b"\n")
    state.budget.lines_left = min(num_first, state.budget.lines_left)
    yield from _last_lines(last, number, state)


def _last_lines(last: bytes, number: int, state: StreamState) -> Iterator[LogLine]:
    """Yield the last lines of interest of a log whose first ones used up the budget; `number` is its last line."""
    state.wants_steps = False
    start = last.find(b"\n") + 1 if state.is_dropping else 0
    text = last[start:]
    lines = [line for line, _ in _lines_of_interest(text, number - text.count(b"\n"), state)]
    state.is_dropping = state.is_dropping or len(lines) > MAX_LAST_LINES
    yield from lines[-MAX_LAST_LINES:]


def _lines_of_interest(block: bytes, number: int, state: StreamState) -> Iterator[tuple[LogLine, int]]:
    """Yield the lines of interest of a block that begins at a line, each with the place where it ends."""
    place = counted = 0
    while place < len(block):
        wants_steps = state.wants_steps
        for start, end, is_border in _spans(block, place, wants_steps):
            number += block.count(b"\n", counted, start)
            counted, place = start, end
            raw = block[start : min(end, start + MAX_LINE_BYTES)]
            yield LogLine(number, raw.decode("utf-8", "replace").rstrip("\r"), is_border), end
            if state.wants_steps != wants_steps:
                break
        else:
            return


def _spans(block: bytes, place: int, wants_steps: bool) -> Iterator[tuple[int, int, bool]]:
    pattern = _LINES_WITH_STEPS if wants_steps else _LINES
    spans = ((*match.span(), False) for match in pattern.finditer(block, place))
    borders = ((*match.span(), True) for match in _BORDERS.finditer(block, place))
    return heapq.merge(spans, borders)


def _is_text(block: bytes) -> bool:
    if block.isascii():
        return True
    try:
        codecs.utf_8_decode(block, "strict", False)
    except UnicodeDecodeError:
        return False
    return True


def _blocks(handle: IO[bytes], state: StreamState) -> Iterator[bytes]:
    """Yield blocks of whole lines; of a line longer than a block only its beginning is kept."""
    rest, is_skipping = b"", False
    for chunk in _decoded(handle, state):
        data = chunk
        if is_skipping:
            _, newline, data = data.partition(b"\n")
            if not newline:
                continue
            rest, is_skipping = rest + b"\n", False
        data = rest + data
        data = data.replace(b"\r\n", b"\n") if b"\r" in data else data
        cut = data.rfind(b"\n") + 1
        block, rest = data[:cut], data[cut:]
        if len(rest) > MAX_LINE_BYTES:
            rest, is_skipping = rest[:MAX_LINE_BYTES], True
            state.cut_lines += 1
        if block:
            state.cut_lines += _count_long_lines(block)
            yield block
    if rest:
        yield rest


def _count_long_lines(block: bytes) -> int:
    start = count = 0
    while start < len(block):
        end = block.rfind(b"\n", start, start + MAX_LINE_BYTES + 1)
        if end < 0:
            count += 1
            end = block.find(b"\n", start)
            if end < 0:
                break
        start = end + 1
    return count


def _decoded(handle: IO[bytes], state: StreamState) -> Iterator[bytes]:
    chunks = _chunks(handle, state)
    first = next(chunks, b"")
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        decoder = codecs.getincrementaldecoder("utf-16")("replace")
        for chunk in chain((first,), chunks):
            yield decoder.decode(chunk).encode("utf-8", "replace")
        return
    yield first.removeprefix(codecs.BOM_UTF8)
    yield from chunks


def _chunks(handle: IO[bytes], state: StreamState) -> Iterator[bytes]:
    # a log of a hundred gigabytes is refused before it is read; one that grows meanwhile, in reading
    if handle.seek(0, os.SEEK_END) > state.budget.bytes_left:
        raise RecordError(_TOO_LARGE)
    handle.seek(0)
    while chunk := handle.read(BLOCK_BYTES):
        state.budget.bytes_left -= len(chunk)
        if state.budget.bytes_left < 0:
            raise RecordError(_TOO_LARGE)
        yield chunk
