"""Shapes of a network by size: the one nearest to a target, its proportions kept as far as can be.

The width is a multiple of what the heads need, so sizes by width are coarse; the inner width of the MLP, in which sizes
are linear, makes up for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# Whoever is nearer than this to the target is chosen by proportions.
TOLERANCE = 0.002
# A network of any shape: beyond it the MLP is no longer what it is in the preset.
MAX_MLP_STRETCH = 1.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The settings that a size is reached with."""

    width: int
    num_layers: int
    mlp_width: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sized:
    """A shape and its size in the unit of the target."""

    shape: Shape
    size: float


SizeOf = Callable[[Shape], float]


def find_shape(start: Shape, target: float, size_of: SizeOf, *, width_step: int, can_vary_depth: bool) -> Sized | None:
    """Return the shape of nearest size, or of all within 0.2% the one of nearest proportions.

    Args:
        start: the proportions to keep: width to depth, and inner width to width.
        target: size asked for.
        size_of: size of a shape; grows with each of its numbers, linearly with the inner width of the MLP.
        width_step: widths are multiples of it.
        can_vary_depth: whether other depths than that of `start` are tried, from one layer to twice as many.

    Returns:
        None where even the smallest shape that is tried is more than half as large again as the target.
    """
    depths = range(1, 2 * start.num_layers + 1) if can_vary_depth else (start.num_layers,)
    found = [sized for depth in depths for sized in _sized_at_depth(start, depth, target, size_of, width_step)]
    near = [sized for sized in found if _error(sized, target) <= TOLERANCE]
    if near:
        return min(near, key=lambda sized: _distortion(sized.shape, start))
    best = min(found, key=lambda sized: _error(sized, target))
    return best if best.size <= 1.5 * target else None


def _error(sized: Sized, target: float) -> float:
    return abs(sized.size / target - 1)


def _distortion(shape: Shape, start: Shape) -> float:
    """How far the proportions are from those of the start, as a sum of logarithms of ratios."""
    aspect = (shape.width / shape.num_layers) / (start.width / start.num_layers)
    inner = (shape.mlp_width / shape.width) / (start.mlp_width / start.width)
    return abs(math.log(aspect)) + abs(math.log(inner))


def _sized_at_depth(start: Shape, depth: int, target: float, size_of: SizeOf, width_step: int) -> Iterator[Sized]:
    """Yield the shapes of the widths around the target, the MLP stretched to meet it."""

    def natural(steps: int) -> Shape:
        width = steps * width_step
        return Shape(width=width, num_layers=depth, mlp_width=max(1, round(width * start.mlp_width / start.width)))

    steps = _last_below(lambda count: size_of(natural(count)) <= target)
    for shape in (natural(count) for count in (steps, steps + 1) if count):
        mlp_width = _solve_mlp_width(shape, target, size_of)
        stretched = Shape(width=shape.width, num_layers=depth, mlp_width=mlp_width)
        yield Sized(shape=stretched, size=size_of(stretched))


def _last_below(is_below: Callable[[int], bool]) -> int:
    """Return the largest count for which it holds, 0 if for none: doubling, then halving."""
    high = 1
    while is_below(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return low


def _solve_mlp_width(shape: Shape, target: float, size_of: SizeOf) -> int:
    wider = Shape(width=shape.width, num_layers=shape.num_layers, mlp_width=2 * shape.mlp_width)
    size = size_of(shape)
    slope = (size_of(wider) - size) / shape.mlp_width
    wanted = shape.mlp_width + (target - size) / slope
    least, most = shape.mlp_width / MAX_MLP_STRETCH, shape.mlp_width * MAX_MLP_STRETCH
    return max(1, round(min(max(wanted, least), most)))
