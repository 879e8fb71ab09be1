"""Modules of the nodes that combine others, and the maker of the module of any node.

Shape letters as in `methods.generator_search.leaves`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from methods.generator_search.bases import Floats, basis_values
from methods.generator_search.counting import Shape, child_shapes, groups_of, terms_of
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
from methods.generator_search.leaves import (
    ALL,
    ChainPart,
    FreePart,
    KroneckerPart,
    LowRankPart,
    Part,
    RandomPart,
    VectorPart,
    WavesPart,
)

# Order k of a basis over depth starts with 2^-k of the deviation of order 0, as in the Legendre method.
ORDER_DECAY = 0.5


class Combination(Part):
    """The module of a node with children, `parts`; it can be zero if all of them can."""

    def __init__(self, node: Expression, shape: Shape, role: str) -> None:
        super().__init__(node, shape, role)
        self.parts = nn.ModuleList(
            make_part(child, each, role) for child, each in zip(node.children, child_shapes(node, shape), strict=True)
        )

    @property
    def can_be_zero(self) -> bool:
        """Whether `draw` can make all weights zero."""
        return all(part.can_be_zero for part in self.below)

    @property
    def below(self) -> list[Part]:
        """The modules of the children."""
        return cast(list[Part], list(self.parts))

    def child(self, index: int, pick: slice) -> Tensor:
        """Return the weights of a child; a matrix in a stack is there once."""
        part = self.below[index]
        weights: Tensor = part(pick if part.varies == self.varies else ALL)
        return weights


class SumPart(Combination):
    """X + Y."""

    def forward(self, pick: slice = ALL) -> Tensor:
        """Add."""
        return self.child(0, pick) + self.child(1, pick)

    def draw(self, power_N: Floats, *, zero: bool) -> None:
        """Give each half of the power."""
        for part in self.below:
            part.draw(power_N / 2, zero=zero)


class ProductPart(Combination):
    """X * Y, element by element."""

    @property
    def can_be_zero(self) -> bool:
        """If either can."""
        return any(part.can_be_zero for part in self.below)

    def forward(self, pick: slice = ALL) -> Tensor:
        """Multiply."""
        return self.child(0, pick) * self.child(1, pick)

    def draw(self, power_N: Floats, *, zero: bool) -> None:
        """Give both the root of the power; the first that can starts at zero."""
        _draw_factors(self.below, np.sqrt(power_N), zero=zero)


class MatMulPart(ProductPart):
    """X Y with X (O, R) and Y (R, I)."""

    node: MatMul

    def forward(self, pick: slice = ALL) -> Tensor:
        """Multiply, after repeating what a matrix product does not: axes of equal values."""
        rows, inner, columns = self.shape.rows, self.node.inner, self.shape.columns
        return self.child(0, pick).expand(-1, rows, inner) @ self.child(1, pick).expand(-1, inner, columns)

    def draw(self, power_N: Floats, *, zero: bool) -> None:
        """Draw both alike: an entry is a sum of R products."""
        _draw_factors(self.below, np.sqrt(power_N / self.node.inner), zero=zero)


def _draw_factors(parts: Sequence[Part], power_N: Floats, *, zero: bool) -> None:
    for part in parts:
        is_zero = zero and part.can_be_zero
        part.draw(power_N, zero=is_zero)
        zero = zero and not is_zero


class ScalePart(Combination):
    """A parameter (N, O), (L, 1) or (L, O) times the rows of X."""

    node: Scale

    def __init__(self, node: Scale, shape: Shape, role: str) -> None:
        super().__init__(node, shape, role)
        first = shape.copies if node.axis == "rows" else shape.layers
        self.scale = nn.Parameter(torch.empty(first, 1 if node.axis == "layers" else shape.rows))

    def forward(self, pick: slice = ALL) -> Tensor:
        """Multiply the rows."""
        is_per_layer = self.node.axis != "rows"
        return self.scale[pick if is_per_layer == self.varies else ALL][:, :, None] * self.child(0, pick)

    def draw(self, power_N: Floats, *, zero: bool) -> None:
        """Start with factors of 1, or of 0 where what they scale can be no zero."""
        is_zero = zero and self.below[0].can_be_zero
        nn.init.constant_(self.scale, float(is_zero or not zero))
        self.below[0].draw(power_N, zero=is_zero)


class OverDepthPart(Combination):
    """Copies (K, O, I) of X mixed with fixed weights (L, K)."""

    node: OverDepth
    basis: Tensor

    def __init__(self, node: OverDepth, shape: Shape, role: str) -> None:
        super().__init__(node, shape, role)
        basis_LK = basis_values(node.basis, shape.layers, terms_of(node, shape))
        self.register_buffer("basis", torch.tensor(basis_LK, dtype=torch.float32), persistent=False)
        decay_K = ORDER_DECAY ** (2.0 * np.arange(basis_LK.shape[1]))
        self._shares_K = decay_K / (basis_LK**2 @ decay_K).mean()

    def forward(self, pick: slice = ALL) -> Tensor:
        """Mix."""
        copies_KOI = self.child(0, ALL).expand(-1, self.shape.rows, self.shape.columns)
        return (self.basis[pick] @ copies_KOI.flatten(1)).view(-1, self.shape.rows, self.shape.columns)

    def draw(self, power_N: Floats, *, zero: bool) -> None:
        """Give order k the power 4^-k of order 0; the power is the mean over layers."""
        self.below[0].draw(power_N * self._shares_K, zero=zero)


class SharePart(Combination):
    """The copy (O, I) of each layer's group."""

    node: Share

    def forward(self, pick: slice = ALL) -> Tensor:
        """Choose."""
        layers = range(self.shape.layers)[pick]
        groups = [layer // self.node.layers for layer in layers]
        copies: Tensor = self.below[0](slice(groups[0], groups[-1] + 1))
        return copies.index_select(0, torch.tensor(groups, device=copies.device) - groups[0])

    def draw(self, power_N: Floats, *, zero: bool) -> None:
        """Draw each copy alike."""
        self.below[0].draw(np.repeat(power_N, groups_of(self.node, self.shape)), zero=zero)


_PARTS: dict[type[Expression], Callable[..., Part]] = {
    Free: FreePart,
    Vector: VectorPart,
    LowRank: LowRankPart,
    Kronecker: KroneckerPart,
    Chain: ChainPart,
    Random: RandomPart,
    Waves: WavesPart,
    Sum: SumPart,
    Product: ProductPart,
    MatMul: MatMulPart,
    Scale: ScalePart,
    OverDepth: OverDepthPart,
    Share: SharePart,
}


def make_part(node: Expression, shape: Shape, role: str) -> Part:
    """Make the module of a node; its numbers are not drawn yet.

    Raises:
        UsageError: a chain of cores cannot have the shape.
    """
    return _PARTS[type(node)](node, shape, role)
