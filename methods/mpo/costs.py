"""What it costs to multiply by a chain of cores: rebuild the matrix first, or contract the chain with the rows.

A cost model decides, and its constants are stored instead of measured at start: the choice has a part in the last bits
of a result, and a run must give the same bits twice.

Letters: M, K, R sizes of a matrix product (M, K) @ (K, R), done `batch` times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import cache
from typing import Literal

from harness.nn.factorise import Modes
from methods.mpo.blocks import rows_of_block

Plan = Literal["rebuild", "left", "right"]
_FLOAT_BYTES = 4
# The C library of Linux never reuses blocks of this size: they are mapped, and cleared, for each result.
_FRESH_BYTES = 32 << 20
# A matrix of this size and more comes from beyond the second cache.
_FAR_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Work:
    """What one map does to some rows.

    Attributes:
        multiply_adds: of all matrix products.
        packed_bytes: the matrix that all items of a batch share, brought into the kernel's order for each of them.
        far_bytes: the same where the matrix is larger than the cache.
        permuted_bytes: read and written where whole modes change places.
        transposed_bytes: read and written where rows become columns.
        fresh_bytes: results so large that the system has to clear their pages.
        products: matrix products inside batches.
        calls: of the library.
    """

    multiply_adds: int = 0
    packed_bytes: int = 0
    far_bytes: int = 0
    permuted_bytes: int = 0
    transposed_bytes: int = 0
    fresh_bytes: int = 0
    products: int = 0
    calls: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: int) -> Work:
        return Work(*(times * amount for amount in astuple(self)))


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds for one unit of each kind of `Work`."""

    multiply_add: float
    packed_byte: float
    far_byte: float
    permuted_byte: float
    transposed_byte: float
    fresh_byte: float
    product: float
    call: float

    def seconds(self, work: Work) -> float:
        """Estimate the seconds of some work."""
        return math.fsum(cost * amount for cost, amount in zip(astuple(self), astuple(work), strict=True))


# Seconds a unit on one thread, float32, torch 2.13 with MKL on a shared Xeon: non-negative least squares of the
# relative error over 274 cells, which `python tests/benchmarks/mpo_table.py --fit` measures anew.
FORWARD = Costs(1.3e-11, 1.6e-11, 2.8e-11, 2.1e-11, 8.5e-11, 5.2e-10, 5.6e-07, 3.9e-06)
TRAINING = Costs(1.5e-11, 4.8e-11, 7.8e-11, 2.4e-11, 2.1e-10, 1.8e-10, 6.9e-07, 6.8e-06)


def plan_work(plan: Plan, modes: Modes, bonds: tuple[int, ...], num_rows: int, *, with_backward: bool = False) -> Work:
    """Count what a plan does to `num_rows` rows, forward or forward and backward."""
    if plan == "rebuild":
        outs, ins = modes.shape
        making = _rebuild_work(modes, bonds, with_backward)
        return making + _product(1, outs, ins, num_rows, with_backward)
    block = rows_of_block(modes, bonds, from_left=plan == "left")
    num_blocks, rest = divmod(num_rows, block)
    is_blocked = num_rows > block

    def contracting(rows: int) -> Work:
        once = _chain_work(plan, modes, bonds, rows, with_backward)
        if not is_blocked:
            return once
        # The blocks are copied to their place; the backward pass contracts once more.
        again = _chain_work(plan, modes, bonds, rows, False) if with_backward else Work()
        return once + again + _permuted(rows * modes.shape[0])

    result = Work(fresh_bytes=_fresh(num_rows * modes.shape[0]) + with_backward * _fresh(num_rows * modes.shape[1]))
    return contracting(block) * num_blocks + (contracting(rest) if rest else Work()) + result


def _rebuild_work(modes: Modes, bonds: tuple[int, ...], with_backward: bool) -> Work:
    size, work = modes.outs[0] * modes.ins[0], Work()
    for left, out, inside, right in modes.core_shapes(bonds)[1:]:
        work += _product(1, size, left, out * inside * right, with_backward)
        size *= out * inside
        work += _permuted(size * right) * (1 + with_backward)
    return work


def _chain_work(plan: Plan, modes: Modes, bonds: tuple[int, ...], num_rows: int, with_backward: bool) -> Work:
    # A single row is its own transpose.
    work = Work(transposed_bytes=2 * _FLOAT_BYTES * num_rows * sum(modes.shape) * (num_rows > 1), calls=2)
    work = work * (1 + with_backward)
    for batch, m, k, r in _chain_products(plan, modes, bonds):
        work += _product(batch, m, k, r * num_rows, with_backward)
    return work


def _chain_products(plan: Plan, modes: Modes, bonds: tuple[int, ...]) -> Iterator[tuple[int, int, int, int]]:
    for site, (left, out, inside, right) in enumerate(modes.core_shapes(bonds)):
        if plan == "left":
            yield math.prod(modes.outs[:site]), out * right, left * inside, math.prod(modes.ins[site + 1 :])
        else:
            yield math.prod(modes.ins[:site]), left * out, inside * right, math.prod(modes.outs[site + 1 :])


def _product(batch: int, m: int, k: int, r: int, with_backward: bool) -> Work:
    """Count a product (m, k) @ (batch, k, r); the backward pass makes the matrix's gradient an item at a time."""
    work = _one_product(batch, m, k, r)
    if not with_backward:
        return work
    return work + _one_product(batch, k, m, r) + _one_product(batch, m, r, k) + Work(calls=1)


def _one_product(batch: int, m: int, k: int, r: int) -> Work:
    packed = _FLOAT_BYTES * batch * m * k
    near, far = (0, packed) if packed >= batch * _FAR_BYTES else (packed, 0)
    return Work(batch * m * k * r, near, far, 0, 0, _fresh(batch * m * r), batch, 1)


def _permuted(numbers: int) -> Work:
    return Work(permuted_bytes=2 * _FLOAT_BYTES * numbers, fresh_bytes=_fresh(numbers), calls=1)


def _fresh(numbers: int) -> int:
    return _FLOAT_BYTES * numbers if _FLOAT_BYTES * numbers >= _FRESH_BYTES else 0


def chain_direction(modes: Modes, bonds: tuple[int, ...]) -> Plan:
    """Return the end to contract from: the one with fewer multiply-adds, from the right if they are equal."""
    ends: tuple[Plan, ...] = ("right", "left")
    return min(ends, key=lambda end: plan_work(end, modes, bonds, 1).multiply_adds)


@cache
def choose_plan(modes: Modes, bonds: tuple[int, ...], num_rows: int, with_backward: bool) -> Plan:
    """Return the plan that is expected to take less time, forward or forward and backward."""
    costs = TRAINING if with_backward else FORWARD
    plans: tuple[Plan, ...] = (chain_direction(modes, bonds), "rebuild")
    return min(
        plans, key=lambda plan: costs.seconds(plan_work(plan, modes, bonds, num_rows, with_backward=with_backward))
    )
