"""Matrices of low rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods.procrustes.classes.base import Factors, StructuredClass, leading_factors, require


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
    def num_params(self) -> int:
        """R (M + N)."""
        return self.rank * (self.rows + self.columns)

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

    def fit(
        self, weight_MN: Tensor, row_metric_MM: Tensor, column_metric_NN: Tensor, start: Factors, *, num_sweeps: int = 1
    ) -> Factors:
        """Return the nearest product, in closed form where both metrics have an inverse, else by least squares.

        Source: Wang et al. 2024, "SVD-LLM", arXiv:2403.07378: truncated SVD between Cholesky factors of the metrics.
        """
        (row_root_MM, row_fault), (column_root_NN, column_fault) = map(
            torch.linalg.cholesky_ex, (row_metric_MM, column_metric_NN)
        )
        if row_fault or column_fault:
            return super().fit(weight_MN, row_metric_MM, column_metric_NN, start, num_sweeps=num_sweeps)
        u_MR, v_RN = leading_factors(row_root_MM.mT @ weight_MN @ column_root_NN, self.rank)
        return (
            torch.linalg.solve_triangular(row_root_MM.mT, u_MR, upper=True),
            torch.linalg.solve_triangular(column_root_NN, v_RN, upper=False, left=False),
        )
