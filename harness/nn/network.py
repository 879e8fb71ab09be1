"""What the training loop and the scorer see of a model: logits, a loss, leaves to sum gradients on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from harness.nn.generated import WeightGenerator


class Network(nn.Module):
    """A language model over token ids.

    Where weights are generated from fewer numbers, each `WeightGenerator` in the network makes them once per
    optimiser step: micro-batches sum gradients on the weights, and one vector-Jacobian product takes the sum to
    the parameters.
    """

    def forward(self, tokens_BT: Tensor, last: int | None = None) -> Tensor:
        """Return float32 logits of shape (B, T, V), or (B, last, V) for the last positions only.

        Args:
            tokens_BT: int64 token ids of shape (B, T).
            last: compute logits of this many last positions; all when None.
        """
        raise NotImplementedError

    def loss(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Return the mean cross entropy in nats a token, float32, shape ()."""
        logits_BTV = self(tokens_BT)
        return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())

    @torch.no_grad()
    def logits_with(self, weights: Mapping[str, Tensor], tokens_BT: Tensor) -> Tensor:
        """Return logits (B, T, V), without a graph and as evaluated, with other values of parameters.

        It may be called between `begin_step` and `finish_step`: generators make the weights anew from these values.

        Args:
            weights: by the names of parameters; those left out stay as they are.
            tokens_BT: int64 token ids of shape (B, T).
        """
        was_training = self.training
        self.eval()
        try:
            with ExitStack() as stack:
                for generator in self._generators():
                    stack.enter_context(generator.without_leaves())
                logits_BTV: Tensor = functional_call(self, dict(weights), (tokens_BT,))
        finally:
            self.train(was_training)
        return logits_BTV

    def begin_step(self) -> list[Tensor]:
        """Return the tensors whose gradients the micro-batches of one optimiser step are summed on.

        They are the generated weights, made now, and the trainable parameters outside the generators.
        """
        weights = [weight for generator in self._generators() for weight in generator.begin_step()]
        return weights + self._parameters_of_their_own()

    def finish_step(self, gradients: Sequence[Tensor]) -> None:
        """Set `.grad` of the parameters from the summed gradients of the leaves of `begin_step`, in order."""
        remaining = iter(gradients)
        for generator in self._generators():
            generator.finish_step(list(islice(remaining, generator.num_weights)))
        for parameter, gradient in zip(self._parameters_of_their_own(), remaining, strict=True):
            parameter.grad = gradient

    def _generators(self) -> list[WeightGenerator]:
        return [module for module in self.modules() if isinstance(module, WeightGenerator)]

    def _parameters_of_their_own(self) -> list[nn.Parameter]:
        generated_from = {id(p) for generator in self._generators() for p in generator.parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in generated_from]
