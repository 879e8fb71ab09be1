"""The rotation under which a group of weights lies nearest to structured matrices, by alternating projections.

Shape letters: D residual features, N other features of a weight, or of all weights of a group side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from methods.procrustes.member import Member


@dataclass(frozen=True, kw_only=True, slots=True)
class SolverOptions:
    """How `solve_rotation` goes about it.

    Attributes:
        start: the rotation to begin with: left singular vectors of the compressed weights, or none.
        exact_pulls: weights of the Exact class take part in the Procrustes step. They hold the rotation back, since
            they ask for none.
        max_iterations: pairs of a projection and a Procrustes step.
        tolerance: stop when an iteration lowers the error by less than this part of it.
    """

    start: Literal["pca", "identity"] = "pca"
    exact_pulls: bool = False
    max_iterations: int = 500
    tolerance: float = 1e-4


# What the public code of ProcrustesGPT does by default.
PUBLISHED = SolverOptions(start="identity", exact_pulls=True, max_iterations=10, tolerance=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotation:
    """What `solve_rotation` found.

    Attributes:
        matrix: the orthogonal Q (D, D); weights become Q W.
        errors: |Q H - S| / |H| over the weights H that took part, after each projection and each Procrustes step.
    """

    matrix: Tensor
    errors: tuple[float, ...]


def solve_rotation(members: Sequence[Member], options: SolverOptions | None = None) -> Rotation:
    """Lower sum_i |Q W_i - S_i|^2 over orthogonal Q and members S_i of each class, never raising it.

    Args:
        members: weights of equal height D and dtype, and their classes.
        options: by default those of `SolverOptions`.

    Source: ProcrustesGPT, arXiv:2506.02818, the alternating least squares of its section 3; the Procrustes step is
        Schoenemann 1966, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31.
    """
    options = options or SolverOptions()
    taking_part = [member for member in members if options.exact_pulls or not member.is_exact]
    height = members[0].weight.size(0)
    if not taking_part:
        return Rotation(matrix=torch.eye(height).to(members[0].weight), errors=())
    stacked_DN = torch.cat([member.weight for member in taking_part], dim=1)
    rotation_DD = _start(members, options)
    energy = _energy(stacked_DN)
    errors: list[float] = []
    for _ in range(options.max_iterations):
        nearest_DN = project_stacked(rotation_DD @ stacked_DN, taking_part)
        # A projection is orthogonal to its error, so that |Q H - S|^2 = |H|^2 - |S|^2.
        kept = _energy(nearest_DN)
        errors.append(_relative(energy - kept, energy))
        rotation_DD, agreement = procrustes(nearest_DN @ stacked_DN.T)
        errors.append(_relative(energy + kept - 2 * agreement, energy))
        if errors[-2] - errors[-1] <= options.tolerance * errors[-2]:
            break
    return Rotation(matrix=rotation_DD, errors=tuple(errors))


def project_stacked(stacked_DN: Tensor, members: Sequence[Member]) -> Tensor:
    """Return the nearest structured matrices to weights that stand side by side."""
    parts = stacked_DN.split([member.weight.size(1) for member in members], dim=1)
    nearest = [
        member.structure.dense(member.structure.project(part)) for member, part in zip(members, parts, strict=True)
    ]
    return torch.cat(nearest, dim=1)


def procrustes(target_DD: Tensor) -> tuple[Tensor, float]:
    """Return the orthogonal Q of largest <Q, T>, and that value: the sum of the singular values of T."""
    left_DD, values_D, right_DD = torch.linalg.svd(target_DD)
    return left_DD @ right_DD, values_D.double().sum().item()


def principal_basis(members: Sequence[Member]) -> Tensor:
    """Return the left singular vectors (D, D) of the compressed weights as rows, the leading one first."""
    compressed = [member.weight for member in members if not member.is_exact]
    gram_DD = sum(weight_DN @ weight_DN.T for weight_DN in compressed)
    return torch.linalg.eigh(gram_DD).eigenvectors.flip(1).T.contiguous()


def _start(members: Sequence[Member], options: SolverOptions) -> Tensor:
    if options.start == "pca":
        return principal_basis(members)
    weight_DN = members[0].weight
    return torch.eye(weight_DN.size(0)).to(weight_DN)


def _energy(matrix: Tensor) -> float:
    # Summed in double: the errors are small differences of these.
    return torch.linalg.vector_norm(matrix, dtype=torch.float64).square().item()


def _relative(error_squared: float, energy: float) -> float:
    return (max(error_squared, 0.0) / energy) ** 0.5 if energy else 0.0
