"""Second moments of what linear maps read, and of the gradients that reach what they write.

Shape letters: B windows, T tokens, I and O in and out features of a linear map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.pretrained.residual import Place, ResidualModel


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
    residual: ResidualModel,
    tokens_BT: Tensor,
    *,
    with_gradients: bool,
    batch_size: int = 16,
    seed: int = 0,
    bases: Sequence[int] | None = None,
) -> Mapping[Place, Moments]:
    """Run a model on calibration text and return the moments of linear maps of its blocks, in the present bases.

    Maps that read from one basis read the same numbers, and share the sums over them.

    Args:
        residual: left as it is.
        tokens_BT: token ids.
        with_gradients: of the model's own surprise -log p(y), with y drawn from the model, so that E[g g^T] is a
            factor of the Fisher matrix: a small change by dS costs E |x^T dS g|^2 / 2 nats a token, seen alone.
        batch_size: windows of one pass.
        seed: of the draws.
        bases: numbers of the bases whose maps are measured; all by default. The sums are the same as with all.

    Source: Martens and Grosse 2015, "Optimizing neural networks with Kronecker-factored approximate curvature",
        arXiv:1503.05671, section 3.
    """
    taken = range(residual.num_bases) if bases is None else bases
    groups = [residual.places(basis) for basis in taken]
    moments = {place: Moments() for group in groups for place in group}
    readers = [[place for place in group if place.reads] for group in groups]
    shared = {place for group in readers for place in group[1:]}
    generator = torch.Generator(tokens_BT.device).manual_seed(seed)
    with _watching(residual, moments, shared, with_gradients) as outputs:
        for batch in torch.split(tokens_BT, batch_size):
            outputs.clear()
            logits = residual.model(input_ids=batch).logits.flatten(0, 1).float()
            if with_gradients:
                drawn = torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]
                surprise = F.cross_entropy(logits, drawn, reduction="sum")
                for place, gradient in zip(outputs, torch.autograd.grad(surprise, list(outputs.values())), strict=True):
                    moments[place].add_gradients(gradient)
    for group in readers:
        for place in group[1:]:
            first = moments[group[0]]
            moments[place].num_tokens, moments[place].inputs = first.num_tokens, first.inputs
            moments[place].input_squares = first.input_squares
    return moments


class PassedMoments(Mapping[Place, Moments]):
    """Moments that are measured when they are asked for, those of a few bases at a time; the others are let go.

    Each group of bases costs a pass over the calibration text, whose backward half ends at the group.

    Args:
        residual: must stay as it is for as long as moments are asked for.
        tokens_BT: token ids.
        with_gradients: as in `measure_moments`.
        bases_per_pass: bases whose moments are held at a time.
        batch_size: windows of one pass.
        seed: of the draws.
    """

    def __init__(
        self,
        residual: ResidualModel,
        tokens_BT: Tensor,
        *,
        with_gradients: bool,
        bases_per_pass: int = 1,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        self._residual, self._tokens_BT, self._per_pass = residual, tokens_BT, bases_per_pass
        self._options: dict[str, Any] = {"with_gradients": with_gradients, "batch_size": batch_size, "seed": seed}
        every = range(residual.num_bases)
        self._group_of = {place: basis // bases_per_pass for basis in every for place in residual.places(basis)}
        self._group = -1
        self._held: Mapping[Place, Moments] = {}

    def __getitem__(self, place: Place) -> Moments:
        group = self._group_of[place]
        if group != self._group:
            self._held = {}
            first = group * self._per_pass
            bases = range(first, min(first + self._per_pass, self._residual.num_bases))
            self._held = measure_moments(self._residual, self._tokens_BT, bases=bases, **self._options)
            self._group = group
        return self._held[place]

    def __iter__(self) -> Iterator[Place]:
        return iter(self._group_of)

    def __len__(self) -> int:
        return len(self._group_of)


@contextmanager
def _watching(
    residual: ResidualModel, moments: Mapping[Place, Moments], shared: set[Place], with_gradients: bool
) -> Iterator[dict[Place, Tensor]]:
    """Take in inputs, but of shared ones; with gradients, collect what the maps write in one pass.

    Parameters are frozen, so that a graph begins at the first map that is watched and no gradient of a weight is made.
    """
    outputs: dict[Place, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(with_gradients))
        for parameter in residual.model.parameters():
            stack.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(False)
        for place, one in moments.items():
            module = residual.module(place)
            if place not in shared:
                stack.callback(module.register_forward_pre_hook(_input_hook(one)).remove)
            if with_gradients:
                stack.callback(module.register_forward_hook(_output_hook(place, outputs)).remove)
        yield outputs


def _input_hook(moments: Moments) -> Callable[[nn.Module, Any], None]:
    return lambda module, inputs: moments.add_inputs(inputs[0])


def _output_hook(place: Place, outputs: dict[Place, Tensor]) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def note(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        outputs[place] = output if output.requires_grad else output.requires_grad_()
        return output

    return note
