"""Rebuilding the matrix against contracting the chain; run with --benchmark-enable, both side by side.

The whole range as Markdown tables, with memory beside parameters: `python tests/benchmarks/mpo_table.py`.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch
from mpo_table import least_seconds, make_calls, peak_bytes, square_modes
from pytest_benchmark.fixture import BenchmarkFixture

from methods.mpo.costs import choose_plan

CELLS = [(128, 8, 2048), (128, 8, 1), (512, 8, 64), (1024, 8, 2048), (4096, 8, 64)]


@pytest.fixture(autouse=True)
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("plan", ["rebuild", "right"])
@pytest.mark.parametrize("with_backward", [False, True])
@pytest.mark.parametrize(("width", "chi", "rows"), CELLS)
def test_plans(benchmark: BenchmarkFixture, width: int, chi: int, rows: int, with_backward: bool, plan: str) -> None:
    modes = square_modes(width)
    benchmark.group = f"{width} wide, chi {chi}, {rows} rows, {'training' if with_backward else 'forward'}"
    benchmark.extra_info["chosen"] = choose_plan(modes, modes.bonds(chi), rows, with_backward)
    benchmark(make_calls(width, chi, rows, with_backward)[plan])


@pytest.mark.parametrize(("chi", "with_backward"), [*product((4, 8), (False, True))])
def test_64_rows_of_width_4096_take_a_third_of_the_time_of_rebuilding(chi: int, with_backward: bool) -> None:
    modes = square_modes(4096)
    assert choose_plan(modes, modes.bonds(chi), 64, with_backward) == "right"
    seconds = least_seconds(make_calls(4096, chi, 64, with_backward), total_seconds=0)
    assert seconds["rebuild"] > 3 * seconds["right"]


def test_peak_memory_of_the_chain_is_far_below_the_matrix() -> None:
    calls = make_calls(4096, 8, 64, with_backward=True)
    assert peak_bytes(calls["rebuild"]) > 2 * 4 * 4096**2
    assert peak_bytes(calls["right"]) < 4 * 4096**2 / 4
