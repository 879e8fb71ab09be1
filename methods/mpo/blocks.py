"""Contracting a chain over blocks of rows, so that what flows between the sites stays in the cache.

Shape letters as in `harness.nn.factorise`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from harness.nn.factorise import Modes, contract

# Numbers of the widest flow of a block: 1 MB in float32. On matrices of 512 to 4,096 and bonds of 4 and 8 a whole
# batch at once takes 2 to 3 times as long forward; 128 KB and 8 MB are slower too.
BLOCK_NUMBERS = 1 << 18


def flow_width(modes: Modes, bonds: Sequence[int], *, from_left: bool) -> int:
    """Return the most numbers that one row takes between two sites."""
    done, to_come = (modes.outs, modes.ins) if from_left else (modes.ins, modes.outs)
    cuts = range(1, modes.num_sites)
    return max(bonds[cut] * math.prod(done[:cut]) * math.prod(to_come[cut:]) for cut in cuts)


def rows_of_block(modes: Modes, bonds: Sequence[int], *, from_left: bool) -> int:
    """Return how many rows are contracted at a time."""
    return max(1, BLOCK_NUMBERS // flow_width(modes, bonds, from_left=from_left))


def contract_in_blocks(cores: Sequence[Tensor], x_NI: Tensor, block: int, *, from_left: bool) -> Tensor:
    """Map x (N, I) to x W^T (N, O) as `contract` does, at most `block` rows at a time.

    With more than one block, nothing but the input is kept for the backward pass, which contracts once more.
    """
    if len(x_NI) <= block:
        return contract(cores, x_NI, from_left=from_left)
    return cast(Tensor, _BlockedChain.apply(x_NI, block, from_left, *cores))  # type: ignore[no-untyped-call]


class _BlockedChain(torch.autograd.Function):
    """Rows are independent: dx of a block is its own, the gradients of the cores are sums over the blocks."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, block: int, from_left: bool, *cores: Tensor) -> Tensor:
        ctx.save_for_backward(x_NI, *cores)
        ctx.block, ctx.from_left = block, from_left
        y_NO: Tensor | None = None
        for start in range(0, len(x_NI), block):
            part = slice(start, start + block)
            y_BO = contract(cores, x_NI[part], from_left=from_left)
            # Made here, since under autocast its dtype is not the input's.
            y_NO = y_BO.new_empty(len(x_NI), y_BO.size(1)) if y_NO is None else y_NO
            y_NO[part] = y_BO
        return cast(Tensor, y_NO)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_NO: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, *cores = ctx.saved_tensors
        leaves = [core.detach().requires_grad_() for core in cores]
        dx_NI, sums = torch.empty_like(x_NI), [torch.zeros_like(core) for core in cores]
        for start in range(0, len(x_NI), ctx.block):
            part = slice(start, start + ctx.block)
            x_BI = x_NI[part].detach().requires_grad_()
            with torch.enable_grad():
                y_BO = contract(leaves, x_BI, from_left=ctx.from_left)
            dx_NI[part], *gradients = torch.autograd.grad(y_BO, [x_BI, *leaves], dy_NO[part].to(y_BO.dtype))
            torch._foreach_add_(sums, gradients)
        return dx_NI, None, None, *sums
