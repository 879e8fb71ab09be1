"""The loss by chunks against autograd through the whole, bit by bit."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.nn import cross_entropy
from harness.nn.cross_entropy import capped_cross_entropy, capped_logits

# The last two are cut into chunks of 256 and of 64 rows, the last chunk shorter.
SHAPES = [(1, 1), (5, 3), (1_100, 509), (130, 2_049)]


def derive(loss: Tensor, z_NV: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.autograd.grad(loss * scale, z_NV)[0]


def make_case(shape: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return (3 * torch.randn(shape)).to(dtype).requires_grad_(), torch.randint(shape[1], shape[:1])


def test_by_hand() -> None:
    # logits log 1, log 3: the first has probability 1/4
    z_NV = torch.tensor([[0.0, math.log(3)]])
    assert float(capped_cross_entropy(z_NV, torch.tensor([0]), 0.0)) == pytest.approx(math.log(4))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cap", [0.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_loss_and_derivative_are_the_bits_of_autograd(shape: tuple[int, int], cap: float, dtype: torch.dtype) -> None:
    z_NV, targets_N = make_case(shape, dtype)
    for scale in (1.0, 0.25):
        ours = derive(capped_cross_entropy(z_NV, targets_N, cap), z_NV, scale)
        usual = derive(F.cross_entropy(capped_logits(z_NV, cap), targets_N), z_NV, scale)
        assert all(map(torch.equal, ours, usual))


def test_the_size_of_a_chunk_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    z_NV, targets_N = make_case((200, 7), torch.bfloat16)
    whole = derive(capped_cross_entropy(z_NV, targets_N, 30.0), z_NV)
    monkeypatch.setattr(cross_entropy, "_CHUNK_NUMEL", 1)
    assert all(map(torch.equal, whole, derive(capped_cross_entropy(z_NV, targets_N, 30.0), z_NV)))


def test_another_scale_than_a_power_of_two_rounds_once_more() -> None:
    z_NV, targets_N = make_case((50, 7), torch.float32)
    ours = derive(capped_cross_entropy(z_NV, targets_N, 30.0), z_NV, 1 / 3)[1]
    usual = derive(F.cross_entropy(capped_logits(z_NV, 30.0), targets_N), z_NV, 1 / 3)[1]
    torch.testing.assert_close(ours, usual)


def test_without_a_graph_it_is_the_same_loss() -> None:
    z_NV, targets_N = make_case((50, 7), torch.float32)
    with torch.no_grad():
        assert torch.equal(
            capped_cross_entropy(z_NV, targets_N, 30.0), F.cross_entropy(capped_logits(z_NV, 30.0), targets_N)
        )


def test_autograd_keeps_the_derivative_alone() -> None:
    kept: list[Tensor] = []
    z_NV, targets_N = make_case((50, 7), torch.bfloat16)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        capped_cross_entropy(z_NV, targets_N, 30.0)
    assert [(tensor.shape, tensor.dtype) for tensor in kept] == [(z_NV.shape, z_NV.dtype)]
