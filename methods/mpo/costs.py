"""What it costs to multiply by a chain of cores: rebuild the matrix first, or contract the chain with the rows.

A cost model decides, and its constants are stored instead of measured at start: the choice has a part in the last bits
of a result, and a run must give the same bits twice.

Letters: M, K, R sizes of a matrix product (M, K) @ (K, R), done `batch` times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Literal

from harness.nn.factorise import Modes

Plan = Literal["rebuild", "left", "right"]
_FLOAT_BYTES = 4
MAX_ROWS = 1 << 62


@dataclass(frozen=True, slots=True)
class Work:
    """What one map does to some rows.

    Attributes:
        multiply_adds: of all matrix products.
        moved_bytes: operands and results of the products.
        permuted_bytes: numbers copied into another order.
        products: matrix products inside batches.
        calls: of the library.
    """

    multiply_adds: int = 0
    moved_bytes: int = 0
    permuted_bytes: int = 0
    products: int = 0
    calls: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds for one unit of each kind of `Work`."""

    multiply_add: float
    moved_byte: float
    permuted_byte: float
    product: float
    call: float

    def seconds(self, work: Work) -> float:
        """Estimate the seconds of some work."""
        return math.fsum(cost * amount for cost, amount in zip(astuple(self), astuple(work), strict=True))


# Seconds a unit on one thread of a processor of 2023, float32: non-negative least squares of the relative error over
# the table of tests/benchmarks/mpo_table.py, which `python tests/benchmarks/mpo_table.py --fit` makes anew.
FORWARD = Costs(multiply_add=3e-11, moved_byte=1e-10, permuted_byte=1e-9, product=2e-7, call=3e-6)
TRAINING = Costs(multiply_add=3e-11, moved_byte=1e-10, permuted_byte=1e-9, product=2e-7, call=1e-5)


def _product(batch: int, m: int, k: int, r: int, *, with_backward: bool) -> Work:
    moved = batch * r * (m + k) + m * k
    work = Work(batch * m * k * r, _FLOAT_BYTES * moved, 0, batch, 1)
    if not with_backward:
        return work
    # d flow is a product of the same size; d matrix another, made for each item of the batch and then summed.
    return work + work + Work(batch * m * k * r, _FLOAT_BYTES * (moved + 2 * batch * m * k), 0, batch, 2)


def _copy(numbers: int, *, with_backward: bool) -> Work:
    return Work(0, 0, 2 * _FLOAT_BYTES * numbers * (1 + with_backward), 0, 1 + with_backward)


def rebuild_work(modes: Modes, bonds: Sequence[int], *, with_backward: bool = False) -> Work:
    """Count the making of the matrix, as `harness.nn.factorise.rebuild` does it."""
    size, parts = modes.outs[0] * modes.ins[0], Work()
    for left, out, inside, right in modes.core_shapes(bonds)[1:]:
        parts += _product(1, size, left, out * inside * right, with_backward=with_backward)
        size *= out * inside
        parts += _copy(size * right, with_backward=with_backward)
    return parts


def plan_work(plan: Plan, modes: Modes, bonds: Sequence[int], num_rows: int, *, with_backward: bool = False) -> Work:
    """Count what a plan does to `num_rows` rows, forward or forward and backward."""
    outs, ins = modes.shape
    if plan == "rebuild":
        making = rebuild_work(modes, bonds, with_backward=with_backward)
        return making + _product(1, outs, ins, num_rows, with_backward=with_backward)
    work = _copy(num_rows * ins, with_backward=with_backward) + _copy(num_rows * outs, with_backward=with_backward)
    for batch, m, k, r in _chain_products(plan, modes, bonds):
        work += _product(batch, m, k, r * num_rows, with_backward=with_backward)
    return work


def chain_direction(modes: Modes, bonds: Sequence[int]) -> Plan:
    """Return the end to contract from: the one with fewer multiply-adds, from the right if they are equal."""
    ends: tuple[Plan, ...] = ("right", "left")
    return min(ends, key=lambda end: plan_work(end, modes, bonds, 1).multiply_adds)


def chain_rows(modes: Modes, bonds: Sequence[int], *, with_backward: bool) -> range:
    """Return the numbers of rows for which contracting the chain is expected to be faster than rebuilding.

    Both times are a constant plus one for each row, so that it is all numbers up to one, or all from one on.
    """
    costs, chain = TRAINING if with_backward else FORWARD, chain_direction(modes, bonds)

    def saved_seconds(num_rows: int) -> float:
        works = (plan_work(plan, modes, bonds, num_rows, with_backward=with_backward) for plan in ("rebuild", chain))
        rebuilt, contracted = (costs.seconds(work) for work in works)
        return rebuilt - contracted

    first, slope = saved_seconds(1), saved_seconds(2) - saved_seconds(1)
    crossing = 1 - first / slope if slope else 1.0
    if slope < 0 and first >= 0:
        return range(1, math.floor(crossing) + 1)
    return range(max(1, math.ceil(crossing)), MAX_ROWS) if slope > 0 or first > 0 else range(0)


def choose_plan(modes: Modes, bonds: Sequence[int], num_rows: int, *, with_backward: bool) -> Plan:
    """Return the plan that is expected to take less time, forward or forward and backward."""
    is_chain = num_rows in chain_rows(modes, bonds, with_backward=with_backward)
    return chain_direction(modes, bonds) if is_chain else "rebuild"


def _chain_products(plan: Plan, modes: Modes, bonds: Sequence[int]) -> Iterable[tuple[int, int, int, int]]:
    for site, (left, out, inside, right) in enumerate(modes.core_shapes(bonds)):
        if plan == "left":
            yield math.prod(modes.outs[:site]), out * right, left * inside, math.prod(modes.ins[site + 1 :])
        else:
            yield math.prod(modes.ins[:site]), left * out, inside * right, math.prod(modes.outs[site + 1 :])
