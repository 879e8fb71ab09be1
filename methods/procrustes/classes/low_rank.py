"""Matrices of low rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods.procrustes.classes.base import Factors, StructuredClass, leading_factors, require, solve_semidefinite


@dataclass(frozen=True)
class LowRank(StructuredClass):
    """Products U V of U (M, R) and V (R, N).

    Attributes:
        rank: R.
    """

    rank: int

    def __post_init__(self) -> None:
        limit = min(self.rows, self.columns)
        require(1 <= self.rank <= limit, f"rank {self.rank} of {self.rows} x {self.columns}: give 1 to {limit}")

    @property
    def factor_shapes(self) -> tuple[tuple[int, ...], ...]:
        """U and V: R (M + N) numbers."""
        return ((self.rows, self.rank), (self.rank, self.columns))

    def project(self, weight_MN: Tensor) -> Factors:
        """Return U and V of the truncated singular value decomposition."""
        self.check_shape(weight_MN)
        return leading_factors(weight_MN, self.rank)

    def dense(self, factors: Factors) -> Tensor:
        """Return U V."""
        return factors[0] @ factors[1]

    def apply(self, factors: Factors, x: Tensor) -> Tensor:
        """Map (..., M) to (..., N) as (x U) V."""
        return x @ factors[0] @ factors[1]

    def transpose(self, factors: Factors) -> tuple[LowRank, Factors]:
        """Return the class of V^T U^T and these factors."""
        return LowRank(self.columns, self.rows, self.rank), (factors[1].mT, factors[0].mT)

    @property
    def is_free_on_the_right(self) -> bool:
        """V is any matrix."""
        return True

    def complete(
        self, weight_MN: Tensor, row_metric_MM: Tensor, column_metric_NN: Tensor | None, factors: Factors
    ) -> Factors:
        """Return U and V of (U^T R U) V = U^T R W; the columns' metric drops out."""
        weighted_RM = factors[0].mT @ row_metric_MM
        return factors[0], solve_semidefinite(weighted_RM @ factors[0], weighted_RM @ weight_MN)

    def fit(
        self,
        weight_MN: Tensor,
        row_metric_MM: Tensor,
        column_metric_NN: Tensor | None,
        start: Factors,
        *,
        num_sweeps: int = 2,
    ) -> Factors:
        """Return the nearest product, in closed form where the metrics have an inverse, else by least squares.

        Source: Wang et al. 2024, "SVD-LLM", arXiv:2403.07378: truncated SVD between Cholesky factors of the metrics.
        """
        row_root_MM, is_singular = torch.linalg.cholesky_ex(row_metric_MM)
        coloured_MN = row_root_MM.mT @ weight_MN
        if column_metric_NN is not None:
            column_root_NN, column_fault = torch.linalg.cholesky_ex(column_metric_NN)
            is_singular, coloured_MN = is_singular | column_fault, coloured_MN @ column_root_NN
        if is_singular:
            return super().fit(weight_MN, row_metric_MM, column_metric_NN, start, num_sweeps=num_sweeps)
        left_MR, _ = leading_factors(coloured_MN, self.rank)
        u_MR = torch.linalg.solve_triangular(row_root_MM.mT, left_MR, upper=True)
        return self.complete(weight_MN, row_metric_MM, column_metric_NN, (u_MR, u_MR))
