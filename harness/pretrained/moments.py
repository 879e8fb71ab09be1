"""Second moments of what linear maps read, and of the gradients that reach what they write.

Shape letters: B windows, T tokens, I and O in and out features of a linear map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.pretrained.residual import Place, ResidualModel, iterate_linears


@dataclass(slots=True)
class Moments:
    """Sums over the tokens that a linear map has seen, in float64; the properties are means.

    Attributes:
        num_tokens: summed over.
        inputs: (I,), sum of x.
        input_squares: (I, I), sum of x x^T.
        gradient_squares: (O, O), sum of g g^T for the gradients g of a token's outputs; None where none was asked for.
    """

    num_tokens: int = 0
    inputs: Tensor = field(default_factory=lambda: torch.zeros(()))
    input_squares: Tensor = field(default_factory=lambda: torch.zeros(()))
    gradient_squares: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """E[x] (I,)."""
        return self.inputs / self.num_tokens

    @property
    def second(self) -> Tensor:
        """E[x x^T] (I, I)."""
        return self.input_squares / self.num_tokens

    @property
    def covariance(self) -> Tensor:
        """E[x x^T] - E[x] E[x]^T (I, I)."""
        return self.second - self.mean.outer(self.mean)

    @property
    def gradient(self) -> Tensor | None:
        """E[g g^T] (O, O)."""
        return None if self.gradient_squares is None else self.gradient_squares / self.num_tokens

    def add_inputs(self, x: Tensor) -> None:
        """Take in the inputs of some tokens (..., I)."""
        x = x.detach().flatten(0, -2).double()
        self.num_tokens += len(x)
        self.inputs, self.input_squares = self.inputs + x.sum(0), self.input_squares + x.T @ x

    def add_gradients(self, g: Tensor) -> None:
        """Take in the gradients of some tokens (..., O)."""
        g = g.detach().flatten(0, -2).double()
        squares = g.T @ g
        self.gradient_squares = squares if self.gradient_squares is None else self.gradient_squares + squares


def measure_moments(
    residual: ResidualModel, tokens_BT: Tensor, *, with_gradients: bool, batch_size: int = 16, seed: int = 0
) -> Mapping[Place, Moments]:
    """Run a model on calibration text and return the moments of each linear map of its blocks, in the present bases.

    Args:
        residual: left as it is.
        tokens_BT: token ids.
        with_gradients: of the model's own surprise -log p(y), with y drawn from the model, so that E[g g^T] is a
            factor of the Fisher matrix: a small change by dS costs E |x^T dS g|^2 / 2 nats a token, seen alone.
        batch_size: windows of one pass.
        seed: of the draws.

    Source: Martens and Grosse 2015, "Optimizing neural networks with Kronecker-factored approximate curvature",
        arXiv:1503.05671, section 3.
    """
    moments = {place: Moments() for place, _ in iterate_linears(residual)}
    generator = torch.Generator(tokens_BT.device).manual_seed(seed)
    with _watching(residual, moments, with_gradients), torch.set_grad_enabled(with_gradients):
        for batch in torch.split(tokens_BT, batch_size):
            logits = residual.model(input_ids=batch).logits.flatten(0, 1).float()
            if with_gradients:
                drawn = torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]
                torch.autograd.backward(F.cross_entropy(logits, drawn, reduction="sum"))
                residual.model.zero_grad(set_to_none=True)
    return moments


@contextmanager
def _watching(residual: ResidualModel, moments: Mapping[Place, Moments], with_gradients: bool) -> Iterator[None]:
    handles = []
    for place, module in iterate_linears(residual):
        handles.append(module.register_forward_pre_hook(_input_hook(moments[place])))
        if with_gradients:
            handles.append(module.register_full_backward_hook(_gradient_hook(moments[place])))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _input_hook(moments: Moments) -> Callable[[nn.Module, Any], None]:
    return lambda module, inputs: moments.add_inputs(inputs[0])


def _gradient_hook(moments: Moments) -> Callable[[nn.Module, Any, Any], None]:
    return lambda module, into, out: moments.add_gradients(out[0])
