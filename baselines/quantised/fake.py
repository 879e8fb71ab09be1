"""Weights as the file will hold them, made anew in every step: fake quantisation with straight-through gradients.

Shape letters: O and I out and in features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.artifact.quantize import dequantise, quantise
from harness.nn.generated import WeightGenerator
from harness.nn.inits import Init


def fake_quantise(weight_OI: Tensor, scheme: str) -> Tensor:
    """Return the weight that a file under `scheme` gives back.

    It calls the quantiser of the artifact itself, on the processor, so that no second formula can differ from it.
    """
    stored = dequantise(quantise(weight_OI.detach().float().cpu().numpy(), scheme))
    return torch.from_numpy(stored).to(weight_OI)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latent_OI: Tensor, scheme: str) -> Tensor:
        return fake_quantise(latent_OI, scheme)

    @staticmethod
    def backward(ctx: Any, gradient_OI: Tensor) -> tuple[Tensor, None]:
        return gradient_OI, None


class QuantisedWeight(WeightGenerator):
    """One weight, kept in full precision while it is trained and seen quantised where `is_on`.

    The gradient of the quantised weight is taken as that of the one kept (Bengio et al. 2013, arXiv:1308.3432).
    """

    def __init__(self, in_features: int, out_features: int, init: Init, scheme: str) -> None:
        super().__init__(1)
        self.scheme = scheme
        self.is_on = False
        self.latent = nn.Parameter(torch.empty(out_features, in_features))
        init(self.latent)

    def generate(self, index: int) -> Tensor:
        """Return the weight (O, I) that acts, differentiable."""
        if not self.is_on:
            return self.latent
        return cast(Tensor, _StraightThrough.apply(self.latent, self.scheme))  # type: ignore[no-untyped-call]

    def generate_all(self) -> Sequence[Tensor]:
        """Return the weight without a graph."""
        return [fake_quantise(self.latent, self.scheme) if self.is_on else self.latent]

    def pull_back(self, gradients: Sequence[Tensor]) -> None:
        """Give the gradient of the weight that acted to the one kept."""
        self.latent.grad = gradients[0]


class QuantisedLinear(nn.Module):
    """A linear map over a `QuantisedWeight`."""

    def __init__(self, in_features: int, out_features: int, init: Init, scheme: str, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = QuantisedWeight(in_features, out_features, init, scheme)
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        return F.linear(x, self.weight.weight(0), self.bias)
