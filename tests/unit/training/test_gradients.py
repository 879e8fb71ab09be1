from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from harness.errors import UsageError
from harness.training.gradients import TreeSum, micro_batches_of_rank, sum_over_ranks


def gradients_of(micro: int) -> list[Tensor]:
    """Numbers of unlike size, so that each order of summation rounds differently."""
    generator = torch.Generator().manual_seed(micro)
    return [
        torch.randn(7, 5, generator=generator) * 10.0 ** (micro % 5),
        torch.randn((), generator=generator),
        torch.randn(1001, generator=generator, dtype=torch.float64),
    ]


def tree_sum(micros: range) -> list[Tensor]:
    tree = TreeSum()
    for micro in micros:
        tree.add(gradients_of(micro))
    return tree.total()


def recursive_sum(low: int, high: int, index: int) -> Tensor:
    """The balanced tree written down: the left part is the largest power of two below the whole."""
    if high - low == 1:
        return gradients_of(low)[index]
    half = 1 << (high - low - 1).bit_length() - 1
    return recursive_sum(low, low + half, index) + recursive_sum(low + half, high, index)


@pytest.mark.parametrize("num_micro", [1, 2, 3, 4, 5, 6, 7, 8, 13, 16])
def test_the_order_is_that_of_a_balanced_tree(num_micro: int) -> None:
    for index, total in enumerate(tree_sum(range(num_micro))):
        assert torch.equal(total, recursive_sum(0, num_micro, index))


def test_the_order_matters_for_these_numbers() -> None:
    one_by_one = sum(gradients_of(micro)[0] for micro in range(16))
    assert not torch.equal(one_by_one, tree_sum(range(16))[0])


def test_at_most_log2_lists_are_held() -> None:
    tree = TreeSum()
    for micro in range(64):
        tree.add([torch.ones(2)])
        held = sum(level is not None for level in tree._levels)
        assert held <= (micro + 1).bit_length()
    assert torch.equal(tree.total()[0], torch.full((2,), 64.0))


def test_what_is_added_is_never_written_to() -> None:
    parts = [[torch.full((3,), float(i))] for i in range(5)]
    tree = TreeSum()
    for part in parts:
        tree.add(part)
    assert tree.total()[0].tolist() == [10.0] * 3
    assert [part[0].tolist() for part in parts] == [[float(i)] * 3 for i in range(5)]


def test_one_gradient_given_to_two_leaves_is_not_shared() -> None:
    a, b = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    tree = TreeSum()
    tree.add(torch.autograd.grad((a + b).sum(), [a, b]))
    first, second = tree.total()
    first.mul_(5)
    assert first.tolist() == [5.0] * 3
    assert second.tolist() == [1.0] * 3


def test_one_rank_sends_nothing() -> None:
    tensors = gradients_of(0)
    assert all(a is b for a, b in zip(sum_over_ranks(tensors, 1), tensors, strict=True))


@given(st.integers(1, 64), st.integers(1, 64))
def test_ranks_get_all_micro_batches_once_or_one_clear_error(num_micro: int, num_ranks: int) -> None:
    try:
        parts = [micro_batches_of_rank(num_micro, rank, num_ranks) for rank in range(num_ranks)]
    except UsageError as error:
        share = num_micro / num_ranks
        assert num_ranks > 1 and share not in (1, 2, 4, 8, 16, 32)
        assert f"{num_micro} micro-batches a step do not divide over {num_ranks} ranks" in str(error)
        return
    assert [micro for part in parts for micro in part] == list(range(num_micro))
    tree = TreeSum()
    for part in parts:  # what the ranks do, in one process
        tree.add(tree_sum(part))
    assert all(torch.equal(a, b) for a, b in zip(tree.total(), tree_sum(range(num_micro)), strict=True))


def test_the_error_names_the_ranks_that_work() -> None:
    with pytest.raises(UsageError, match="Use 1, 3, 6, 12 ranks"):
        micro_batches_of_rank(12, 0, 8)


RANK_PROGRAM = """
import sys
import torch, torch.distributed as dist
from harness.training import gradients
from test_gradients import tree_sum
rank, num_ranks, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
gradients._CHUNK_NUMEL = 300  # several chunks for a thousand numbers
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=num_ranks)
own = tree_sum(gradients.micro_batches_of_rank(8, rank, num_ranks))
torch.save(gradients.sum_over_ranks(own, num_ranks), f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_ranks_give_the_bits_of_one_rank(num_ranks: int, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANK_PROGRAM, str(rank), str(num_ranks), str(tmp_path)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    expected = tree_sum(range(8))
    for rank in range(num_ranks):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert [tensor.shape for tensor in got] == [tensor.shape for tensor in expected]
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
