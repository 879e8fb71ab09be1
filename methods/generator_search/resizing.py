"""Sizes of an expression that bring it to a number of parameters, its form left as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

from harness.errors import UsageError
from methods.generator_search.grammar import MAX_KNOB, Expression, OverDepth, Share, Sum, Waves

# Candidates are compared at sizes that differ by no more than this, up or down.
TOLERANCE = 0.02
# Within this no better size is looked for.
_NEAR = 0.002
_MAX_ROUNDS = 40
_STEPS_PER_OCTAVE = 4

Sizes = tuple[int, ...]


def resize(expression: Expression, target: float, count: Callable[[Expression], int], layers: int) -> Expression | None:
    """Return the expression with other sizes, within 2% of a number of parameters where it can be.

    All sizes but those of groups of layers are scaled by one factor first; then one at a time is changed while that
    helps. The same expression and target give the same sizes.

    Args:
        expression: whose form is kept.
        target: number of parameters.
        count: parameters of an expression; raises UsageError where the network cannot have it.
        layers: of the network; no expression mixes more functions of depth or groups more layers than that.

    Returns:
        None where no sizes that were tried are within 2%.
    """

    @cache
    def error(sizes: Sizes) -> float:
        try:
            params = count(with_sizes(expression, sizes, layers))
        except UsageError:
            return math.inf
        return abs(math.log(params / target)) if params else math.inf

    start = min(_scaled(expression, layers), key=lambda sizes: (error(sizes), sizes))
    best = _descend(start, error, layers, _limits(expression, layers))
    return simplify(with_sizes(expression, best, layers), layers) if error(best) <= math.log1p(TOLERANCE) else None


def simplify(expression: Expression, layers: int) -> Expression:
    """Return an expression of the same weights and as many parameters without what has no effect.

    One function of depth is the constant 1, one group of all layers is no grouping.
    """
    changed = expression.with_children(tuple(simplify(child, layers) for child in expression.children))
    is_idle = isinstance(changed, OverDepth) and changed.terms == 1
    is_idle = is_idle or (isinstance(changed, Share) and changed.layers >= layers)
    return changed.children[0] if is_idle else changed


def fit(form: Expression, target: float, count: Callable[[Expression], int], layers: int) -> Expression | None:
    """Return a form at a size as `resize`, with a small smooth term where its own sizes are too coarse.

    Without it ranks alone, say, could not be compared where one more of them is a tenth of all parameters.
    """
    rows, columns = Waves("rows", 1), Waves("columns", 1)
    forms = (form, Sum(form, columns), Sum(form, rows), Sum(Sum(form, rows), columns))
    return next((sized for each in forms if (sized := resize(each, target, count, layers))), None)


def _descend(sizes: Sizes, error: Callable[[Sizes], float], layers: int, limits: Sizes) -> Sizes:
    for _ in range(_MAX_ROUNDS):
        if error(sizes) <= _NEAR:
            break
        better = min(_neighbours(sizes, limits), key=lambda each: (error(each), each), default=sizes)
        if error(better) >= error(sizes):
            break
        sizes = better
    return sizes


def _neighbours(sizes: Sizes, limits: Sizes) -> Iterator[Sizes]:
    """Change one size by one or by half, or two at once in opposite directions."""
    changed = list(enumerate(sizes))
    for place, size in changed:
        for other in {size - 1, size + 1, size * 3 // 2, size * 2 // 3, size * 2, size // 2}:
            if 1 <= other <= limits[place]:
                yield (*sizes[:place], other, *sizes[place + 1 :])
    for up, size in changed:
        for down, less in changed:
            if up != down and size < limits[up] and less > 1:
                yield tuple(value + (place == up) - (place == down) for place, value in changed)


def _scaled(expression: Expression, layers: int) -> Iterator[Sizes]:
    sizes, limits = sizes_of(expression), _limits(expression, layers)
    fixed = [isinstance(node, Share) for node in expression.walk() for _ in node.knobs]
    for power in range(-6 * _STEPS_PER_OCTAVE, 8 * _STEPS_PER_OCTAVE + 1):
        factor = 2.0 ** (power / _STEPS_PER_OCTAVE)
        yield tuple(
            size if is_fixed else min(max(1, round(size * factor)), limit)
            for size, limit, is_fixed in zip(sizes, limits, fixed, strict=True)
        )


def sizes_of(expression: Expression) -> Sizes:
    """Return every size of an expression, the node first, then its children."""
    return tuple(size for node in expression.walk() for size in node.knobs.values())


def _limits(expression: Expression, layers: int) -> Sizes:
    is_deep = [isinstance(node, OverDepth | Share) for node in expression.walk() for _ in node.knobs]
    return tuple(layers if deep else MAX_KNOB for deep in is_deep)


def with_sizes(expression: Expression, sizes: Sizes, layers: int) -> Expression:
    """Return an expression with other sizes, in the order of `sizes_of`; those over depth are at most `layers`."""
    changed, rest = _take(expression, sizes, layers)
    assert not rest, "one size for each of the expression's"
    return changed


def _take(node: Expression, sizes: Sizes, layers: int) -> tuple[Expression, Sizes]:
    count, limit = len(node.knobs), layers if isinstance(node, OverDepth | Share) else MAX_KNOB
    own, rest = {name: min(size, limit) for name, size in zip(node.knobs, sizes, strict=False)}, sizes[count:]
    children: list[Expression] = []
    for child in node.children:
        changed, rest = _take(child, rest, layers)
        children.append(changed)
    return replace(node.with_children(tuple(children)), **own), rest
