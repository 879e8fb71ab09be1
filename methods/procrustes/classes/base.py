"""What every structured class offers: the nearest member to a matrix, multiplying by a member, its size.

Shape letters: M and N rows and columns of a matrix W, which maps a row x of M numbers to the row x W of N.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.func import vjp

from harness.errors import UsageError

Factors = tuple[Tensor, ...]


@dataclass(frozen=True)
class StructuredClass(ABC):
    """A set of M x N matrices that fewer numbers describe, linear in each of its factors.

    Attributes:
        rows: M.
        columns: N.
    """

    rows: int
    columns: int

    @property
    @abstractmethod
    def factor_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each factor."""

    @property
    def num_params(self) -> int:
        """Numbers in the factors of one member."""
        return sum(math.prod(shape) for shape in self.factor_shapes)

    @property
    def multiply_adds(self) -> int:
        """Products that `apply` makes for one row."""
        return self.num_params

    @abstractmethod
    def project(self, weight_MN: Tensor) -> Factors:
        """Return the factors, in the dtype of W, of the member nearest to W in the Frobenius norm.

        Raises:
            UsageError: W has another shape.
        """

    @abstractmethod
    def dense(self, factors: Factors) -> Tensor:
        """Return the member as a matrix (M, N); linear in each factor and differentiable."""

    @abstractmethod
    def apply(self, factors: Factors, x: Tensor) -> Tensor:
        """Map (..., M) to (..., N) by the member, which is not built."""

    @abstractmethod
    def transpose(self, factors: Factors) -> tuple[StructuredClass, Factors]:
        """Return the class of the transposed members, and the factors of this one's transpose."""

    @property
    def is_free_on_the_right(self) -> bool:
        """Whether members are all L R with L from some set and any R, the last factor: then N may be any number."""
        return False

    def complete(
        self, weight_MN: Tensor, row_metric_MM: Tensor, column_metric_NN: Tensor | None, factors: Factors
    ) -> Factors:
        """Return the factors with the last replaced by the best one in tr((W - S)^T R (W - S) C).

        Here by conjugate gradients from the last factor given; a class that knows a closed form overrides this.

        Args:
            weight_MN: W.
            row_metric_MM: R, symmetric and not negative, in the dtype of W.
            column_metric_NN: C, likewise; None for the identity.
            factors: of S.
        """
        return self._improve(len(factors) - 1, weight_MN, row_metric_MM, column_metric_NN, factors)

    def fit(
        self,
        weight_MN: Tensor,
        row_metric_MM: Tensor,
        column_metric_NN: Tensor | None,
        start: Factors,
        *,
        num_sweeps: int = 2,
    ) -> Factors:
        """Return factors of a member S near to W in tr((W - S)^T R (W - S) C), never farther than the start.

        Here by least squares in one factor after the other; arguments as in `complete`.

        Args:
            weight_MN: W.
            row_metric_MM: R.
            column_metric_NN: C, or None.
            start: factors to begin with.
            num_sweeps: times that all factors are passed.
        """
        factors = start
        for _ in range(num_sweeps):
            for index in range(len(factors) - 1):
                factors = self._improve(index, weight_MN, row_metric_MM, column_metric_NN, factors)
            factors = self.complete(weight_MN, row_metric_MM, column_metric_NN, factors)
        return factors

    def _improve(
        self,
        index: int,
        weight_MN: Tensor,
        row_metric_MM: Tensor,
        column_metric_NN: Tensor | None,
        factors: Factors,
    ) -> Factors:
        """Return the factors with one of them replaced by least squares, by conjugate gradients."""

        def build(factor: Tensor) -> Tensor:
            return self.dense((*factors[:index], factor, *factors[index + 1 :]))

        def weigh(matrix_MN: Tensor) -> Tensor:
            weighted_MN = row_metric_MM @ matrix_MN
            return weighted_MN if column_metric_NN is None else weighted_MN @ column_metric_NN

        member_MN, pull_back = vjp(build, factors[index])
        (descent,) = pull_back(weigh(weight_MN - member_MN))
        step = conjugate_gradients(lambda step: pull_back(weigh(build(step)))[0], descent)
        return (*factors[:index], factors[index] + step, *factors[index + 1 :])

    def check_shape(self, weight_MN: Tensor) -> Self:
        """Return self if W has the rows and columns of the class.

        Raises:
            UsageError: it has not.
        """
        if tuple(weight_MN.shape) != (self.rows, self.columns):
            raise UsageError(
                f"procrustes: a class of {self.rows} x {self.columns} matrices cannot take one of "
                f"{' x '.join(map(str, weight_MN.shape))}. Make the class for this shape"
            )
        return self


def conjugate_gradients(
    curvature: Callable[[Tensor], Tensor], descent: Tensor, *, num_steps: int = 40, tolerance: float = 1e-10
) -> Tensor:
    """Solve H s = g for a positive semidefinite H; each step lowers s H s / 2 - g s.

    Args:
        curvature: maps s to H s, both of the shape of g.
        descent: g.
        num_steps: at most.
        tolerance: of |H s - g|^2 over |g|^2, to stop at.
    """
    solution, residual = torch.zeros_like(descent), descent
    direction, size = descent, descent.square().sum()
    goal = tolerance * size
    for _ in range(num_steps):
        bent = curvature(direction)
        bend = (direction * bent).sum()
        if size <= goal or bend <= 0:
            break
        length = size / bend
        solution = solution + length * direction
        residual = residual - length * bent
        before, size = size, residual.square().sum()
        direction = residual + (size / before) * direction
    return solution


def leading_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the factors (..., P, rank) and (..., rank, Q) of the nearest products of this rank to (..., P, Q).

    Leading vectors come from the smaller Gram matrix, much faster than by a singular value decomposition. The other
    factor is the projection onto them, so that the error of small ones enters squared. Both share a product's size.

    Source: Eckart and Young 1936, "The approximation of one matrix by another of lower rank", Psychometrika 1.
    """
    if weight.size(-2) > weight.size(-1):
        right, left = leading_factors(weight.mT, rank)
        return left.mT, right.mT
    _, vectors = torch.linalg.eigh(weight @ weight.mT)
    left = vectors[..., -rank:].flip(-1)
    right = left.mT @ weight
    root = torch.linalg.vector_norm(right, dim=-1, keepdim=True).sqrt()
    return left * root.mT, torch.where(root > 0, right / root, 0)


def require(is_met: bool, problem: str) -> None:
    """Raise UsageError with the problem unless the condition is met.

    Raises:
        UsageError: it is not.
    """
    if not is_met:
        raise UsageError(f"procrustes: {problem}")


def solve_semidefinite(matrix: Tensor, target: Tensor) -> Tensor:
    """Solve A x = b for a symmetric A that is not negative; where A has no inverse, a solution of least squares.

    Args:
        matrix: A (P, P).
        target: b (P, Q).
    """
    lower, fault = torch.linalg.cholesky_ex(matrix)
    if fault:
        return torch.linalg.lstsq(matrix, target).solution
    return torch.cholesky_solve(target, lower)
