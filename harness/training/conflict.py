"""How the depths that share numbers pull at them: the gradient of each depth's use, and cosines between these.

Shape letters: S uses of shared numbers in one forward pass (depths or passes), O and I out and in features.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.nn.generated import WeightGenerator
from harness.nn.layers import Linear
from harness.nn.network import Network

Pulls = Mapping[str, list[Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Conflict:
    """How the uses of one shared matrix agree.

    Attributes:
        name: of the matrix.
        num_uses: S.
        mean_cosine: between the gradients of two uses, mean over pairs; nan where all are zero.
        least_cosine: the smallest.
        opposed_share: share of pairs with a cosine below zero.
    """

    name: str
    num_uses: int
    mean_cosine: float
    least_cosine: float
    opposed_share: float


def measure_pulls(network: Network, batches: Iterable[tuple[Tensor, Tensor]]) -> Pulls:
    """Return the gradient of the loss by each use of each shared matrix, summed over batches; they add up to its own.

    A linear map that runs at several depths has one use a pass, in their order. A matrix that weights are generated
    from has one a generated weight (`WeightGenerator.pulls`). What is used once is left out.

    Args:
        network: on its device, in the mode that the gradients are wanted for; `.grad` of its parameters is cleared.
        batches: inputs and targets (B, T).
    """
    sums: dict[str, list[Tensor]] = {}
    for tokens_BT, targets_BT in batches:
        uses: dict[str, dict[int, Tensor]] = defaultdict(dict)
        with ExitStack() as hooks:
            for name, module in network.named_modules():
                if isinstance(module, Linear):
                    hooks.callback(module.register_forward_hook(_watch(uses[f"{name}.weight"])).remove)
            leaves = network.begin_step()
            gradients = torch.autograd.grad(network.loss(tokens_BT, targets_BT), leaves, materialize_grads=True)
            network.finish_step(gradients)
        found = {name: [of_calls[call] for call in sorted(of_calls)] for name, of_calls in uses.items()}
        start = 0
        for name, module in network.named_modules():
            if isinstance(module, WeightGenerator):
                mine = gradients[start : start + module.num_weights]
                found |= {f"{name}.{part}": list(pulls) for part, pulls in module.pulls(mine).items()}
                start += module.num_weights
        for name, pulls in found.items():
            sums[name] = [a + b for a, b in zip(sums[name], pulls, strict=True)] if name in sums else pulls
        network.zero_grad(set_to_none=True)
    return {name: pulls for name, pulls in sums.items() if len(pulls) > 1}


def _watch(gradients: dict[int, Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    """Return a hook that notes the gradient (O, I) of each call of a linear map, by the number of the call."""
    num_calls = 0

    def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal num_calls
        call, x_NI = num_calls, inputs[0].detach().flatten(0, -2)
        num_calls += 1

        def add(gradient: Tensor) -> None:
            gradients[call] = gradient.flatten(0, -2).float().T @ x_NI.float()

        if output.requires_grad:
            output.register_hook(add)  # type: ignore[no-untyped-call]

    return note


def conflicts(pulls: Pulls) -> list[Conflict]:
    """Return how the uses of each matrix agree, in the order of the network."""
    return [_conflict(name, gradients) for name, gradients in pulls.items()]


def _conflict(name: str, gradients: Sequence[Tensor]) -> Conflict:
    rows = torch.stack([gradient.flatten().double() for gradient in gradients])
    rows = rows[rows.norm(dim=1) > 0]
    if len(rows) < 2:
        nan = float("nan")
        return Conflict(name=name, num_uses=len(gradients), mean_cosine=nan, least_cosine=nan, opposed_share=nan)
    rows = rows / rows.norm(dim=1, keepdim=True)
    pairs = torch.triu_indices(len(rows), len(rows), offset=1)
    cosines = (rows @ rows.T)[pairs[0], pairs[1]]
    return Conflict(
        name=name,
        num_uses=len(gradients),
        mean_cosine=float(cosines.mean()),
        least_cosine=float(cosines.min()),
        opposed_share=float((cosines < 0).double().mean()),
    )
