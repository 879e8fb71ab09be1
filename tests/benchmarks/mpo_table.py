"""Rebuilding the matrix against contracting the chain: time, memory, parameters, and the constants of the cost model.

    python tests/benchmarks/mpo_table.py [--widths 128 1024] [--save FILE] [--load FILE] [--fit] [--memory]

Square matrices in the automatic modes, float32, one thread. Both ways alternate, the least of several times counts.
`--load` takes the times of saved files instead of measuring, `--fit` prints the constants of `methods/mpo/costs.py`
that follow from the times, `--memory` the peak memory of one call instead of times.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from harness.nn.factorise import Modes, balanced_modes, rebuild
from methods.mpo.blocks import contract_in_blocks, rows_of_block
from methods.mpo.costs import Plan, choose_plan, plan_work

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
    for call in calls.values():
        call()
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
    """Time all cells where both plans are worth it."""
    for width, chi, rows, with_backward in product(widths, BONDS, ROWS, (False, True)):
        calls = make_calls(width, chi, rows, with_backward)
        if len(calls) == 2:
            seconds = least_seconds(calls)
            yield Cell(width=width, chi=chi, rows=rows, with_backward=with_backward, seconds=seconds)


def render_times(cells: Sequence[Cell]) -> str:
    """One line a cell: both times, the plan that the model chooses, and its time over that of the better one."""
    heads = ("width", "chi", "rows", "pass", "rebuild ms", "chain ms", "chosen", "chosen / better")
    lines = [f"| {' | '.join(heads)} |", "| ---: | ---: | ---: | --- | ---: | ---: | --- | ---: |"]
    for cell in cells:
        modes = square_modes(cell.width)
        chosen = choose_plan(modes, modes.bonds(cell.chi), cell.rows, cell.with_backward)
        ratio = cell.seconds[chosen] / min(cell.seconds.values())
        times = [f"{1e3 * cell.seconds[plan]:.3f}" for plan in ("rebuild", "right")]
        name = "chain" if chosen == "right" else chosen
        kind = "training" if cell.with_backward else "forward"
        lines.append(
            f"| {cell.width} | {cell.chi} | {cell.rows} | {kind} | {' | '.join(times)} | {name} | {ratio:.2f} |"
        )
    return "\n".join(lines)


def peak_bytes(call: Callable[[], object]) -> int:
    """The most memory that one call holds beyond its inputs."""
    call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = call()
    assert profiler.profiler is not None and result is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return int(held.max(initial=0))


def render_memory(widths: Sequence[int], rows: Sequence[int] = (1, 64, 2048)) -> str:
    """One line a width, bond and number of rows: parameters, and the peak memory of both plans, with backward."""
    heads = ("width", "chi", "parameters", "of dense", "rows", "rebuild MB", "chain MB")
    lines = [f"| {' | '.join(heads)} |", "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for width, chi, num_rows in product(widths, (4, 8, 16), rows):
        modes = square_modes(width)
        params = sum(int(np.prod(shape)) for shape in modes.core_shapes(modes.bonds(chi)))
        calls = make_calls(width, chi, num_rows, with_backward=True)
        peaks = [f"{peak_bytes(calls[plan]) / 1e6:.2f}" if plan in calls else "" for plan in ("rebuild", "right")]
        share = f"{params / width**2:.2%}"
        lines.append(f"| {width} | {chi} | {params:,} | {share} | {num_rows} | {' | '.join(peaks)} |")
    return "\n".join(lines)


def fit(cells: Sequence[Cell]) -> np.ndarray:
    """Non-negative constants of least squared relative error; cells where the plans are far apart count less."""
    rows, targets = [], []
    for cell in cells:
        modes = square_modes(cell.width)
        apart = np.log2(cell.seconds["rebuild"] / cell.seconds["right"])
        weight = 1 / (1 + apart**2)
        for plan, seconds in cell.seconds.items():
            work = plan_work(plan, modes, modes.bonds(cell.chi), cell.rows, with_backward=cell.with_backward)
            rows.append(weight * np.array(astuple(work), dtype=float) / seconds)
            targets.append(weight)
    matrix = np.array(rows)
    scale = matrix.max(0)
    return nnls(matrix / scale, np.array(targets))[0] / scale


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--load", type=Path, nargs="+", default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(render_memory(options.widths))
        return
    cells = [Cell(**cell) for file in options.load for cell in json.loads(file.read_text())]
    cells = cells or list(measure(options.widths))
    if options.save:
        options.save.write_text(json.dumps([asdict(cell) for cell in cells]))
    print(render_times(cells))
    if options.fit:
        for name, with_backward in (("FORWARD", False), ("TRAINING", True)):
            constants = fit([cell for cell in cells if cell.with_backward == with_backward])
            print(f"{name} = Costs({', '.join(f'{constant:.2g}' for constant in constants)})")


if __name__ == "__main__":
    main()
