"""Muon: momentum, then orthogonalisation of the update of each matrix by Newton-Schulz iterations.

Shape letters: K leading index (orders of a coefficient bank), M matrices of one call, O rows, I columns.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

# Quintic Newton-Schulz coefficients of the published Muon (modded-nanogpt).
_NS_A, _NS_B, _NS_C = 3.4445, -4.7750, 2.0315
NS_STEPS = 5
_NS_EPS = 1e-7

# Batched against one by one on one CPU core, bfloat16, milliseconds: 32 of 64 x 64 1.4 / 8.7, 6 of 256 x 256
# 8.0 / 9.5, 6 of 256 x 512 12.9 / 14.3, 6 of 512 x 512 67 / 59. The results are the same bits.
_BATCHED_NUMEL = 256 * 512


def orthogonalise(update_MOI: Tensor, dtype: torch.dtype) -> Tensor:
    """Bring the singular values of each matrix near 1 by five Newton-Schulz iterations.

    Args:
        update_MOI: matrices in the last two dimensions, any number of leading ones.
        dtype: number format of the iteration, bfloat16 or float32.

    Returns:
        Matrices of the same shape, in `dtype`.

    Source: Muon as published in modded-nanogpt.
    """
    X: Tensor = update_MOI.to(dtype)
    X = X / (torch.linalg.matrix_norm(X, keepdim=True) + _NS_EPS)
    is_tall = X.shape[-2] > X.shape[-1]
    if is_tall:
        X = X.mT
    for _ in range(NS_STEPS):
        A = X @ X.mT
        B = (_NS_C * A @ A).add_(A.mul_(_NS_B))
        X = (B @ X).add_(X.mul_(_NS_A))
    return X.transpose(-2, -1) if is_tall else X


def orthogonalise_all(updates: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Orthogonalise many updates, the matrices of one shape in one batched call where that is faster.

    Args:
        updates: matrices in the last two dimensions, any number of leading ones.
        dtype: number format of the iteration.
    """
    by_shape: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for index, update in enumerate(updates):
        by_shape[update.shape[-2], update.shape[-1]].append(index)
    results = list(updates)
    for (rows, columns), indices in by_shape.items():
        matrices_MOI = torch.cat([updates[index].reshape(-1, rows, columns) for index in indices])
        if matrices_MOI.is_cuda or rows * columns <= _BATCHED_NUMEL:
            matrices_MOI = orthogonalise(matrices_MOI, dtype)
        else:
            matrices_MOI = torch.stack([orthogonalise(matrix_OI, dtype) for matrix_OI in matrices_MOI])
        counts = [updates[index].numel() // (rows * columns) for index in indices]
        for index, part in zip(indices, torch.split_with_sizes(matrices_MOI, counts), strict=True):
            results[index] = part.reshape(updates[index].shape)
    return results


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; a parameter's last two dimensions are a matrix, the others count matrices.

    buf <- momentum * buf + g;  u = g + momentum * buf (nesterov) or buf;
    W <- W * (1 - lr * weight_decay) - lr * sqrt(max(1, rows / columns)) * orthogonalise(u)

    Every setting may change between steps, the momentum included. A group may have `lr_factors`: one factor
    of its rate for each leading index of its parameters.

    Source: Muon as published in modded-nanogpt; parity with its numbers is tested.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        dtype: Literal["bfloat16", "float32"] = "bfloat16",
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "dtype": dtype,
            "lr_factors": None,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step with the gradients in `.grad`; parameters without one stay."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                updates = self._accelerate(group, parameters)
                directions = orthogonalise_all(updates, getattr(torch, group["dtype"]))
                for parameter, direction in zip(parameters, directions, strict=True):
                    _apply(parameter, direction, group)

    def _accelerate(self, group: dict[str, Any], parameters: list[Tensor]) -> list[Tensor]:
        """Update the momentum buffers; returns what is to be orthogonalised."""
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, gradients)
        if not group["nesterov"]:
            return buffers
        return list(torch._foreach_add(gradients, buffers, alpha=group["momentum"]))


def _apply(parameter: Tensor, direction: Tensor, group: dict[str, Any]) -> None:
    rate, decay = group["lr"], group["weight_decay"]
    scale = math.sqrt(max(1.0, parameter.shape[-2] / parameter.shape[-1]))
    if group["lr_factors"] is None:
        if decay:
            parameter.mul_(1 - rate * decay)
        parameter.add_(direction, alpha=-rate * scale)
    else:
        rates = rate * leading_factors(parameter, group["lr_factors"])
        if decay:
            parameter.mul_(1 - rates * decay)
        parameter.sub_(direction * (rates * scale))


def leading_factors(parameter: Tensor, factors: Sequence[float]) -> Tensor:
    """Return the factors with the shape (K, 1, ..., 1), to multiply a parameter with."""
    factors_K = torch.tensor(factors, dtype=parameter.dtype, device=parameter.device)
    return factors_K.reshape(-1, *[1] * (parameter.ndim - 1))
