"""Weights that are generated from fewer numbers, made once per optimiser step.

Shape letters: O and I out and in features of a linear map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WeightGenerator(nn.Module):
    """Generates `num_weights` weights (O, I). Subclasses say how: `generate`, `generate_all` and `pull_back`.

    Between `begin_step` and `finish_step` every weight is a leaf, made once; else it is made when asked for.
    """

    def __init__(self, num_weights: int) -> None:
        super().__init__()
        self.num_weights = num_weights
        self._leaves: list[Tensor] = []

    def generate(self, index: int) -> Tensor:
        """Return weight `index` (O, I), differentiable."""
        raise NotImplementedError

    def generate_all(self) -> Sequence[Tensor]:
        """Return every weight (O, I) without a graph; they may lie in memory that the next call reuses."""
        raise NotImplementedError

    def pull_back(self, gradients: Sequence[Tensor]) -> None:
        """Set `.grad` of the parameters from the gradients (O, I) of every weight."""
        raise NotImplementedError

    def pulls(self, gradients: Sequence[Tensor]) -> Mapping[str, Sequence[Tensor]]:
        """Return what each weight's gradient (O, I) adds to that of each matrix they are generated from, by its name.

        For a generator that does not say, the weights themselves are the shared matrix: right up to factors.
        """
        return {"weight": gradients}

    def weight(self, index: int) -> Tensor:
        """Return weight `index` (O, I): the leaf of the step under way, or one made now."""
        return self._leaves[index] if self._leaves else self.generate(index)

    @contextmanager
    def without_leaves(self) -> Iterator[None]:
        """Make weights when asked for, for a while, although a step is under way."""
        leaves, self._leaves = self._leaves, []
        try:
            yield
        finally:
            self._leaves = leaves

    @torch.no_grad()
    def begin_step(self) -> list[Tensor]:
        """Make every weight and return them as leaves."""
        self._leaves = [weight.detach().requires_grad_() for weight in self.generate_all()]
        return self._leaves

    @torch.no_grad()
    def finish_step(self, gradients: Sequence[Tensor]) -> None:
        """Let the leaves go and carry their gradients to the parameters."""
        self._leaves = []
        self.pull_back(gradients)


class GeneratedLinear(nn.Module):
    """A linear map whose weight (O, I) comes from a generator that the network owns.

    Args:
        weight: returns the weight; a function, so that the generator is no submodule of this one.
        bias_features: size O of a bias of its own; 0 for none.
    """

    def __init__(self, weight: Callable[[], Tensor], bias_features: int = 0) -> None:
        super().__init__()
        self._weight = weight
        self.bias = nn.Parameter(torch.zeros(bias_features)) if bias_features else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        return F.linear(x, self._weight(), self.bias)
