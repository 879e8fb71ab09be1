"""Operations as torch counts them, with heads of keys and values that serve several heads of queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop, sdpa_flop

_KERNELS = ("efficient", "flash", "cudnn")


def count_operations() -> FlopCounterMode:
    """Return a context manager that counts the products of what runs in it: `get_total_flops()`.

    Some versions of torch (2.11) fail on attention kernels of a GPU where there are fewer key/value heads than query
    heads, which such a kernel multiplies as if each were there as often as it is used.
    """
    return FlopCounterMode(display=False, custom_mapping=_MAPPING)


def _as_many_heads(shape: Sequence[int], query_shape: Sequence[int]) -> list[int]:
    batch, _, length, width = shape
    return [batch, query_shape[1], length, width]


def _forward(
    query_shape: Sequence[int], key_shape: Sequence[int], value_shape: Sequence[int], *_: Any, **__: Any
) -> int:
    flops: int = sdpa_flop(
        query_shape, _as_many_heads(key_shape, query_shape), _as_many_heads(value_shape, query_shape)
    )
    return flops


def _backward(
    grad_shape: Sequence[int],
    query_shape: Sequence[int],
    key_shape: Sequence[int],
    value_shape: Sequence[int],
    *_: Any,
    **__: Any,
) -> int:
    flops: int = sdpa_backward_flop(
        grad_shape, query_shape, _as_many_heads(key_shape, query_shape), _as_many_heads(value_shape, query_shape)
    )
    return flops


def _mapping() -> dict[Any, Callable[..., int]]:
    found: dict[Any, Callable[..., int]] = {}
    for kernel in _KERNELS:
        name = f"_scaled_dot_product_{kernel}_attention"
        found[getattr(torch.ops.aten, name)] = _forward
        found[getattr(torch.ops.aten, f"{name}_backward")] = _backward
    return found


_MAPPING = _mapping()
