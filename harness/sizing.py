"""Shapes of a network by size: the one nearest to a target, its proportions kept as far as can be.

The width is a multiple of what the heads need, so sizes by width are coarse; the inner width of the MLP, in which sizes
are about linear, makes up for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from harness.backbone import BackboneSettings
from harness.errors import UsageError
from harness.method import Settings

# Whoever is nearer than this to the target is chosen by proportions.
TOLERANCE = 0.002
# A network of any shape: beyond it the MLP is no longer what it is in the preset.
MAX_MLP_STRETCH = 1.5
# Inner widths that every method can have: chains of cores split only what has small factors.
_ROUND_WIDTH = 8
_MAX_TRIED = 64


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


# None for a shape that the method cannot have
SizeOf = Callable[[Shape], float | None]


def find_shape(start: Shape, target: float, size_of: SizeOf, *, width_step: int, can_vary_depth: bool) -> Sized | None:
    """Return the shape of nearest size, or of all within 0.2% the one of nearest proportions.

    Args:
        start: the proportions to keep: width to depth, and inner width to width.
        target: size asked for.
        size_of: size of a shape; grows with each of its numbers, about linearly with the inner width of the MLP.
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
    best = min(found, key=lambda sized: _error(sized, target), default=None)
    return best if best is not None and best.size <= 1.5 * target else None


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

    def is_below(steps: int) -> bool:
        size = size_of(natural(steps))
        # what a method cannot have is too narrow for it, where it is narrower than what it has
        return natural(steps).width < start.width if size is None else size <= target

    steps = _last_below(is_below)
    for shape in (natural(count) for count in (steps, steps + 1) if count):
        for mlp_width in _mlp_widths(shape, target, size_of):
            stretched = replace(shape, mlp_width=mlp_width)
            if (size := size_of(stretched)) is not None:
                yield Sized(shape=stretched, size=size)


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


def _mlp_widths(shape: Shape, target: float, size_of: SizeOf) -> Iterator[int]:
    """Yield inner widths about the one that meets the target, which the method may not be able to have."""
    size, wider_size = size_of(shape), size_of(replace(shape, mlp_width=2 * shape.mlp_width))
    if size is None or wider_size is None or wider_size <= size:
        return
    wanted = shape.mlp_width * (1 + (target - size) / (wider_size - size))
    least, most = shape.mlp_width / MAX_MLP_STRETCH, shape.mlp_width * MAX_MLP_STRETCH
    nearest = max(1, round(min(max(wanted, least), most)))
    yield nearest
    if size_of(replace(shape, mlp_width=nearest)) is None:
        below = nearest // _ROUND_WIDTH * _ROUND_WIDTH
        yield from (width for width in (below, below + _ROUND_WIDTH) if width)


def _inner_widths(found: Sized, size_of: SizeOf) -> Iterator[Sized]:
    """Yield the shape at round inner widths: sizes of chains of cores jump with the factors of a width."""
    least, most = (round(found.shape.mlp_width * factor) for factor in (1 / MAX_MLP_STRETCH, MAX_MLP_STRETCH))
    step = _ROUND_WIDTH * max(1, (most - least) // (_ROUND_WIDTH * _MAX_TRIED))
    for mlp_width in range(max(1, least // step) * step, most + 1, step):
        shape = replace(found.shape, mlp_width=mlp_width)
        if (size := size_of(shape)) is not None:
            yield Sized(shape=shape, size=size)


def settle_params(settings: Settings, target: int, count: Callable[[Settings], int]) -> tuple[Settings, str]:
    """Return model settings whose width and inner width give the nearest number of stored parameters, and a sentence.

    Args:
        settings: whose proportions are kept, and everything but the two widths.
        target: stored parameters.
        count: stored parameters of settings; raises UsageError for those that the method cannot have.

    Raises:
        UsageError: the settings have no such widths, or the smallest network that they allow is larger.
    """
    if not isinstance(settings, BackboneSettings):
        raise UsageError("--target-params: this method has no width to choose; set its size by --set")

    def with_shape(shape: Shape) -> Settings:
        changed = {"width": shape.width, "mlp_width": shape.mlp_width}
        return type(settings).model_validate(settings.model_dump() | changed)

    def size_of(shape: Shape) -> float | None:
        try:
            return count(with_shape(shape))
        except UsageError:
            return None

    start = Shape(width=settings.width, num_layers=settings.num_layers, mlp_width=settings.mlp_width)
    found = find_shape(start, target, size_of, width_step=2 * settings.num_heads, can_vary_depth=False)
    if found is not None and _error(found, target) > TOLERANCE:
        found = min((found, *_inner_widths(found, size_of)), key=lambda sized: _error(sized, target))
    if found is None:
        raise UsageError(
            f"--target-params {target:,}: no network of {settings.num_layers} layers and {settings.num_heads} heads is "
            "that small under these settings; set fewer of either"
        )
    said = (
        f"width {found.shape.width}, inner width {found.shape.mlp_width}: {found.size:,.0f} stored parameters, "
        f"{found.size / target - 1:+.2%} of {target:,}"
    )
    return with_shape(found.shape), said
