import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.nn import attend as module
from harness.nn.attend import attend


def random_heads(length: int, num_heads: int, num_groups: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(length)
    return tuple(
        torch.randn(2, length, heads, 8, dtype=torch.float64, requires_grad=True)
        for heads in (num_heads, num_groups, num_groups)
    )


def library_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    repeats = q.size(2) // k.size(2)
    k, v = (x.repeat_interleave(repeats, dim=2) for x in (k, v))
    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(*heads_first, is_causal=True).transpose(1, 2)


def test_by_hand() -> None:
    # One head of one feature. At the second position the scores are 1*0 and 1*ln 3: weights 1/4 and 3/4.
    q = torch.tensor([5.0, 1.0]).view(1, 2, 1, 1)
    k = torch.tensor([0.0, float(np.log(3))]).view(1, 2, 1, 1)
    v = torch.tensor([4.0, 8.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(attend(q, k, v).flatten(), torch.tensor([4.0, 7.0]))


@pytest.mark.parametrize("length", [1, 5, 8, 9, 21])
@pytest.mark.parametrize(("num_heads", "num_groups"), [(4, 2), (3, 3), (4, 1)])
def test_outputs_and_gradients_are_those_of_the_library(
    monkeypatch: pytest.MonkeyPatch, length: int, num_heads: int, num_groups: int
) -> None:
    monkeypatch.setattr(module, "BLOCK", 8)
    heads = random_heads(length, num_heads, num_groups)
    ours, expected = attend(*heads), library_attention(*heads)
    torch.testing.assert_close(ours, expected)
    upstream = torch.randn_like(expected)
    gradients = torch.autograd.grad(ours, heads, upstream)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, heads, upstream), strict=True):
        torch.testing.assert_close(gradient, wanted)


def test_other_devices_use_the_library_kernel() -> None:
    q, k = torch.empty(2, 6, 4, 8, device="meta"), torch.empty(2, 6, 2, 8, device="meta")
    assert attend(q, k, k).shape == (2, 6, 4, 8)
