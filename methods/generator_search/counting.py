"""Numbers and operations of an expression for given shapes, by formula.

Letters: O and I rows and columns of the weight, L layers, N copies of a matrix (1, the terms of `OverDepth`, or the
groups of `Share`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.errors import UsageError
from harness.nn.factorise import Modes, balanced_modes
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

# As in the published matrix product operators: the fewest sites with no mode above this.
SITES, WIDEST_MODE = (2, 3, 4), 16


@dataclass(frozen=True, slots=True)
class Shape:
    """What a node generates.

    Attributes:
        rows: O.
        columns: I.
        layers: L.
        copies: N, of a matrix; always 1 for a stack, since neither `OverDepth` nor `Share` takes one.
    """

    rows: int
    columns: int
    layers: int
    copies: int = 1

    def num_weights(self, node: Expression) -> int:
        """Weights (O, I) that a node makes at once."""
        return self.layers if node.varies else self.copies


def rank_of(node: LowRank, shape: Shape) -> int:
    """Return r: at most the full rank."""
    return min(node.rank, shape.rows, shape.columns)


def terms_of(node: Waves | OverDepth, shape: Shape) -> int:
    """Return the number of functions: at most as many as there are points."""
    if isinstance(node, OverDepth):
        return min(node.terms, shape.layers)
    return min(node.terms, shape.rows if node.axis == "rows" else shape.columns)


def blocks_of(node: Kronecker, shape: Shape) -> tuple[int, int]:
    """Return rows and columns of A: the largest divisors of (O, I) that are at most those of the node."""
    return _largest_divisor(shape.rows, node.rows), _largest_divisor(shape.columns, node.columns)


def _largest_divisor(number: int, most: int) -> int:
    return next(divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0)


def groups_of(node: Share, shape: Shape) -> int:
    """Return the number of groups of layers."""
    return math.ceil(shape.layers / node.layers)


def core_shapes(node: Chain, shape: Shape) -> Sequence[tuple[int, int, int, int]]:
    """Return the shape (A, o, i, Z) of each core.

    Raises:
        UsageError: the weight's sides do not both split into so many factors.
    """
    modes: Modes | None = balanced_modes(shape.columns, shape.rows, SITES, WIDEST_MODE)
    if modes is None:
        raise UsageError(
            f"expression: mpo({node.chi}): {shape.rows} rows and {shape.columns} columns do not both split into "
            f"{' or '.join(map(str, SITES))} factors above 1; set other widths or another inner size"
        )
    return modes.core_shapes(modes.bonds(node.chi))


def child_shapes(node: Expression, shape: Shape) -> tuple[Shape, ...]:
    """Return the shape of each child of a node."""
    if isinstance(node, OverDepth):
        return (replace(shape, copies=terms_of(node, shape)),)
    if isinstance(node, Share):
        return (replace(shape, copies=groups_of(node, shape)),)
    if isinstance(node, MatMul):
        return replace(shape, columns=node.inner), replace(shape, rows=node.inner)
    return (shape,) * len(node.children)


def count_params(node: Expression, shape: Shape) -> int:
    """Count the numbers that are trained and stored.

    Raises:
        UsageError: as `core_shapes`.
    """
    below = sum(count_params(child, each) for child, each in zip(node.children, child_shapes(node, shape), strict=True))
    return below + _own_params(node, shape)


def _own_params(node: Expression, shape: Shape) -> int:
    rows, columns, layers, copies = shape.rows, shape.columns, shape.layers, shape.copies
    match node:
        case Free():
            return copies * rows * columns
        case Vector(axis):
            return {"row": copies * rows, "column": copies * columns, "layer": layers}[axis]
        case LowRank():
            return copies * rank_of(node, shape) * (rows + columns)
        case Kronecker():
            m, n = blocks_of(node, shape)
            return copies * (m * n + rows // m * (columns // n))
        case Chain():
            return copies * sum(math.prod(core) for core in core_shapes(node, shape))
        case Waves(axis):
            return copies * terms_of(node, shape) * (columns if axis == "rows" else rows)
        case Scale(axis):
            return {"rows": copies * rows, "layers": layers, "layer_rows": layers * rows}[axis]
        case Random() | Sum() | Product() | MatMul() | OverDepth() | Share():
            return 0
    raise AssertionError(f"no count for {type(node).__name__}")


def multiply_adds(node: Expression, shape: Shape) -> int:
    """Count the multiply-adds of the matrix products that make every weight once and carry gradients back.

    Elementwise work is not counted, here as everywhere: a Kronecker product costs one multiplication a weight.

    Raises:
        UsageError: as `core_shapes`.
    """
    shapes = child_shapes(node, shape)
    return _own_multiply_adds(node, shape) + sum(map(multiply_adds, node.children, shapes))


def _own_multiply_adds(node: Expression, shape: Shape) -> int:
    size = shape.rows * shape.columns
    match node:
        case LowRank():
            return 3 * shape.copies * rank_of(node, shape) * size
        case Chain():
            return 3 * shape.copies * _merging(core_shapes(node, shape))
        case Waves():
            return 2 * shape.copies * terms_of(node, shape) * size
        case MatMul(inner, left, right):
            return shape.num_weights(node) * inner * size * (1 + has_params(left) + has_params(right))
        case OverDepth():
            return shape.layers * terms_of(node, shape) * size * (1 + has_params(node.child))
    return 0


def _merging(cores: Sequence[tuple[int, int, int, int]]) -> int:
    """Multiply-adds of merging cores from left to right."""
    total, done = 0, cores[0][1] * cores[0][2]
    for left, out, inside, right in cores[1:]:
        total += done * left * out * inside * right
        done *= out * inside
    return total


def has_params(node: Expression) -> bool:
    """Whether anything in it is trained."""
    return any(not isinstance(each, Random | Sum | Product | MatMul | OverDepth | Share) for each in node.walk())
