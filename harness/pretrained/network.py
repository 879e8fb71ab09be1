"""A rotated pretrained model as a network of the harness: scored, exported and rebuilt like any other.

Letters: B windows, T tokens, V token ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import ArtifactError
from harness.nn.network import Network
from harness.pretrained.residual import ResidualModel


class PretrainedNetwork(Network):
    """Logits of a Hugging Face model whose norms are folded away.

    Args:
        residual: the model; its blocks may hold any linear maps and skip matrices.
    """

    def __init__(self, residual: ResidualModel) -> None:
        super().__init__()
        self.model = residual.model
        self.residual = residual

    def forward(self, tokens_BT: Tensor, last: int | None = None) -> Tensor:
        """Return float32 logits (B, T, V), or of the `last` positions only; V is the model's, padding included."""
        model = cast(Any, self.model)
        logits: Tensor = model(input_ids=tokens_BT, use_cache=False, logits_to_keep=last or 0).logits
        return logits.float()


def fill_network(network: PretrainedNetwork, tensors: Mapping[str, np.ndarray]) -> PretrainedNetwork:
    """Give a network on the meta device its numbers, which are taken over and not copied.

    Args:
        network: with parameters on the meta device, tied ones once; those without numbers are left as they are.
        tensors: float32, by the names of its parameters.

    Raises:
        ArtifactError: a name is missing or too many, or a shape differs.
    """
    places = {name: place for name, place in network.named_parameters() if place.numel()}
    if odd := sorted(places.keys() ^ tensors.keys()):
        raise ArtifactError(f"artifact and network disagree on the tensors {', '.join(odd[:5])}: other settings?")
    made: dict[int, nn.Parameter] = {}
    for name, place in places.items():
        got, expected = tuple(tensors[name].shape), tuple(place.shape)
        if got != expected:
            raise ArtifactError(f"artifact tensor {name} has shape {got}, the network expects {expected}")
        made[id(place)] = nn.Parameter(torch.from_numpy(tensors[name]))
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if parameter.numel():
                setattr(module, name, made[id(parameter)])
    _renew_tables(network)
    return network


def _renew_tables(network: PretrainedNetwork) -> None:
    """Compute again what modules work out of the configuration alone: the frequencies of rotary positions."""
    for path, module in list(network.model.named_modules()):
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            with torch.device("cpu"):
                network.model.set_submodule(path, type(module)(network.model.config))
