"""`log.jsonl`: one JSON object a line, appended and flushed as the run goes.

Events: start (with the seed), fit, step, eval, checkpoint, resume, export, test_open, end, and others, which
readers may ignore. A step line carries step, loss_nats, lr_scale, momentum, seconds and tokens (both spent so
far) and, under a budget of time, progress (the part of the fit that was over before it); an eval line split, step
and the metrics; the export line artifact_bytes, sha256, the time spent and that of the export; the end line
stopped_by, steps, tokens and the val_bpb and loss_nats of the test split.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from harness.errors import RecordError, RunError
from harness.records.safeio import JSON, open_regular, parse_json

LOG_FILE = "log.jsonl"
MAX_LINE_BYTES = 64 * 2**10
MAX_LOG_BYTES = 512 * 2**20


class LogWriter:
    """Appends events to the log of a record folder; each is one line, flushed at once."""

    def __init__(self, folder: Path) -> None:
        """Open the log of a record folder; what is there stays, but for a last line that was cut off.

        Raises:
            RunError: the log cannot be written.
        """
        self._path = folder / LOG_FILE
        try:
            # unbuffered: a line is on its way to the disk when `write` returns, and closing cannot fail
            self._handle = self._path.open("a+b", buffering=0)
            self._drop_cut_line()
        except OSError as error:
            raise self._error(error) from error

    def _drop_cut_line(self) -> None:
        end = self._handle.seek(0, os.SEEK_END)
        begin = self._handle.seek(max(0, end - MAX_LINE_BYTES))
        tail = self._handle.read(end - begin) or b""
        if tail and not tail.endswith(b"\n"):
            self._handle.truncate(begin + tail.rfind(b"\n") + 1)
            self._handle.seek(0, os.SEEK_END)

    def truncate(self, offset: int) -> list[dict[str, JSON]]:
        """Drop what was logged after `offset`, the place of a checkpoint, but for openings of the test split.

        Returns:
            The events after `offset`: what they say was spent is spent, and what they opened was seen.

        Raises:
            RunError: the log is shorter than that, or cannot be written.
        """
        found_bytes = self._handle.seek(0, os.SEEK_END)
        if found_bytes < offset:
            raise RunError(
                f"{self._path} has {found_bytes:,} bytes but its checkpoint was made at {offset:,}: "
                "the log was altered, so the run cannot go on"
            )
        try:
            self._handle.seek(offset)
            dropped = [event for line in self._handle.readall().splitlines() if (event := _loads(line))]
            self._handle.truncate(offset)
        except OSError as error:
            raise self._error(error) from error
        self._handle.seek(0, os.SEEK_END)
        for event in dropped:
            if event.get("event") == "test_open":
                self.write("test_open", **{key: value for key, value in event.items() if key != "event"})
        self.sync()
        return dropped

    @property
    def offset(self) -> int:
        """Bytes written so far, for a checkpoint."""
        return self._handle.tell()

    def write(self, event: str, **fields: JSON) -> None:
        """Append one event.

        Args:
            event: its kind.
            **fields: plain JSON values; a float that is not finite is written as a word, since JSON has none.

        Raises:
            RunError: the disk is full or the folder is gone.
        """
        line = json.dumps({"event": event, **{key: _finite(value) for key, value in fields.items()}})
        left = memoryview(f"{line}\n".encode())
        try:
            while left:
                left = left[self._handle.write(left) :]
        except OSError as error:
            raise self._error(error) from error

    def sync(self) -> None:
        """Force what was written to the disk."""
        try:
            os.fsync(self._handle.fileno())
        except OSError as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Close the file; further writes fail."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _error(self, error: OSError) -> RunError:
        return RunError(f"cannot write {self._path}: {error.strerror}; free space or choose another folder (--out)")


def _loads(line: bytes) -> dict[str, JSON]:
    """Read a line of our own; one that is none is as good as empty."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def most_seconds(events: Iterable[Mapping[str, JSON]]) -> float:
    """Return the most that events say was spent, in seconds; 0 where none says it."""
    found = (event.get("seconds") for event in events)
    return max((float(seconds) for seconds in found if isinstance(seconds, int | float)), default=0.0)


def _finite(value: JSON) -> JSON:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(child) for key, child in value.items()}
    return [_finite(child) for child in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One line of a log other than a step: its line number (from 1), kind and fields."""

    line: int
    event: str
    fields: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class LogStep:
    """One step line of a log; what is not logged as a number is None.

    Attributes:
        line: its number in the file, from 1.
        step: optimiser step, from 1.
        loss_nats: training loss in nats a token.
        seconds: spent at its end.
        lr_scale: factor on every learning rate.
        momentum: of the matrix optimiser.
        tokens: trained on at its end.
        progress: part of the fit that was over before it, under a budget of time.
    """

    line: int
    step: int
    loss_nats: float
    seconds: float | None = None
    lr_scale: float | None = None
    momentum: float | None = None
    tokens: float | None = None
    progress: float | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """A log as read: the step lines, and all other events in order."""

    steps: Sequence[LogStep]
    events: Sequence[LogEvent]

    def last(self, event: str, **fields: JSON) -> LogEvent | None:
        """Return the last event of a kind whose fields have the given values."""
        found = (
            entry
            for entry in reversed(self.events)
            if entry.event == event and all(entry.fields.get(key) == value for key, value in fields.items())
        )
        return next(found, None)

    def count(self, event: str) -> int:
        """Return how many events of a kind there are."""
        return sum(entry.event == event for entry in self.events)


def read_log(folder: Path) -> Log:
    """Read the log of a record folder, line by line.

    Raises:
        RecordError: a line is not a JSON object with an event, too long or cut off; names the line.
    """
    steps: list[LogStep] = []
    events: list[LogEvent] = []
    read_bytes = 0
    with open_regular(folder, LOG_FILE) as handle:
        number = 0
        while raw := handle.readline(MAX_LINE_BYTES + 1):
            number += 1
            read_bytes += len(raw)
            if read_bytes > MAX_LOG_BYTES:
                raise RecordError(f"{LOG_FILE} has more than the {MAX_LOG_BYTES:,} bytes that are read")
            entry = _parse_line(raw, number)
            if entry.event == "step":
                steps.append(_parse_step(entry))
            else:
                events.append(entry)
    return Log(steps=steps, events=events)


def _parse_line(raw: bytes, number: int) -> LogEvent:
    where = f"{LOG_FILE} line {number}"
    if len(raw) > MAX_LINE_BYTES:
        raise RecordError(f"{where} is longer than {MAX_LINE_BYTES:,} bytes")
    if not raw.endswith(b"\n"):
        raise RecordError(f"{where} is cut off: it has no line end")
    fields = parse_json(raw, where)
    if not isinstance(fields, dict) or not isinstance(event := fields.get("event"), str):
        raise RecordError(f"{where} is not an object with an event")
    return LogEvent(line=number, event=event, fields=fields)


def _parse_step(entry: LogEvent) -> LogStep:
    step, loss_nats = entry.fields.get("step"), entry.fields.get("loss_nats")
    if isinstance(step, bool) or not isinstance(step, int):
        raise RecordError(f"{LOG_FILE} line {entry.line}: step is {step!r:.40}, expected a whole number")
    if isinstance(loss_nats, bool) or not isinstance(loss_nats, int | float):
        raise RecordError(f"{LOG_FILE} line {entry.line}: loss_nats is {loss_nats!r:.40}, expected a number")
    return LogStep(
        line=entry.line,
        step=step,
        loss_nats=float(loss_nats),
        seconds=_number(entry, "seconds"),
        lr_scale=_number(entry, "lr_scale"),
        momentum=_number(entry, "momentum"),
        tokens=_number(entry, "tokens"),
        progress=_number(entry, "progress"),
    )


def _number(entry: LogEvent, key: str) -> float | None:
    value = entry.fields.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
