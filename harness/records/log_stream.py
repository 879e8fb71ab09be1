"""Stream a stranger's log: only the lines that can hold evidence, each with its number, in linear time.

A log may have gigabytes, binary junk, one endless line, or escape sequences. It is read in blocks; a pattern that
runs in linear time (RE2) finds the lines of interest, and only those become Python objects.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import re2

MAX_LINE_BYTES = 64 * 2**10
MAX_KEPT_LINES = 200_000
BLOCK_BYTES = 2**20

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
class StreamState:
    """What the reader of a stream learns and may steer.

    Attributes:
        wants_steps: whether lines of training steps are of interest, too; the consumer turns this off.
        cut_lines: lines that were longer than is read.
        is_dropping: whether more lines were of interest than are kept.
        is_binary: whether the text is not UTF-8 or holds NUL bytes.
    """

    wants_steps: bool = True
    cut_lines: int = 0
    is_dropping: bool = False
    is_binary: bool = False


def stream_lines(handle: IO[bytes], state: StreamState) -> Iterator[LogLine]:
    """Yield the lines of interest of a log.

    Args:
        handle: the log, open for reading; UTF-16 with a byte-order mark is decoded.
        state: told what was cut; asked which lines are wanted.
    """
    number, num_kept = 1, 0
    for block in _blocks(handle, state):
        if not state.is_binary and (b"\0" in block or not _is_text(block)):
            state.is_binary = True
        place, line = 0, number
        for start, end, is_border in _spans(block, state.wants_steps):
            if num_kept >= MAX_KEPT_LINES:
                state.is_dropping = True
                break
            line += block.count(b"\n", place, start)
            place = start
            num_kept += 1
            raw = block[start : min(end, start + MAX_LINE_BYTES)]
            yield LogLine(line, raw.decode("utf-8", "replace").rstrip("\r"), is_border)
        number += block.count(b"\n")


def _spans(block: bytes, wants_steps: bool) -> list[tuple[int, int, bool]]:
    pattern = _LINES_WITH_STEPS if wants_steps else _LINES
    spans = [(*match.span(), False) for match in pattern.finditer(block)]
    borders = [(*match.span(), True) for match in _BORDERS.finditer(block)]
    return sorted(spans + borders) if borders else spans


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
    for chunk in _decoded(handle):
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


def _decoded(handle: IO[bytes]) -> Iterator[bytes]:
    first = handle.read(BLOCK_BYTES)
    if not first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        chunk = first.removeprefix(codecs.BOM_UTF8)
        while chunk:
            yield chunk
            chunk = handle.read(BLOCK_BYTES)
        return
    decoder = codecs.getincrementaldecoder("utf-16")("replace")
    chunk = first
    while chunk:
        yield decoder.decode(chunk).encode("utf-8", "replace")
        chunk = handle.read(BLOCK_BYTES)
