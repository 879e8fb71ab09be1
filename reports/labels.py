"""Labels beside points: short, and none over another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from harness.tables import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

MAX_CHARACTERS = 34
_FONT_SIZE = 8.0
# Pixels of the drawing at 100 dots an inch; a letter of DejaVu Sans at this size is about 6.3 wide.
_LETTER, _LINE, _GAP, _POINT = 6.3, 12.0, 7.0, 5.0
_RINGS = 5


def short_names(names: Sequence[str]) -> list[str]:
    """Drop what most names end with after a comma, and cut what is long; names stay distinct."""
    ends = Counter(name.partition(", ")[2] for name in names)
    common, count = ends.most_common(1)[0]
    short = [name.removesuffix(f", {common}") if count > len(names) / 2 else name for name in names]
    cut = [clean(name if len(name) <= MAX_CHARACTERS else f"{name[: MAX_CHARACTERS - 1]}…") for name in short]
    return cut if len(set(cut)) == len(set(names)) else [f"{at + 1}. {name}" for at, name in enumerate(cut)]


def place_labels(
    drawing: Drawing,
    axes: Axes,
    points: Sequence[tuple[float, float, str]],
    *,
    colour: str,
    line: Sequence[tuple[float, float]] = (),
) -> None:
    """Write the name of each point beside it, where neither a point nor another name is.

    Args:
        drawing: that holds the axes.
        axes: with their final limits.
        points: x and y in the axes' units, and the name.
        colour: of the text.
        line: corners of a line that no name may cross.
    """
    scale = 100 / drawing.dpi
    centres = [tuple(value * scale for value in axes.transData.transform((x, y))) for x, y, _ in points]
    taken = [(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in centres]
    taken += _along([tuple(value * scale for value in axes.transData.transform(corner)) for corner in line])
    edges = (axes.bbox.x0 * scale, axes.bbox.x1 * scale)
    for (x, y, name), (at_x, at_y) in zip(points, centres, strict=True):
        width = len(name) * _LETTER
        shift_x, shift_y, align = next(
            (spot for spot in _spots() if _is_free(_box(at_x, at_y, width, spot), taken, edges)), (_GAP, 0.0, "left")
        )
        taken.append(_box(at_x, at_y, width, (shift_x, shift_y, align)))
        axes.annotate(
            # a dollar sign would be mathematics
            name.replace("$", r"\$"),
            (x, y),
            xytext=(shift_x * 0.72, shift_y * 0.72),
            textcoords="offset points",
            ha=align,
            va="center",
            fontsize=_FONT_SIZE,
            color=colour,
        )


def _along(corners: Sequence[tuple[float, ...]]) -> Iterator[tuple[float, float, float, float]]:
    """Small boxes along a line through corners, in pixels."""
    for (x, y), (next_x, next_y) in pairwise(corners):
        count = max(1, round(max(abs(next_x - x), abs(next_y - y)) / _POINT))
        for at in range(count + 1):
            place_x, place_y = x + (next_x - x) * at / count, y + (next_y - y) * at / count
            yield (place_x - 1, place_y - 1, place_x + 1, place_y + 1)


def _spots() -> Iterator[tuple[float, float, str]]:
    """Offsets in pixels, the nearest first: right, left, then rows above and below."""
    for ring in range(_RINGS):
        for sign in (1, -1) if ring else (1,):
            yield (_GAP, sign * ring * _LINE, "left")
            yield (-_GAP, sign * ring * _LINE, "right")


def _box(x: float, y: float, width: float, spot: tuple[float, float, str]) -> tuple[float, float, float, float]:
    shift_x, shift_y, align = spot
    left = x + shift_x if align == "left" else x + shift_x - width
    return (left, y + shift_y - _LINE / 2, left + width, y + shift_y + _LINE / 2)


def _is_free(
    box: tuple[float, float, float, float],
    taken: Sequence[tuple[float, float, float, float]],
    edges: tuple[float, float],
) -> bool:
    left, low, end, high = box
    if left < edges[0] + 2 or end > edges[1] + 4:
        return False
    return not any(left < other[2] and end > other[0] and low < other[3] and high > other[1] for other in taken)
