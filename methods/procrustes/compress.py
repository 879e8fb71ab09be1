"""Compress a pretrained model: find each basis, rotate, and put structured maps in the place of dense ones.

Shape letters: D residual features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from harness.pretrained.moments import Moments
from harness.pretrained.parts import DenseSkip
from harness.pretrained.residual import Place
from methods.procrustes.classes import Factors, StructuredClass
from methods.procrustes.descent import Descent, DescentOptions, descend
from methods.procrustes.layer import StructuredLinear
from methods.procrustes.member import Member
from methods.procrustes.ports import Stream
from methods.procrustes.skips import CayleySkip
from methods.procrustes.solver import SolverOptions, principal_basis, solve_rotation
from methods.procrustes.weighting import Choice, Weighting, weigh_basis

Skips = Literal["dense", "cayley", "shared", "none"]
Solver = Callable[[Sequence[Member]], Descent]


@dataclass(frozen=True, kw_only=True, slots=True)
class Compression:
    """What `compress` did.

    Attributes:
        relative_errors: |W - S| / |W| of each compressed weight in its basis.
        errors: of each basis, or of the shared one, as its solver recorded them.
    """

    relative_errors: Mapping[Place, float]
    errors: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """What a place gets once all bases are known: class and factors of its (I, O) matrix, and what its bias takes up.

    The shift (O,) is in the basis found.
    """

    structure: StructuredClass
    factors: Factors
    relative_error: float
    bias_shift: Tensor | None


def compress(
    residual: Stream,
    choose: Choice,
    solve: Solver,
    *,
    weighting: Weighting = "none",
    moments: Mapping[Place, Moments] | None = None,
    skips: Skips = "dense",
) -> Compression:
    """Compress a model in place.

    Biases take up what the error does to the mean output wherever moments are given and there is a bias.

    Args:
        residual: neither rotated nor compressed yet.
        choose: gives the class of the weight at a place, oriented with the residual features as rows.
        solve: finds the rotation of a group and the factors under it.
        weighting: how errors count, see `weigh_basis`.
        moments: of the model as it is, where the weighting needs them. They are asked for basis by basis, and nothing
            of them is kept: with `PassedMoments` those of one basis are in memory at a time, unless all bases are one.
        skips: "dense" or "cayley" matrices between a basis for each part; "shared": one basis for all parts, which
            needs none; "none": no rotation, and `solve` has to return the identity.
    """
    moments = moments or {}
    bases: list[Tensor] = []
    errors: list[tuple[float, ...]] = []
    found: dict[Place, _Found] = {}
    every = range(residual.num_bases)
    for group in [every] if skips == "shared" else [[basis] for basis in every]:
        members: dict[Place, Member] = {}
        for basis in group:
            members |= weigh_basis(residual, basis, choose, weighting, moments)
        solution = _identity(residual.width)
        if not all(member.is_exact for member in members.values()):
            solution = solve(list(members.values()))
        for (place, member), factors in zip(members.items(), solution.factors, strict=False):
            if not member.is_exact:
                found[place] = _keep(residual, place, member, solution.matrix, factors, moments.get(place))
        bases += [solution.matrix] * len(group)
        errors.append(solution.errors)
    if skips != "none":
        residual.rotate(bases)
    if skips == "cayley":
        encode_skips(residual)
    for place, one in found.items():
        bias = cast(nn.Linear, residual.module(place)).bias
        if bias is not None and one.bias_shift is not None:
            bias = (bias.double() + one.bias_shift).to(bias)
        residual.blocks[place.block].set_linear(place.role, StructuredLinear(one.structure, one.factors, bias))
    relative = {place: one.relative_error for place, one in found.items()}
    return Compression(relative_errors=relative, errors=tuple(errors))


def by_descent(options: DescentOptions | None = None) -> Solver:
    """Return the solver that descends from the principal basis of the weighted weights."""

    def solve(members: Sequence[Member]) -> Descent:
        return descend(members, weighted_basis(members), options)

    return solve


def by_alternation(options: SolverOptions) -> Solver:
    """Return the solver of alternating projections, which knows no weights: members of theirs are projected plainly."""

    def solve(members: Sequence[Member]) -> Descent:
        rotation = solve_rotation(members, options)
        factors = [member.structure.project(rotation.matrix @ member.weight) for member in members]
        return Descent(matrix=rotation.matrix, factors=tuple(factors), errors=rotation.errors)

    return solve


def by_principal_basis(members: Sequence[Member]) -> Descent:
    """Rotate to the principal basis and project there."""
    matrix = principal_basis(members)
    factors = [member.structure.project(matrix @ member.weight) for member in members]
    return Descent(matrix=matrix, factors=tuple(factors), errors=())


def without_rotation(members: Sequence[Member]) -> Descent:
    """Fit each weight in its class as it is, by its own metrics."""
    identity_DD = torch.eye(len(members[0].weight)).to(members[0].weight)
    factors = [member.fit(identity_DD) for member in members]
    return Descent(matrix=identity_DD, factors=tuple(factors), errors=())


def weighted_basis(members: Sequence[Member]) -> Tensor:
    """Return an orthogonal basis (D, D) in order of what leaving a direction out would cost: of R W C W^T R."""
    total_DD = sum(member.share * member.spread() for member in members if not member.is_exact)
    return torch.linalg.eigh(cast(Tensor, total_DD)).eigenvectors.flip(1).T.contiguous()


def _identity(size: int) -> Descent:
    return Descent(matrix=torch.eye(size, dtype=torch.float64), factors=(), errors=())


def encode_skips(residual: Stream) -> None:
    """Store the dense matrices on skip connections by Cayley's transform."""
    for block in residual.blocks:
        for name in ("attention_skip", "mlp_skip"):
            skip = getattr(block, name)
            if isinstance(skip, DenseSkip):
                setattr(block, name, CayleySkip(skip.matrix.detach()))


@torch.no_grad()
def _keep(
    residual: Stream, place: Place, member: Member, rotation_DD: Tensor, factors: Factors, moments: Moments | None
) -> _Found:
    """Return what is left to do at a place, in the numbers of its weight: metrics and float64 are let go."""
    rotated_DN = rotation_DD @ member.weight
    error_DN = rotated_DN - member.structure.dense(factors)
    shift = None
    if moments is not None and residual.module(place).bias is not None:
        shift = (rotation_DD @ moments.mean) @ error_DN if place.reads else error_DN @ moments.mean
    structure = member.structure
    if not place.reads:
        structure, factors = structure.transpose(factors)
    return _Found(
        structure=structure,
        factors=tuple(factor.detach().to(residual.weight(place)) for factor in factors),
        relative_error=(error_DN.norm() / rotated_DN.norm()).item(),
        bias_shift=shift,
    )
