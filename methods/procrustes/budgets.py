"""Classes for a share of the parameters of each map, and the largest share that keeps to a total.

A chooser of one share compresses every linear map of the blocks but those of the exact roles, by default `value`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from harness.errors import UsageError
from harness.nn.config import LinearRole
from harness.pretrained.residual import Place, ResidualModel
from methods.procrustes.classes import Exact, Kronecker, LowRank, StructuredClass
from methods.procrustes.compress import Skips
from methods.procrustes.weighting import Choice

ByShare = Callable[[float], Choice]
EXACT_ROLES: tuple[LinearRole, ...] = ("value",)
# Parts of one-sided classes where the share of parameters is any: as many, so that it is met closely.
PARTS = 32
# Reflections that a matrix in Cayley's form is expected to need, see `methods.procrustes.skips`.
EXPECTED_REFLECTIONS = 2


def one_sided(fraction: Fraction, exact_roles: Sequence[LinearRole] = EXACT_ROLES) -> Choice:
    """Return the choice of r terms in k parts of the residual features, for the fraction r/k."""

    def choose(place: Place, rows: int, columns: int) -> StructuredClass:
        if place.role in exact_roles:
            return Exact(rows, columns)
        return Kronecker(rows, columns, terms=fraction.numerator, left_rows=fraction.denominator, left_columns=1)

    return choose


def low_rank(share: float, exact_roles: Sequence[LinearRole] = EXACT_ROLES) -> Choice:
    """Return the choice of the largest rank with at most a share of a map's parameters."""

    def choose(place: Place, rows: int, columns: int) -> StructuredClass:
        rank = int(share * rows * columns / (rows + columns))
        if place.role in exact_roles or rank >= min(rows, columns):
            return Exact(rows, columns)
        return LowRank(rows, columns, rank=max(rank, 1))

    return choose


def many_parts(share: float, exact_roles: Sequence[LinearRole] = EXACT_ROLES) -> Choice:
    """Return the choice of one-sided classes of many parts with at most a share of a map's parameters."""

    def choose(place: Place, rows: int, columns: int) -> StructuredClass:
        parts = next(parts for parts in range(min(PARTS, rows), 0, -1) if rows % parts == 0)
        terms = int(share * rows * columns / (parts + rows // parts * columns))
        if place.role in exact_roles or terms >= parts:
            return Exact(rows, columns)
        return Kronecker(rows, columns, terms=max(terms, 1), left_rows=parts, left_columns=1)

    return choose


def compressed_params(residual: ResidualModel, choose: Choice, skips: Skips) -> int:
    """Count the parameters of a model compressed by a choice of classes, without compressing it.

    Args:
        residual: neither rotated nor compressed yet.
        choose: gives the class of each map.
        skips: how the change of bases is stored; "cayley" as with `EXPECTED_REFLECTIONS` for each matrix.
    """
    total = residual.num_params()
    for basis in range(residual.num_bases):
        for place in residual.places(basis):
            rows, columns = residual.weight(place).shape
            total += choose(place, rows, columns).num_params - rows * columns
    width, square = residual.width, residual.width**2
    skip = {"dense": square, "cayley": width * (width - 1) // 2 + EXPECTED_REFLECTIONS * width}.get(skips, 0)
    total += 2 * len(residual.blocks) * skip
    return total + (skips != "none" and residual.is_tied) * (square - width)


def largest_choice(residual: ResidualModel, by_share: ByShare, skips: Skips, total: int) -> Choice:
    """Return the choice by the largest share whose model has at most a total of parameters, by bisection.

    Raises:
        UsageError: even the smallest has more.
    """
    low, high = 0.0, 2.0
    for _ in range(20):
        middle = (low + high) / 2
        fits = compressed_params(residual, by_share(middle), skips) <= total
        low, high = (middle, high) if fits else (low, middle)
    if low == 0:
        raise UsageError(f"no class has as few as {total:,} parameters. Give a larger fraction")
    return by_share(low)
