"""Operations as torch counts them, with heads of keys and values that serve several heads of queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

_KERNELS = ("efficient_attention", "flash_attention", "cudnn_attention", "flash_attention_for_cpu")


def count_operations() -> FlopCounterMode:
    """Return a context manager that counts the products of what runs in it: `get_total_flops()`.

    Attention is counted as its formula has it, whatever kernel computes it: two products forward, four
    backward (torch counts the scores that such a kernel makes a second time as a fifth), and key/value heads as
    often as they are used (where some versions of torch, such as 2.11, fail).
    """
    return FlopCounterMode(display=False, custom_mapping=_MAPPING)


def _forward(
    query_shape: Sequence[int], key_shape: Sequence[int], value_shape: Sequence[int], *_: Any, **__: Any
) -> int:
    batch, heads, length, width = query_shape
    return 2 * batch * heads * length * key_shape[2] * (width + value_shape[3])


def _backward(grad_shape: Sequence[int], *shapes: Any, **__: Any) -> int:
    return 2 * _forward(*shapes)


def _mapping() -> dict[Any, Callable[..., int]]:
    found: dict[Any, Callable[..., int]] = {}
    for kernel in _KERNELS:
        name = f"_scaled_dot_product_{kernel}"
        found[getattr(torch.ops.aten, name)] = _forward
        found[getattr(torch.ops.aten, f"{name}_backward")] = _backward
    return found


_MAPPING = _mapping()
