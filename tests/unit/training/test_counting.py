"""Counted operations of the attention kernels of a GPU, which this machine need not have."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.training.counting import _MAPPING, count_operations

QUERIES, KEYS = (2, 4, 16, 8), (2, 2, 16, 8)  # batch, heads, positions, features
SCORES = 2 * 2 * 4 * 16 * 16 * 8  # a multiply-add is two


@pytest.mark.parametrize("kernel", ["efficient", "flash", "cudnn"])
def test_keys_that_serve_two_queries_are_multiplied_twice(kernel: str) -> None:
    name = f"_scaled_dot_product_{kernel}_attention"
    forward, backward = (_MAPPING[getattr(torch.ops.aten, each)] for each in (name, f"{name}_backward"))
    assert forward(QUERIES, KEYS, KEYS, 0.0, True, out_shape=QUERIES) == 2 * SCORES
    assert backward(QUERIES, QUERIES, KEYS, KEYS, out_shape=QUERIES) == 5 * SCORES


def test_it_counts_what_the_plain_formula_does() -> None:
    q_BHTE, k_BGTE = torch.randn(QUERIES), torch.randn(KEYS)
    repeated_BHTE = k_BGTE.repeat_interleave(2, 1)
    with count_operations() as plain:
        _attend(q_BHTE, repeated_BHTE)
    assert plain.get_total_flops() == 2 * SCORES
    with count_operations() as counter:
        F.linear(q_BHTE, torch.randn(8, 8))
    assert counter.get_total_flops() == 2 * q_BHTE.numel() * 8


def _attend(q_BHTE: Tensor, k_BHTE: Tensor) -> Tensor:
    return (q_BHTE @ k_BHTE.mT).softmax(-1) @ k_BHTE
