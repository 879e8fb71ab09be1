"""What a network does on training tokens: second moments of the inputs of its linear maps.

Shape letters: N tokens, I in features of a linear map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Literal

import torch
from torch import Tensor, nn

from harness.data.batches import Batches
from harness.nn.layers import Linear
from harness.nn.network import Network

Passes = Literal["all", "first"]


def first_batches(batches: Batches, num_tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and targets (B, T) of the first `num_tokens` tokens of training, in whole micro-batches."""
    count = math.ceil(num_tokens / (batches.micro_batch_sequences * batches.context))
    for index in range(count):
        inputs_BT, targets_BT = batches.batch(*divmod(index, batches.num_micro))
        yield torch.from_numpy(inputs_BT), torch.from_numpy(targets_BT)


def calibration_batches(batches: Batches, num_tokens: int) -> Iterator[Tensor]:
    """Yield the inputs (B, T) of `first_batches`."""
    return (inputs_BT for inputs_BT, _ in first_batches(batches, num_tokens))


@torch.no_grad()
def input_moments(network: Network, batches: Iterable[Tensor], *, passes: Passes = "all") -> dict[str, Tensor]:
    """Return the sum of x x^T (I, I) over the calls of each linear map, mean over tokens, float64, by its name.

    For a map that a token passes once this is E[x x^T]. For one that runs at several depths an error of its weight
    counts at each of them, so errors of several maps add up on one scale.

    Args:
        network: on its device; its mode and weights are left as they are.
        batches: token ids of shape (B, T), at least one.
        passes: of a map that runs at several depths, "all" calls, or only its "first" in each forward pass, which is
            all that calibration without regard to loops sees.
    """
    maps = {name: module for name, module in network.named_modules() if isinstance(module, Linear)}
    sums: dict[str, Tensor] = {}
    num_tokens = 0
    called: set[str] = set()

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if passes == "first" and name in called:
                return
            called.add(name)
            x_NI = inputs[0].flatten(0, -2).float()
            # float32 within a batch, float64 over them: sums of many batches would lose digits.
            moment_II = (x_NI.T @ x_NI).double()
            sums[name] = sums[name] + moment_II if name in sums else moment_II

        return add

    with ExitStack() as hooks:
        for name, module in maps.items():
            hooks.callback(module.register_forward_pre_hook(watch(name)).remove)
        was_training = network.training
        hooks.callback(network.train, was_training)
        network.eval()
        for tokens_BT in batches:
            called.clear()
            num_tokens += tokens_BT.numel()
            network(tokens_BT.to(next(network.parameters()).device))
    return {name: moment_II / num_tokens for name, moment_II in sums.items()}
