"""Matrices cut into a grid of equal blocks, each of low rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods.procrustes.classes.base import Factors, StructuredClass, leading_factors, require


@dataclass(frozen=True)
class BlockLowRank(StructuredClass):
    """G x H blocks of M/G x N/H, each a product U V of the same rank.

    Factors: U (G, H, M/G, R) and V (G, H, R, N/H).

    Attributes:
        row_blocks: G.
        column_blocks: H.
        rank: R.
    """

    row_blocks: int
    column_blocks: int
    rank: int

    def __post_init__(self) -> None:
        where = f"{self.row_blocks} x {self.column_blocks} blocks of {self.rows} x {self.columns}"
        require(
            self.rows % self.row_blocks == 0 and self.columns % self.column_blocks == 0,
            f"{where} are not equal. Give divisors of the sizes",
        )
        limit = min(self.rows // self.row_blocks, self.columns // self.column_blocks)
        require(1 <= self.rank <= limit, f"rank {self.rank} in {where}: give 1 to {limit}")

    @property
    def factor_shapes(self) -> tuple[tuple[int, ...], ...]:
        """U and V: R (H M + G N) numbers."""
        return (
            (*self._grid, self.rows // self.row_blocks, self.rank),
            (*self._grid, self.rank, self.columns // self.column_blocks),
        )

    @property
    def _grid(self) -> tuple[int, int]:
        return self.row_blocks, self.column_blocks

    def project(self, weight_MN: Tensor) -> Factors:
        """Return the truncated singular value decomposition of each block."""
        self.check_shape(weight_MN)
        blocks = weight_MN.unflatten(1, (self.column_blocks, -1)).unflatten(0, (self.row_blocks, -1)).transpose(1, 2)
        return leading_factors(blocks, self.rank)

    def dense(self, factors: Factors) -> Tensor:
        """Return the products side by side (M, N)."""
        return (factors[0] @ factors[1]).transpose(1, 2).flatten(2).flatten(0, 1)

    def apply(self, factors: Factors, x: Tensor) -> Tensor:
        """Map (..., M) to (..., N), one block row after the other."""
        inner = torch.einsum("...gm,ghmr->...ghr", x.unflatten(-1, (self.row_blocks, -1)), factors[0])
        return torch.einsum("...ghr,ghrn->...hn", inner, factors[1]).flatten(-2)

    def transpose(self, factors: Factors) -> tuple[BlockLowRank, Factors]:
        """Return the class of the mirrored grid and its factors."""
        mirrored = BlockLowRank(self.columns, self.rows, self.column_blocks, self.row_blocks, self.rank)
        return mirrored, (factors[1].mT.transpose(0, 1), factors[0].mT.transpose(0, 1))
