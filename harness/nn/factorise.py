"""A matrix as a chain of small cores: matrix product operator, also called tensor-train matrix.

Shape letters: O and I out and in features of the matrix, o and i those of one site (its modes), A and Z the bonds to
the left and to the right of a core (A, o, i, Z), N rows of activations. Sites are in row-major order of the digits:
the first site has the most significant digit of the out and of the in index.

Sources: Oseledets 2011, Tensor-Train Decomposition (TT-SVD); Novikov et al. 2015, arXiv 1509.06569 (matrices).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from harness.errors import UsageError


@dataclass(frozen=True, slots=True)
class Modes:
    """How the features of a matrix are split over the sites of a chain.

    Attributes:
        outs: out features of each site; their product is O.
        ins: in features of each site; their product is I.
    """

    outs: tuple[int, ...]
    ins: tuple[int, ...]

    @property
    def num_sites(self) -> int:
        """Sites of the chain."""
        return len(self.outs)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (O, I) of the matrix."""
        return math.prod(self.outs), math.prod(self.ins)

    def bonds(self, max_bond: int) -> tuple[int, ...]:
        """Return the bonds 1, r_1, ..., 1: `max_bond`, or the rank of the unfolding there if that is less."""
        sizes = [out * inside for out, inside in zip(self.outs, self.ins, strict=True)]
        cuts = range(1, self.num_sites)
        return 1, *(min(max_bond, math.prod(sizes[:cut]), math.prod(sizes[cut:])) for cut in cuts), 1

    def core_shapes(self, bonds: Sequence[int]) -> list[tuple[int, int, int, int]]:
        """Return the shape (A, o, i, Z) of each core."""
        return list(zip(bonds[:-1], self.outs, self.ins, bonds[1:], strict=True))


def balanced_factors(number: int, num_factors: int) -> tuple[int, ...] | None:
    """Return the factors above 1 that are nearest to each other, in rising order; None where there are none."""
    splits = _splits(number, num_factors, 2)
    return min(splits, key=lambda factors: (sum(factors), factors), default=None)


def _splits(number: int, num_factors: int, least: int) -> Iterator[tuple[int, ...]]:
    if num_factors == 1:
        yield (number,)
        return
    for factor in range(least, int(number ** (1 / num_factors) + 1e-9) + 1):
        if number % factor == 0:
            yield from ((factor, *rest) for rest in _splits(number // factor, num_factors - 1, factor))


def balanced_modes(in_features: int, out_features: int, num_sites: Sequence[int], widest: int) -> Modes | None:
    """Split a matrix into balanced modes.

    Args:
        in_features: I.
        out_features: O.
        num_sites: numbers of sites that may be taken, in the order of preference.
        widest: the first number of sites whose modes are all at most this wide is taken; else the one whose widest
            mode is narrowest.

    Returns:
        The modes, or None if no number of sites divides both features.
    """
    possible = [
        Modes(outs, ins)
        for sites in num_sites
        if (outs := balanced_factors(out_features, sites)) and (ins := balanced_factors(in_features, sites))
    ]
    return min(possible, key=lambda modes: max(widest, *modes.outs, *modes.ins), default=None)


@dataclass(frozen=True, slots=True)
class TensorTrain:
    """Cores of TT-SVD, and what was cut off on the way.

    Attributes:
        cores: one tensor (A, o, i, Z) a site; all but the last are left-orthogonal.
        discarded: Euclidean norm of the singular values dropped at each inner bond.
    """

    cores: list[Tensor]
    discarded: tuple[float, ...]

    @property
    def error(self) -> float:
        """Frobenius norm of the difference to the matrix: the cuts are orthogonal to each other."""
        return math.hypot(*self.discarded)

    @classmethod
    def of(cls, weight_OI: Tensor, modes: Modes, max_bond: int) -> Self:
        """Decompose a matrix by TT-SVD, sweeping from left to right.

        Args:
            weight_OI: matrix of shape (prod outs, prod ins), in whose dtype the cores are.
            modes: features of each site.
            max_bond: leading singular values that each bond keeps at most.

        Raises:
            UsageError: the modes do not multiply to the matrix's shape.

        Source: Oseledets 2011, algorithm 1, on the digits (o_0, i_0, o_1, i_1, ...) as in Novikov et al. 2015.
        """
        if tuple(weight_OI.shape) != modes.shape:
            raise UsageError(f"modes {modes.outs} x {modes.ins} do not multiply to a {_times(weight_OI.shape)} matrix")
        rest, left, cores, discarded = _interleave(weight_OI, modes), 1, [], []
        for out, inside in list(zip(modes.outs, modes.ins, strict=True))[:-1]:
            u, values, v = torch.linalg.svd(rest.reshape(left * out * inside, -1), full_matrices=False)
            kept = min(max_bond, len(values))
            cores.append(u[:, :kept].reshape(left, out, inside, kept))
            discarded.append(float(torch.linalg.vector_norm(values[kept:])))
            rest, left = values[:kept, None] * v[:kept], kept
        cores.append(rest.reshape(left, modes.outs[-1], modes.ins[-1], 1))
        return cls(cores, tuple(discarded))


def _interleave(weight_OI: Tensor, modes: Modes) -> Tensor:
    digits = [axis for site in range(modes.num_sites) for axis in (site, modes.num_sites + site)]
    return weight_OI.reshape(*modes.outs, *modes.ins).permute(digits)


def _times(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape)


def rebuild(cores: Sequence[Tensor]) -> Tensor:
    """Multiply cores (A, o, i, Z) out, left to right, to their matrix (O, I); differentiable."""
    merged_OIA = cores[0].squeeze(0)
    for core in cores[1:]:
        (outs, ins, left), (_, out, inside, right) = merged_OIA.shape, core.shape
        product = (merged_OIA.reshape(-1, left) @ core.reshape(left, -1)).view(outs, ins, out, inside, right)
        merged_OIA = product.transpose(1, 2).reshape(outs * out, ins * inside, right)
    return merged_OIA.squeeze(-1)


def contract(cores: Sequence[Tensor], x_NI: Tensor, *, from_left: bool = False) -> Tensor:
    """Map x (N, I) to x W^T (N, O) through the chain, site by site, without making the matrix W; differentiable.

    Rows are the last axis on the way, so that a site is one batched product (M, K) @ (left, K, rest * N) and nothing
    is permuted between sites. From the left, `left` are the out modes done, else the in modes to come.
    """
    num_rows = len(x_NI)
    flow = x_NI.t()
    left = 1 if from_left else math.prod(core.size(2) for core in cores)
    for core in cores if from_left else reversed(cores):
        bond, out, inside, next_bond = core.shape
        if from_left:
            matrix_MK = core.permute(1, 3, 0, 2).reshape(out * next_bond, bond * inside)
        else:
            matrix_MK = core.reshape(bond * out, inside * next_bond)
            left //= inside
        flow = _multiply(matrix_MK, flow.reshape(left, matrix_MK.size(1), -1))
        left *= out if from_left else 1
    return flow.reshape(math.prod(core.size(1) for core in cores), num_rows).t().contiguous()


def _multiply(matrix_MK: Tensor, flow: Tensor) -> Tensor:
    # torch.matmul would fold the batch into the rows and copy for it: up to ten times slower here.
    if len(flow) == 1:
        return (matrix_MK @ flow[0]).unsqueeze(0)
    return torch.bmm(matrix_MK.expand(len(flow), -1, -1), flow)
