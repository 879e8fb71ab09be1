"""Axes of figures: units, ticks, room for labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# From this ratio of largest to smallest on, sizes are compared by their ratio.
_LOG_FROM = 4.0


def format_bytes(value: float, _: object = None) -> str:
    """Write bytes with a decimal unit; the second argument is the place of a tick."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} B"


def format_count(value: float, _: object = None) -> str:
    """Write a number with a decimal prefix; the second argument is the place of a tick."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def set_bytes_axis(axes: Axes, sizes: Sequence[float]) -> None:
    """Make the horizontal axis one of file bytes, logarithmic where they differ by a factor."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

    axes.set_xlabel("file bytes")
    if max(sizes) / min(sizes) >= _LOG_FROM:
        axes.set_xscale("log")
        steps = [base * 10**power for power in range(12) for base in (1, 2, 5)]
        axes.xaxis.set_major_locator(FixedLocator([each for each in steps if min(sizes) / 2 < each < 2 * max(sizes)]))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(format_bytes))


def set_room(axes: Axes, sizes: Sequence[float], scores: Sequence[float]) -> None:
    """Leave room for labels around the points."""
    low, high = min(scores), max(scores)
    room = (high - low) * 0.09 or 0.05
    axes.set_ylim(low - room, high + room)
    small, large = min(sizes), max(sizes)
    if large / small >= _LOG_FROM:
        ratio = (large / small) ** 0.12
        axes.set_xlim(small / ratio, large * ratio**2)
    else:
        width = (large - small) or large * 0.05
        axes.set_xlim(small - width * 0.08, large + width * 0.3)
