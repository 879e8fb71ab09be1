"""What the training loop and the scorer see of a model: logits, a loss, leaves to sum gradients on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch.nn.functional as F
from torch import Tensor, nn

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
