"""One value found in a record, with where it came from; readers of every format hand these to the rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Origin = Literal["claimed", "logged", "measured"]
Scalar: TypeAlias = int | float | str


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """A number or a word, and its evidence.

    Attributes:
        origin: "claimed" (a summary says so), "logged" (the run printed it) or "measured" (read off a file
            or recomputed).
        value: the value itself, in the unit of its quantity's name.
        path: file inside the record folder.
        line: line of the file, from 1; None for files without lines.
        label: the key or formula, in words.
        decimals: digits after the decimal point as printed; None where the value is exact.
    """

    origin: Origin
    value: Scalar
    path: str
    line: int | None = None
    label: str = ""
    decimals: int | None = None

    @property
    def place(self) -> str:
        """`record.json:14 artifact.artifact_bytes`, for messages."""
        line = f":{self.line}" if self.line is not None else ""
        return f"{self.path}{line}{f' {self.label}' if self.label else ''}"
