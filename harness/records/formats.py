"""Dialects of foreign record folders: each a small class, found by name in the entry-point group.

A dialect says whether a folder is one of its records and reads it into a `Submission`; the rules that judge it know
no dialects. A distribution adds one with

    [project.entry-points."harness.record_formats"]
    mine = "my_package:MyFormat"
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import metadata
from typing import Protocol

from harness.errors import UsageError
from harness.records.folder import RecordFolder
from harness.records.submission import Submission

ENTRY_POINT_GROUP = "harness.record_formats"
_PARTS = ("name", "is_surely_record", "may_be_record", "is_record", "read")


class RecordFormat(Protocol):
    """What a dialect implements."""

    name: str

    def is_surely_record(self, names: Iterable[str]) -> bool:
        """Say whether the names of the files of a folder make it a record, whatever else it holds."""

    def may_be_record(self, names: Iterable[str]) -> bool:
        """Say from the names of the files of a folder alone whether it may be a record; called for every folder."""

    def is_record(self, folder: RecordFolder) -> bool:
        """Say whether a folder that may be a record is one; may read a little of its files."""

    def read(self, folder: RecordFolder) -> Submission:
        """Read a record; what is wrong with its files becomes a problem of the submission, never an exception."""


@cache
def record_formats() -> tuple[RecordFormat, ...]:
    """Return every dialect, the shipped ones first.

    Raises:
        UsageError: an installed dialect cannot be loaded; names it.
    """
    from harness.records.parameter_golf import ParameterGolf
    from harness.records.speedrun import SpeedRun

    formats: list[RecordFormat] = [ParameterGolf(), SpeedRun()]
    for point in metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            made = point.load()()
        except Exception as error:
            raise UsageError(f"record format {point.name} ({point.value}) cannot be loaded: {error}") from error
        if missing := [part for part in _PARTS if not hasattr(made, part)]:
            raise UsageError(f"record format {point.name} ({point.value}) has no {missing[0]}")
        if all(type(known) is not type(made) for known in formats):
            formats.append(made)
    return tuple(formats)
