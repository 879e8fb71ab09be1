"""Monarch matrices, also called group-and-shuffle: two block-diagonal matrices with a shuffle between them.

Shape letters: G left blocks of P x S, H right blocks of T x Q; M = G P, N = H Q, and G S = H T inner features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from methods.procrustes.classes.base import Factors, StructuredClass, leading_factors, require


@dataclass(frozen=True)
class Monarch(StructuredClass):
    """Products diag(L_1 .. L_G)[:, p] diag(R_1 .. R_H), with p a perfect shuffle of the inner features.

    Seen as G x H blocks of P x Q, each block is a product of as many pairs of a column of L and a row of R as there
    are inner features that lie in both its L and its R: S / H where that is whole, else some have one more. Factors:
    (G, P, S) and (H, T, Q).

    Attributes:
        left_blocks: G.
        right_blocks: H.
        left_width: S.
        is_mirrored: p is the inverse of the shuffle seen from the right, as in transposed members.

    Source: ProcrustesGPT, arXiv:2506.02818, section on GS matrices; Dao et al. 2022, "Monarch", arXiv:2204.00595.
    """

    left_blocks: int
    right_blocks: int
    left_width: int
    is_mirrored: bool = False

    def __post_init__(self) -> None:
        inner = self.left_blocks * self.left_width
        for name, size, blocks in (
            ("rows", self.rows, self.left_blocks),
            ("columns", self.columns, self.right_blocks),
            ("inner features", inner, self.right_blocks),
        ):
            require(size % blocks == 0, f"{size} {name} do not split into {blocks} blocks. Give a divisor")

    @property
    def right_height(self) -> int:
        """T."""
        return self.left_blocks * self.left_width // self.right_blocks

    @property
    def factor_shapes(self) -> tuple[tuple[int, ...], ...]:
        """L and R: M S + T N numbers."""
        return (
            (self.left_blocks, self.rows // self.left_blocks, self.left_width),
            (self.right_blocks, self.right_height, self.columns // self.right_blocks),
        )

    @cached_property
    def shuffle(self) -> Tensor:
        """p: the left inner feature that each right one takes."""
        groups, size = (
            (self.right_blocks, self.right_height) if self.is_mirrored else (self.left_blocks, self.left_width)
        )
        taken = torch.arange(groups * size, device="cpu").view(groups, size).T.flatten()
        return taken.argsort() if self.is_mirrored else taken

    @cached_property
    def _pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """For each right inner feature: its left block, its right block, how many before it are in both."""
        left = self.shuffle // self.left_width
        right = torch.arange(len(left), device="cpu") // self.right_height
        block = left * self.right_blocks + right
        order = (block[:, None] == block[None, :]).tril(-1).sum(1)
        return left, right, order

    @property
    def _largest_rank(self) -> int:
        return int(self._pairs[2].max()) + 1

    def project(self, weight_MN: Tensor) -> Factors:
        """Return the truncated singular value decomposition of each block, sorted into L and R."""
        self.check_shape(weight_MN)
        blocks = weight_MN.unflatten(1, (self.right_blocks, -1)).unflatten(0, (self.left_blocks, -1)).transpose(1, 2)
        rank = min(self._largest_rank, *blocks.shape[2:])
        columns, rows = leading_factors(blocks, rank)
        left, right, order = self._pairs
        # A block may have more pairs than its own rank: the pairs beyond it stay zero.
        used = order < rank
        left, right, order = left[used], right[used], order[used]
        lefts = weight_MN.new_zeros(self.left_blocks * self.left_width, blocks.size(2))
        rights = weight_MN.new_zeros(len(used), blocks.size(3))
        lefts[self.shuffle[used]] = columns[left, right, :, order]
        rights[used] = rows[left, right, order]
        return lefts.unflatten(0, (self.left_blocks, -1)).mT, rights.unflatten(0, (self.right_blocks, -1))

    def dense(self, factors: Factors) -> Tensor:
        """Return the product (M, N), block by block."""
        left, right, order = self._pairs
        lefts, rights = factors[0].mT.flatten(0, 1)[self.shuffle], factors[1].flatten(0, 1)
        grid = self.left_blocks, self.right_blocks, self._largest_rank
        columns = torch.zeros(*grid, lefts.size(1)).to(lefts).index_put((left, right, order), lefts)
        rows = torch.zeros(*grid, rights.size(1)).to(rights).index_put((left, right, order), rights)
        return (columns.mT @ rows).transpose(1, 2).flatten(2).flatten(0, 1)

    def apply(self, factors: Factors, x: Tensor) -> Tensor:
        """Map (..., M) to (..., N): left blocks, shuffle, right blocks."""
        inner = torch.einsum("...gp,gps->...gs", x.unflatten(-1, (self.left_blocks, -1)), factors[0]).flatten(-2)
        # what `shuffle` picks, without numbers to pick by, which would lie on another device
        groups = self.right_height if self.is_mirrored else self.left_blocks
        shuffled = inner.unflatten(-1, (groups, -1)).mT.flatten(-2).unflatten(-1, (self.right_blocks, -1))
        return torch.einsum("...ht,htq->...hq", shuffled, factors[1]).flatten(-2)

    def transpose(self, factors: Factors) -> tuple[Monarch, Factors]:
        """Return the class with both block-diagonal matrices exchanged, and its factors."""
        mirrored = Monarch(
            self.columns, self.rows, self.right_blocks, self.left_blocks, self.right_height, not self.is_mirrored
        )
        return mirrored, (factors[1].mT, factors[0].mT)
