"""Rebuilding the matrix against contracting the chain, as a Markdown table; and the constants of the cost model.

    python tests/benchmarks/mpo_table.py [--fit] [--widths 128 1024] [--save FILE] [--load FILE]

Square matrices in the automatic modes, float32, one thread. Both ways alternate, the least of several times counts.
`--fit` prints the constants of `methods/mpo/costs.py` that follow from these times (or from a saved file).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from harness.nn.factorise import Modes, balanced_modes, rebuild
from methods.mpo.blocks import contract_in_blocks, rows_of_block
from methods.mpo.costs import Plan, plan_work

WIDTHS = (128, 256, 512, 1024, 2048, 4096)
BONDS = (4, 8, 16, 32, 64)
ROWS = (1, 8, 64, 512, 2048, 8192)
# A way that does this many times the other's multiply-adds is not timed once it takes minutes to.
HOPELESS_RATIO, LONG_MULTIPLY_ADDS = 3, 2_000_000_000


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Seconds of each plan for one shape; None where it was not timed."""

    width: int
    chi: int
    rows: int
    with_backward: bool
    seconds: dict[str, float]


def square_modes(width: int) -> Modes:
    modes = balanced_modes(width, width, (2, 3, 4), 16)
    assert modes is not None
    return modes


def make_calls(width: int, chi: int, rows: int, with_backward: bool) -> dict[Plan, Callable[[], object]]:
    """Return what to time, for each plan that is worth it."""
    modes = square_modes(width)
    bonds = modes.bonds(chi)
    generator = torch.Generator().manual_seed(0)
    cores = [torch.randn(shape, generator=generator).requires_grad_() for shape in modes.core_shapes(bonds)]
    x = torch.randn(rows, width, generator=generator, requires_grad=True)
    gradient = torch.randn(rows, width, generator=generator)
    block = rows_of_block(modes, bonds, from_left=False)
    forwards: dict[Plan, Callable[[], Tensor]] = {
        "rebuild": lambda: torch.nn.functional.linear(x, rebuild(cores)),
        "right": lambda: contract_in_blocks(cores, x, block, from_left=False),
    }

    def run(forward: Callable[[], Tensor]) -> object:
        if with_backward:
            return torch.autograd.grad(forward(), [x, *cores], gradient)
        with torch.no_grad():
            return forward()

    work = {plan: plan_work(plan, modes, bonds, rows).multiply_adds for plan in forwards}
    least = min(work.values())
    hopeless = {p for p, n in work.items() if n > LONG_MULTIPLY_ADDS and n > HOPELESS_RATIO * least}
    return {plan: lambda f=forward: run(f) for plan, forward in forwards.items() if plan not in hopeless}


def least_seconds(calls: dict[Plan, Callable[[], object]], total_seconds: float = 0.7) -> dict[str, float]:
    """Time each call in turn, at least twice if that is a matter of seconds, and keep the least."""
    best = dict.fromkeys(calls, float("inf"))
    started, rounds = time.perf_counter(), 0
    while rounds < 2 or (time.perf_counter() - started < total_seconds and rounds < 300):
        for plan, call in calls.items():
            start = time.perf_counter()
            call()
            best[plan] = min(best[plan], time.perf_counter() - start)
        rounds += 1
    return {str(plan): seconds for plan, seconds in best.items()}


def measure(widths: Sequence[int]) -> Iterator[Cell]:
    for width in widths:
        for chi in BONDS:
            for rows in ROWS:
                for with_backward in (False, True):
                    calls = make_calls(width, chi, rows, with_backward)
                    if len(calls) == 2:
                        seconds = least_seconds(calls)
                        yield Cell(width=width, chi=chi, rows=rows, with_backward=with_backward, seconds=seconds)


def fit(cells: Sequence[Cell]) -> np.ndarray:
    """Non-negative constants of least squared relative error."""
    rows, ones = [], []
    for cell in cells:
        modes = square_modes(cell.width)
        for plan, seconds in cell.seconds.items():
            work = plan_work(plan, modes, modes.bonds(cell.chi), cell.rows, with_backward=cell.with_backward)
            rows.append(np.array(astuple(work), dtype=float) / seconds)
            ones.append(1.0)
    matrix = np.array(rows)
    scale = matrix.max(0)
    return nnls(matrix / scale, np.array(ones))[0] / scale


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--load", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.load:
        cells = [Cell(**cell) for cell in json.loads(options.load.read_text())]
    else:
        cells = list(measure(options.widths))
    if options.save:
        options.save.write_text(json.dumps([asdict(cell) for cell in cells]))
    if options.fit:
        for with_backward in (False, True):
            print(with_backward, fit([cell for cell in cells if cell.with_backward == with_backward]))


if __name__ == "__main__":
    main()
