"""Initial values of linear maps: functions that fill a weight (out_features, in_features) in place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

Init = Callable[[Tensor], object]

zeros: Init = nn.init.zeros_


def uniform_fan_in(weight_OI: Tensor) -> None:
    """Draw from U(-1/sqrt(I), 1/sqrt(I)), the default of `torch.nn.Linear`."""
    bound = weight_OI.size(1) ** -0.5
    nn.init.uniform_(weight_OI, -bound, bound)


def normal_fan_in(weight_OI: Tensor) -> None:
    """Draw from N(0, 1/I)."""
    nn.init.normal_(weight_OI, std=weight_OI.size(1) ** -0.5)


def normal(std: float) -> Init:
    """Return the initialiser N(0, std^2)."""
    return partial(nn.init.normal_, std=std)
