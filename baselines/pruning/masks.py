"""Which weights are pruned: masks by magnitude, and how many when.

Shape letters: O and I out and in features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.nn.inits import Init
from harness.nn.layers import Linear

Scope = Literal["tensor", "global"]


class MaskedLinear(Linear):
    """A dense linear map of which only the weights under the mask act, and only they get a gradient.

    The mask is a buffer: a checkpoint holds it, and it is put back after warm-up steps.
    """

    mask: Tensor

    def __init__(self, in_features: int, out_features: int, init: Init, *, bias: bool = False) -> None:
        super().__init__(in_features, out_features, init, bias=bias)
        self.register_buffer("mask", torch.ones(out_features, in_features, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        return F.linear(x, self.weight * self.mask, self.bias)


def sparsity_at(progress: float, *, final: float, begin: float, end: float, updates: int) -> float:
    """Return the part of the weights that is pruned at `progress` through the training.

    final (1 - (1 - t)^3) with t from 0 at `begin` to 1 at `end`, in `updates` jumps; one jump if they are equal.

    Source: Zhu and Gupta 2017, "To prune, or not to prune", arXiv:1710.01878, eq. (1) with s_i = 0.
    """
    if progress < begin:
        return 0.0
    passed = min((progress - begin) / (end - begin), 1.0) if end > begin else 1.0
    left = 1 - int(passed * updates + 1e-9) / updates  # 1e-9: 0.3 / 0.6 * 10 must not be the fourth jump
    return final * (1 - left**3)


@torch.no_grad()
def prune(maps: Sequence[MaskedLinear], sparsity: float, scope: Scope) -> None:
    """Mask the weights of least magnitude, exactly round(sparsity * number) of them, and set them to zero.

    What is masked stays masked. Between equal magnitudes the first is pruned, so that the result is reproducible.

    Args:
        maps: whose weights are pruned.
        sparsity: part of the weights to be masked, in [0, 1].
        scope: "tensor" for this part of each weight, "global" for this part of all of them together.
    """
    for group in [maps] if scope == "global" else [[one] for one in maps]:
        magnitude = torch.cat([torch.where(one.mask, one.weight.abs(), -1.0).flatten() for one in group])
        num_masked = max(num_to_prune(magnitude.numel(), sparsity), int((magnitude < 0).sum()))
        kept = torch.ones_like(magnitude, dtype=torch.bool)
        kept[torch.sort(magnitude, stable=True).indices[:num_masked]] = False
        for one, part in zip(group, torch.split_with_sizes(kept, [one.mask.numel() for one in group]), strict=True):
            one.mask.copy_(part.view_as(one.mask))
    zero_masked(maps)


@torch.no_grad()
def zero_masked(maps: Sequence[MaskedLinear]) -> None:
    """Set masked weights to zero: optimisers move them, by momentum or since Muon's step mixes all entries."""
    for one in maps:
        one.weight.mul_(one.mask)


def num_to_prune(number: int, sparsity: float) -> int:
    """Return how many of `number` weights a sparsity prunes."""
    return round(number * sparsity)
