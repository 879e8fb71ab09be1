"""All matrices: the class of weights that stay as they are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from methods.procrustes.classes.base import Factors, StructuredClass


@dataclass(frozen=True)
class Exact(StructuredClass):
    """Every M x N matrix, with itself as its one factor."""

    @property
    def factor_shapes(self) -> tuple[tuple[int, ...], ...]:
        """M N."""
        return ((self.rows, self.columns),)

    def project(self, weight_MN: Tensor) -> Factors:
        """Return W."""
        self.check_shape(weight_MN)
        return (weight_MN,)

    def dense(self, factors: Factors) -> Tensor:
        """Return the matrix (M, N)."""
        return factors[0]

    def apply(self, factors: Factors, x: Tensor) -> Tensor:
        """Map (..., M) to (..., N)."""
        return x @ factors[0]

    def transpose(self, factors: Factors) -> tuple[Exact, Factors]:
        """Return the N x M matrices and the transpose."""
        return Exact(self.columns, self.rows), (factors[0].mT,)

    def complete(
        self, weight_MN: Tensor, row_metric_MM: Tensor, column_metric_NN: Tensor | None, factors: Factors
    ) -> Factors:
        """Return W, whose distance is 0 in any metric."""
        return (weight_MN,)
