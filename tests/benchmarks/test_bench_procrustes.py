"""An iteration of alternating projections against a plain transcription of the published algorithm.

`python -m pytest tests/benchmarks/test_bench_procrustes.py --benchmark-enable`, or a table of both side by side:
`python tests/benchmarks/test_bench_procrustes.py`. Both do the same: a projection of every weight by singular value
decomposition, a Procrustes step, the error after each. They alternate in one process, on one thread, and the least of
several times counts. The published code as shipped also collects garbage and inspects the stack; that is not here.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from methods.procrustes.classes import Exact, Kronecker, Monarch, StructuredClass
from methods.procrustes.member import Member
from methods.procrustes.solver import SolverOptions, solve_rotation

ITERATIONS = 3
OPTIONS = SolverOptions(start="identity", exact_pulls=True, max_iterations=ITERATIONS, tolerance=0)
CLASSES: dict[str, Callable[[int, int], StructuredClass]] = {
    "one-sided Kronecker 3/4": lambda d, n: Kronecker(d, n, terms=3, left_rows=4, left_columns=1),
    "square Kronecker": lambda d, n: Kronecker(d, n, terms=8, left_rows=8, left_columns=8),
    "Monarch 4 x 4": lambda d, n: Monarch(d, n, 4, 4, d // 4),
}


def make_group(width: int, name: str) -> list[Member]:
    """Return the attention group of a block: down, query, key, and value, which is exact."""
    generator = torch.Generator().manual_seed(0)
    sizes = (4 * width, width, width)
    members = [
        Member(weight=torch.randn(width, size, generator=generator), structure=CLASSES[name](width, size))
        for size in sizes
    ]
    return [*members, Member(weight=torch.randn(width, width, generator=generator), structure=Exact(width, width))]


def transcribed(members: list[Member]) -> list[float]:
    """Run the published algorithm as written: full decompositions, every error from its definition."""
    stacked = torch.cat([member.weight for member in members], dim=1)
    sizes = [member.weight.size(1) for member in members]
    rotation, errors = torch.eye(len(stacked)), []
    for _ in range(ITERATIONS):
        parts = (rotation @ stacked).split(sizes, dim=1)
        nearest = torch.cat([project(m.structure, part) for m, part in zip(members, parts, strict=True)], dim=1)
        errors.append((torch.norm(rotation @ stacked - nearest) / torch.norm(stacked)).item())
        left, _, right = torch.linalg.svd(nearest @ stacked.T)
        rotation = left @ right
        errors.append((torch.norm(rotation @ stacked - nearest) / torch.norm(stacked)).item())
    return errors


def project(structure: StructuredClass, weight: Tensor) -> Tensor:
    if isinstance(structure, Kronecker):
        a, c = structure.left_rows, structure.left_columns
        split = weight.reshape(a, weight.size(0) // a, c, weight.size(1) // c)
        left, values, right = torch.linalg.svd(split.transpose(1, 2).reshape(a * c, -1), full_matrices=False)
        kept = structure.terms
        rebuilt = (left[:, :kept] * values[:kept]) @ right[:kept]
        return rebuilt.view(a, c, split.size(1), split.size(3)).transpose(1, 2).reshape(weight.shape)
    if isinstance(structure, Monarch):
        rank = structure.left_width // structure.right_blocks
        return torch.cat([torch.cat([truncate(block, rank) for block in row.chunk(structure.right_blocks, 1)], 1)
                          for row in weight.chunk(structure.left_blocks, 0)], 0)  # fmt: skip
    return weight


def truncate(block: Tensor, rank: int) -> Tensor:
    left, values, right = torch.linalg.svd(block, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def least_seconds(members: list[Member], repeats: int) -> tuple[float, float]:
    """Return seconds an iteration of ours and of the transcription, alternating."""
    ours, theirs = [], []
    for _ in range(repeats):
        for call, seconds in ((lambda: solve_rotation(members, OPTIONS), ours), (lambda: transcribed(members), theirs)):
            start = time.perf_counter()
            call()
            seconds.append((time.perf_counter() - start) / ITERATIONS)
    return min(ours), min(theirs)


@pytest.fixture(autouse=True)
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CLASSES)
def test_both_record_the_same_errors(name: str) -> None:
    members = make_group(64, name)
    assert solve_rotation(members, OPTIONS).errors == pytest.approx(transcribed(members), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("width", [128, 256])
def test_an_iteration_takes_no_longer(width: int, name: str) -> None:
    ours, theirs = least_seconds(make_group(width, name), repeats=7)
    assert ours <= theirs


def main() -> None:
    torch.set_num_threads(1)
    print("| width | class | transcription, ms | ours, ms | ratio |\n| ---: | --- | ---: | ---: | ---: |")
    for width in (64, 128, 256, 512):
        for name in CLASSES:
            ours, theirs = least_seconds(make_group(width, name), repeats=5 if width > 256 else 11)
            print(f"| {width} | {name} | {1e3 * theirs:.2f} | {1e3 * ours:.2f} | {ours / theirs:.2f} |", flush=True)


if __name__ == "__main__":
    main()
