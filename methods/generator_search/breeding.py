"""New expressions: known ones, random ones, changed ones, and crosses of two, all of the right sort.

Sizes are drawn roughly; every candidate is resized before it is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from methods.generator_search.grammar import (
    Chain,
    Expression,
    Free,
    Kronecker,
    LowRank,
    MatMul,
    OverDepth,
    Product,
    Random,
    Scale,
    Share,
    Sum,
    Vector,
    Waves,
)
from methods.generator_search.parsing import parse

_Item = TypeVar("_Item")

# Forms that were published or are the obvious ones; every search begins with them.
KNOWN = (
    "low_rank(8)",
    "share(1, low_rank(2))",
    "share(1, kron(8, 8))",
    "share(1, mpo(2))",
    "legendre(3, kron(8, 8))",
    "legendre(2, low_rank(4))",
    "scale_layer_rows(low_rank(8))",
    "matmul(8, free, share(1, free))",
    "share(1, cos_rows(4))",
    "scale_layer_rows(random(1)) + low_rank(4)",
    "mpo(8)",
    "kron(8, 8)",
)
# A longer formula costs more to generate than it saves, and nobody reads it.
MAX_SEARCHED_NODES = 14
_SEEDS = 100


@dataclass(frozen=True, slots=True)
class Place:
    """A node in an expression.

    Attributes:
        path: indices of children from the root.
        node: what is there.
        takes_stacks: whether a stack may stand there.
    """

    path: tuple[int, ...]
    node: Expression
    takes_stacks: bool


def places(expression: Expression) -> Iterator[Place]:
    """Yield every place of an expression, the root first."""
    yield from _places(expression, (), True)


def _places(node: Expression, path: tuple[int, ...], takes_stacks: bool) -> Iterator[Place]:
    yield Place(path, node, takes_stacks)
    below = takes_stacks and not isinstance(node, OverDepth | Share)
    for index, child in enumerate(node.children):
        yield from _places(child, (*path, index), below)


def put(expression: Expression, path: tuple[int, ...], new: Expression) -> Expression:
    """Return an expression with another node at a place.

    Raises:
        UsageError: its sort does not fit there.
    """
    if not path:
        return new
    children = list(expression.children)
    children[path[0]] = put(children[path[0]], path[1:], new)
    return expression.with_children(tuple(children))


class Breeder:
    """Draws expressions; the same generator of random numbers draws the same ones."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def random(self, num_nodes: int = 5, *, takes_stacks: bool = True) -> Expression:
        """Draw an expression of about so many nodes at most."""
        if num_nodes <= 1:
            return self._leaf()
        if takes_stacks and self._rng.random() < 0.6:
            return self._over_depth(self.random(num_nodes - 1, takes_stacks=False))
        if num_nodes >= 3 and self._rng.random() < 0.6:
            left = int(self._rng.integers(1, num_nodes - 1))
            parts = [self.random(size, takes_stacks=takes_stacks) for size in (left, num_nodes - 1 - left)]
            return self._joined(*parts)
        return self._scaled(self.random(num_nodes - 1, takes_stacks=takes_stacks), takes_stacks=takes_stacks)

    def mutate(self, expression: Expression) -> Expression:
        """Change one place: draw it anew, wrap it, add a term or a factor, take it away, or change what it is."""
        place = self._choose(list(places(expression)))
        changes: list[Callable[[Place], Expression]] = [self._redraw, self._wrap, self._join, self._unwrap, self._tweak]
        return put(expression, place.path, self._choose(changes)(place))

    def cross(self, one: Expression, other: Expression) -> Expression:
        """Put a part of the other expression, of a fitting sort, in some place of the first."""
        place = self._choose(list(places(one)))
        parts = [each.node for each in places(other) if place.takes_stacks or not each.node.varies]
        return put(one, place.path, self._choose(parts)) if parts else one

    def child_of(self, one: Expression, other: Expression) -> Expression:
        """Return a changed copy of the first or a cross of both, of no more nodes than are searched."""
        child = self.cross(one, other) if self._rng.random() < 0.3 else self.mutate(one)
        return child if sum(1 for _ in child.walk()) <= MAX_SEARCHED_NODES else one

    def _choose(self, items: Sequence[_Item]) -> _Item:
        return items[int(self._rng.integers(len(items)))]

    def _leaf(self) -> Expression:
        size = int(2 ** self._rng.integers(1, 5))
        leaves: list[Expression] = [
            LowRank(size),
            LowRank(size),
            Kronecker(int(2 ** self._rng.integers(1, 6)), int(2 ** self._rng.integers(1, 6))),
            Kronecker(8, 8),
            Chain(size),
            Waves("rows", size),
            Waves("columns", size),
            Free(),
            Random(int(self._rng.integers(_SEEDS))),
            Vector(self._choose(["row", "column"])),
        ]
        return self._choose(leaves)

    def _over_depth(self, child: Expression) -> Expression:
        if self._rng.random() < 0.5:
            return Share(int(self._choose([1, 1, 2, 4])), child)
        return OverDepth(self._choose(["legendre", "cosine"]), int(self._rng.integers(2, 5)), child)

    def _joined(self, left: Expression, right: Expression) -> Expression:
        joined: list[Expression] = [Sum(left, right), Sum(left, right), Product(left, right)]
        return self._choose([*joined, MatMul(int(2 ** self._rng.integers(2, 6)), left, right)])

    def _scaled(self, child: Expression, *, takes_stacks: bool) -> Expression:
        if isinstance(child, Scale):
            child = child.child  # twice scaled is scaled
        return Scale(self._choose(["rows", "layers", "layer_rows"]) if takes_stacks else "rows", child)

    def _redraw(self, place: Place) -> Expression:
        return self.random(int(self._rng.integers(1, 5)), takes_stacks=place.takes_stacks)

    def _wrap(self, place: Place) -> Expression:
        if place.takes_stacks and not place.node.varies and self._rng.random() < 0.6:
            return self._over_depth(place.node)
        return self._scaled(place.node, takes_stacks=place.takes_stacks)

    def _join(self, place: Place) -> Expression:
        other = self.random(int(self._rng.integers(1, 4)), takes_stacks=place.takes_stacks)
        return self._joined(place.node, other)

    def _unwrap(self, place: Place) -> Expression:
        return self._choose(list(place.node.children)) if place.node.children else self._redraw(place)

    def _tweak(self, place: Place) -> Expression:
        node = place.node
        if isinstance(node, OverDepth):
            return replace(node, basis="cosine" if node.basis == "legendre" else "legendre")
        if isinstance(node, Waves):
            return replace(node, axis="columns" if node.axis == "rows" else "rows")
        if isinstance(node, Kronecker):
            return Kronecker(int(2 ** self._rng.integers(1, 6)), int(2 ** self._rng.integers(1, 6)))
        if isinstance(node, Random):
            return Random(int(self._rng.integers(_SEEDS)))
        if node.knobs:
            factor = self._choose([0.5, 2.0])
            return replace(node, **{name: max(1, int(size * factor)) for name, size in node.knobs.items()})
        return self._redraw(place)


def known_expressions() -> list[Expression]:
    """Return the forms that every search begins with."""
    return [parse(text) for text in KNOWN]
