"""Self-distillation: the exponential average of the weights, frozen, teaches the network.

Shape letters: B sequences, T tokens, V entries of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.nn.network import Network
from harness.training.averaging import Averages


def distillation_loss(
    student_BTV: Tensor, teacher_BTV: Tensor, targets_BT: Tensor, *, temperature: float, weight: float
) -> tuple[Tensor, Tensor]:
    """Return weight T^2 KL(teacher || student at temperature T) + (1 - weight) CE, and CE in nats a token.

    The divergence is summed over tokens and divided by the number of sequences, as published ("batchmean").

    Args:
        student_BTV: logits of the network in training.
        teacher_BTV: logits of the teacher.
        targets_BT: token ids.
        temperature: T.
        weight: of the divergence, in [0, 1].

    Source: pull request 579 of the Parameter Golf challenge; Hinton et al. 2015, arXiv:1503.02531.
    """
    cross_entropy = F.cross_entropy(student_BTV.flatten(0, 1), targets_BT.flatten())
    divergence = F.kl_div(
        F.log_softmax(student_BTV / temperature, dim=-1),
        F.log_softmax(teacher_BTV / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    return weight * temperature**2 * divergence + (1 - weight) * cross_entropy, cross_entropy


class Teacher:
    """Frozen weights, by name, that run in the network they teach; none before `freeze`."""

    def __init__(self) -> None:
        self._weights: dict[str, Tensor] = {}

    def freeze(self, network: Network, averages: Averages) -> None:
        """Take the average as it is now, or the weights of `network` where nothing was averaged yet."""
        weights = averages.weights() or {name: value.detach() for name, value in network.named_parameters()}
        self._weights = {
            name: value.to(network.get_parameter(name).dtype, copy=True) for name, value in weights.items()
        }

    def logits(self, network: Network, tokens_BT: Tensor) -> Tensor:
        """Return logits (B, T, V) without a graph, of the network as it is evaluated, with the frozen weights."""
        return network.logits_with(self._weights, tokens_BT)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the frozen weights."""
        return dict(self._weights)

    def load_state_dict(self, state: Mapping[str, Tensor], device: str | torch.device) -> None:
        """Go on from a saved state; an empty one has no weights."""
        self._weights = {name: weight.to(device, copy=True) for name, weight in state.items()}
