"""Orthogonal matrices on the skip path, and what they cost: dense, or by Cayley's transform.

Every block changes the basis of the residual stream twice, and the skip connection has to follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from harness.errors import UsageError

# Nearer to -1 an eigenvalue is reflected away: the skew matrix would have one of 2 / this, at which single precision
# loses two digits. A random rotation of D features has about D * this / pi of them.
NEAREST_TO_MINUS_ONE = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class CayleyMatrix:
    """An orthogonal Q = H_1 .. H_m (I + A)^-1 (I - A), with A skew and H = I - 2 u u^T.

    Attributes:
        upper: D (D - 1) / 2 entries of A above its diagonal.
        reflections: (M, D), unit vectors u for the eigenvalues of Q too near to -1, where A does not exist.
    """

    upper: Tensor
    reflections: Tensor

    @property
    def num_params(self) -> int:
        """Numbers stored, the reflections among them."""
        return self.upper.numel() + self.reflections.numel()

    @classmethod
    def of(cls, orthogonal_DD: Tensor) -> Self:
        """Encode an orthogonal matrix, in double precision, in its own dtype.

        The eigenvectors of Q whose eigenvalue is near to -1 span the least singular space of I + Q. Where V is a basis
        of it, V W one that Q maps to -V W up to what is near, reflecting away turns these eigenvalues to near 1.

        Raises:
            UsageError: the matrix is not orthogonal to 1e-3.
        """
        q_DD = orthogonal_DD.double()
        identity_DD = torch.eye(len(q_DD), dtype=torch.float64, device=q_DD.device)
        if (off := (q_DD @ q_DD.T - identity_DD).abs().max().item()) > 1e-3:
            raise UsageError(f"procrustes: a skip matrix is not orthogonal (off by {off:.2g}). Store it dense")
        _, values_D, right_DD = torch.linalg.svd(identity_DD + q_DD)
        # |1 + lambda| are the singular values of I + Q, since Q is normal.
        reflections_MD = right_DD[values_D < NEAREST_TO_MINUS_ONE]
        rest_DD = reflect(reflections_MD, q_DD)
        skew_DD = torch.linalg.solve(identity_DD + rest_DD, identity_DD - rest_DD)
        row, column = torch.triu_indices(len(q_DD), len(q_DD), 1)
        upper = ((skew_DD - skew_DD.T) / 2)[row, column]
        return cls(upper=upper.to(orthogonal_DD), reflections=reflections_MD.to(orthogonal_DD))

    def dense(self) -> Tensor:
        """Return Q (D, D) in the dtype of the numbers stored, solved in it or in float32 where it is of 16 bits."""
        size, dtype = self.reflections.size(1), self.upper.dtype
        upper, reflections_MD = self.upper, self.reflections
        if dtype in (torch.float16, torch.bfloat16):  # no solver takes these
            upper, reflections_MD = upper.float(), reflections_MD.float()
        row, column = torch.triu_indices(size, size, 1, device=upper.device)
        upper_DD = upper.new_zeros(size, size).index_put((row, column), upper)
        skew_DD = upper_DD - upper_DD.T
        identity_DD = torch.eye(size, dtype=upper.dtype, device=upper.device)
        return reflect(reflections_MD, torch.linalg.solve(identity_DD + skew_DD, identity_DD - skew_DD)).to(dtype)


class CayleySkip(nn.Module):
    """A skip connection that changes the basis, x becomes x Q, with Q stored by Cayley's transform.

    Args:
        orthogonal_DD: Q.
    """

    def __init__(self, orthogonal_DD: Tensor) -> None:
        super().__init__()
        stored = CayleyMatrix.of(orthogonal_DD)
        self.upper, self.reflections = nn.Parameter(stored.upper), nn.Parameter(stored.reflections)

    @classmethod
    def of_shape(cls, width: int, num_reflections: int = 0) -> Self:
        """Make one without numbers, to be filled in."""
        empty = cls(torch.eye(1, device="cpu"))  # any matrix: its numbers give way to those of the width
        empty.upper = nn.Parameter(torch.empty(width * (width - 1) // 2))
        empty.reflections = nn.Parameter(torch.empty(num_reflections, width))
        return empty

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., D); Q is solved for at each call."""
        return x @ CayleyMatrix(upper=self.upper, reflections=self.reflections).dense()


def reflect(vectors_MD: Tensor, matrix_DD: Tensor) -> Tensor:
    """Return (I - 2 V^T V) Q for orthonormal rows V: the product of all reflections, in any order."""
    return matrix_DD - 2 * vectors_MD.T @ (vectors_MD @ matrix_DD)
