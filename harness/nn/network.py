"""What the training loop and the scorer see of a model: logits, a loss, leaves to sum gradients on."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Network(nn.Module):
    """A language model over token ids.

    A method whose weights are generated from fewer numbers overrides `begin_step` and `finish_step`: weights
    are generated once per optimiser step, micro-batches sum gradients on them, and one vector-Jacobian product
    takes the sum to the parameters.
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
        """Return the tensors whose gradients the micro-batches of one optimiser step are summed on."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def finish_step(self, gradients: Sequence[Tensor]) -> None:
        """Set `.grad` of the parameters from the summed gradients of the leaves of `begin_step`, in order."""
        leaves = (parameter for parameter in self.parameters() if parameter.requires_grad)
        for parameter, gradient in zip(leaves, gradients, strict=True):
            parameter.grad = gradient
