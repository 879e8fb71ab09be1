"""Averages of the weights over steps: exponential (EMA) or uniform (SWA)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Averages:
    """A float32 average of the trainable parameters, by name, over the weights that it is told to take in.

    The exponential average is normalised: after t updates with decay d, the weights of update i count with
    d^(t - i) (1 - d) / (1 - d^t). The initial weights take no part, so they do not hold short runs back.
    """

    def __init__(self, network: nn.Module, *, ema_decay: float = 0.0) -> None:
        """Prepare the average.

        Args:
            network: the network to be trained.
            ema_decay: decay an update, in [0, 1); 0 for the uniform average.
        """
        self._parameters = {name: value for name, value in network.named_parameters() if value.requires_grad}
        self._decay = ema_decay
        self._averages: list[Tensor] = []
        self.num_averaged = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are."""
        weights = [parameter.detach().float() for parameter in self._parameters.values()]
        self.num_averaged += 1
        if self.num_averaged == 1:
            self._averages = [weight.clone() for weight in weights]
        else:
            d, t = self._decay, self.num_averaged
            newest_share = (1 - d) / (1 - d**t) if d else 1 / t
            torch._foreach_lerp_(self._averages, weights, newest_share)

    @torch.no_grad()
    def copy_to(self, network: nn.Module) -> None:
        """Put the average into `network`; nothing changes where nothing was averaged."""
        if self.num_averaged:
            for name, average in zip(self._parameters, self._averages, strict=True):
                network.get_parameter(name).copy_(average)

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Put the average into `network` for a while, for example to validate it."""
        before = {name: network.get_parameter(name).detach().clone() for name in self._parameters}
        self.copy_to(network)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in before.items():
                    network.get_parameter(name).copy_(weight)

    def state_dict(self) -> dict[str, Any]:
        """Return the average and how many weights are in it."""
        return {"num_averaged": self.num_averaged, "averages": self.weights()}

    def weights(self) -> dict[str, Tensor]:
        """Return the average by name, not a copy; empty where nothing was averaged."""
        return dict(zip(self._parameters, self._averages, strict=True)) if self.num_averaged else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved average."""
        self.num_averaged = state["num_averaged"]
        if self.num_averaged:
            averages = state["averages"]
            self._averages = [
                averages[name].to(device=parameter.device, dtype=torch.float32, copy=True)
                for name, parameter in self._parameters.items()
            ]
        else:
            self._averages = []
