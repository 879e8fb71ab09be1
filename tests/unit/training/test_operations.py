"""Counted operations of the attention kernels of a GPU, which this machine need not have."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from harness.training.operations import _MAPPING, count_operations

QUERIES, KEYS = (2, 4, 16, 8), (2, 2, 16, 8)  # batch, heads, positions, features
SCORES = 2 * 2 * 4 * 16 * 16 * 8  # a multiply-add is two


@pytest.mark.parametrize(
    "kernel", ["efficient_attention", "flash_attention", "cudnn_attention", "flash_attention_for_cpu"]
)
def test_keys_that_serve_two_queries_are_multiplied_twice(kernel: str) -> None:
    name = f"_scaled_dot_product_{kernel}"
    forward, backward = (_MAPPING[getattr(torch.ops.aten, each)] for each in (name, f"{name}_backward"))
    assert forward(QUERIES, KEYS, KEYS, 0.0, True, out_shape=QUERIES) == 2 * SCORES
    assert backward(QUERIES, QUERIES, KEYS, KEYS, out_shape=QUERIES) == 4 * SCORES


def test_a_kernel_counts_as_the_plain_formula_does() -> None:
    q_BHTE = torch.empty(QUERIES, device="meta", dtype=torch.bfloat16, requires_grad=True)
    k_BHTE = torch.empty(KEYS, device="meta", dtype=torch.bfloat16).repeat_interleave(2, 1).requires_grad_()
    with count_operations() as plain:
        ((q_BHTE @ k_BHTE.mT).softmax(-1) @ k_BHTE).sum().backward()
    with count_operations() as counter:
        torch.ops.aten._scaled_dot_product_flash_attention(q_BHTE, k_BHTE, k_BHTE, 0.0, True)[0].sum().backward()
    assert counter.get_total_flops() == plain.get_total_flops() == 6 * SCORES


def test_fused_attention_on_a_processor_counts_too() -> None:
    q_BHTE = torch.randn(QUERIES, requires_grad=True)
    k_BHTE = torch.randn(QUERIES)
    with count_operations() as counter:
        F.scaled_dot_product_attention(q_BHTE, k_BHTE, k_BHTE, is_causal=True).sum().backward()
    assert counter.get_total_flops() == 6 * SCORES
