"""Where the bytes of each contender's file went, as bars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reports.ledger import Cell, Ledger

Fields = Mapping[str, Any]
_NUM_SHADES = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A bar of stored bytes.

    Attributes:
        name: of the contender.
        total: bytes of its file.
        parts: every part with its share of the largest total of the group.
        segments: what is drawn: the shares of the parts that have a shade, then of all others together.
    """

    name: str
    total: Cell
    parts: Sequence[tuple[str, Cell, float]]
    segments: Sequence[float] = ()


def byte_bars(ledger: Ledger, index: int, group: Fields) -> Iterator[Bar]:
    """Yield the bar of each contender of a group; its largest part comes first."""
    largest = max((each["artifact_bytes"] or 0 for each in group["contenders"]), default=0) or 1
    for at, each in enumerate(group["contenders"]):
        path = f"groups.{index}.contenders.{at}"
        parts = [
            (part["part"], ledger.computed(f"{path}.parts.{nth}.bytes", "count"), part["bytes"] / largest)
            for nth, part in enumerate(each["parts"])
        ]
        if parts:
            parts.sort(key=lambda part: -part[2])
            yield Bar(name=each["name"], total=ledger.computed(f"{path}.artifact_bytes", "count"), parts=parts)


def shade(bars: Sequence[Bar]) -> tuple[list[str], list[Bar]]:
    """Give the largest parts a shade of their own: more than a few could not be told apart."""
    totals: Counter[str] = Counter()
    for bar in bars:
        totals.update({part: share for part, _, share in bar.parts})
    names = sorted(totals, key=lambda part: (-totals[part], part))
    shaded, rest = names[:_NUM_SHADES], names[_NUM_SHADES:]
    drawn = []
    for bar in bars:
        shares = {part: share for part, _, share in bar.parts}
        other = [sum(shares.get(name, 0.0) for name in rest)] if rest else []
        drawn.append(replace(bar, segments=[*(shares.get(name, 0.0) for name in shaded), *other]))
    return [*shaded, *([f"{len(rest)} others"] if rest else [])], drawn
