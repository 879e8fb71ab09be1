"""Sums of Kronecker products, one-sided ones included.

Shape letters: K terms; M = A B and N = C D, the first of each in the left factors, the second in the right ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods.procrustes.classes.base import Factors, StructuredClass, leading_factors, require, solve_semidefinite


@dataclass(frozen=True)
class Kronecker(StructuredClass):
    """Sums of K products left_k (x) right_k of factors (A, C) and (B, D).

    One-sided is C = 1: W = (left (x) I) right, a factorisation of rank K B whose left factor has A K numbers. Its
    mirror image is A = 1. Factors: (K, A, C) and (K, B, D).

    Attributes:
        terms: K.
        left_rows: A.
        left_columns: C.

    Source: ProcrustesGPT, arXiv:2506.02818; Van Loan and Pitsianis 1993, "Approximation with Kronecker products".
    """

    terms: int
    left_rows: int
    left_columns: int

    def __post_init__(self) -> None:
        left = f"a left factor of {self.left_rows} x {self.left_columns}"
        require(
            self.rows % self.left_rows == 0 and self.columns % self.left_columns == 0,
            f"{left} does not divide {self.rows} x {self.columns}. Give divisors of the sizes",
        )
        limit = min(self.left_rows * self.left_columns, self.right_rows * self.right_columns)
        require(1 <= self.terms <= limit, f"{self.terms} Kronecker terms with {left}: give 1 to {limit}")

    @property
    def right_rows(self) -> int:
        """B."""
        return self.rows // self.left_rows

    @property
    def right_columns(self) -> int:
        """D."""
        return self.columns // self.left_columns

    @property
    def factor_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Left and right: K (A C + B D) numbers."""
        return (
            (self.terms, self.left_rows, self.left_columns),
            (self.terms, self.right_rows, self.right_columns),
        )

    @property
    def multiply_adds(self) -> int:
        """Products that `apply` makes for one row."""
        return self.terms * min(self._work)

    @property
    def _work(self) -> tuple[int, int]:
        """Products of one term for one row, with the left factor first and with the right one first."""
        return (
            self.rows * self.left_columns + self.right_rows * self.columns,
            self.rows * self.right_columns + self.left_rows * self.columns,
        )

    def project(self, weight_MN: Tensor) -> Factors:
        """Return the leading terms of the rearranged matrix, in which a Kronecker product has rank 1."""
        self.check_shape(weight_MN)
        split = weight_MN.view(self.left_rows, self.right_rows, self.left_columns, self.right_columns)
        left, right = leading_factors(split.transpose(1, 2).flatten(2).flatten(0, 1), self.terms)
        return (
            left.mT.reshape(self.terms, self.left_rows, self.left_columns),
            right.reshape(self.terms, self.right_rows, self.right_columns),
        )

    def dense(self, factors: Factors) -> Tensor:
        """Return the sum of the products (M, N)."""
        left, right = (factor.flatten(1) for factor in factors)
        split = (left.mT @ right).view(self.left_rows, self.left_columns, self.right_rows, self.right_columns)
        return split.transpose(1, 2).reshape(self.rows, self.columns)

    def apply(self, factors: Factors, x: Tensor) -> Tensor:
        """Map (..., M) to (..., N), by the factor first that leaves less to do."""
        left, right = factors
        split = x.unflatten(-1, (self.left_rows, self.right_rows))
        left_first, right_first = self._work
        if self.left_columns == 1:
            # One token goes through this twice as fast as through einsum.
            return (left[:, :, 0] @ split).flatten(-2) @ right.flatten(0, 1)
        if left_first <= right_first:
            inner = torch.einsum("...ab,kac->...ckb", split, left)
            return (inner.flatten(-2) @ right.flatten(0, 1)).flatten(-2)
        inner = split @ right.transpose(0, 1).flatten(1)
        return torch.einsum("...akd,kac->...cd", inner.unflatten(-1, (self.terms, -1)), left).flatten(-2)

    def transpose(self, factors: Factors) -> tuple[Kronecker, Factors]:
        """Return the class of the transposed products and their factors."""
        mirrored = Kronecker(self.columns, self.rows, self.terms, self.left_columns, self.left_rows)
        return mirrored, (factors[0].mT, factors[1].mT)

    @property
    def is_free_on_the_right(self) -> bool:
        """The right factor of a one-sided class is any matrix."""
        return self.left_columns == 1

    def complete(
        self, weight_MN: Tensor, row_metric_MM: Tensor, column_metric_NN: Tensor | None, factors: Factors
    ) -> Factors:
        """Return the factors with the best right one; of a one-sided class from (L^T R L) right = L^T R W.

        There L is left (x) I, and the columns' metric drops out.
        """
        if not self.is_free_on_the_right:
            return super().complete(weight_MN, row_metric_MM, column_metric_NN, factors)
        left = factors[0]
        identity = torch.eye(self.right_rows).to(left)
        wide_MR = torch.einsum("ka,bd->abkd", left[:, :, 0], identity).reshape(self.rows, -1)
        weighted_RM = wide_MR.mT @ row_metric_MM
        right = solve_semidefinite(weighted_RM @ wide_MR, weighted_RM @ weight_MN)
        return left, right.view(self.terms, self.right_rows, self.columns)

    def fit(
        self,
        weight_MN: Tensor,
        row_metric_MM: Tensor,
        column_metric_NN: Tensor | None,
        start: Factors,
        *,
        num_sweeps: int = 2,
    ) -> Factors:
        """Return a near member; one whose left factors are rows by way of its transpose."""
        if self.left_rows != 1 or self.left_columns == 1 or column_metric_NN is None:
            return super().fit(weight_MN, row_metric_MM, column_metric_NN, start, num_sweeps=num_sweeps)
        mirrored, factors = self.transpose(start)
        fitted = mirrored.fit(weight_MN.mT, column_metric_NN, row_metric_MM, factors, num_sweeps=num_sweeps)
        return mirrored.transpose(fitted)[1]
