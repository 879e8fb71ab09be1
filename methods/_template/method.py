"""A plugin to copy: layers in groups share each matrix, and each layer scales its rows: W_l = diag(g_l) W."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from harness.backbone import BackboneMethod, BackboneSettings
from harness.nn.config import LinearRole
from harness.nn.inits import uniform_fan_in
from harness.nn.layers import dense_factory
from harness.nn.transformer import Transformer


class TemplateSettings(BackboneSettings):
    """The backbone's settings, and one of this method: each is a `--set` of the command."""

    group: int = Field(2, ge=1, description="neighbouring layers that share their matrices")


class SharedLinear(nn.Module):
    """The map y = g * (W x): the weight W (O, I) is shared, the gain g (O,) is this layer's own."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight
        self.gain = nn.Parameter(torch.ones(weight.size(0)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        return self.gain * F.linear(x, self.weight)


class Template(BackboneMethod):
    """What differs from dense is where the linear maps come from; the rest is inherited.

    A parameter that two modules share is trained, counted and stored once, under the name of its first owner. Names
    that end in `.weight` are matrices, others vectors: override `role_of` where that does not hold, `stored_tensors`
    where the file holds something else than the parameters, and `count_params` and `flops_per_step` where the formulas
    of the backbone do not say what runs. Override `train` for stages.
    """

    settings_class = TemplateSettings
    settings: TemplateSettings

    def build(self) -> Transformer:
        """Make the network with fresh weights."""
        settings = self.settings
        dense = dense_factory(settings, uniform_fan_in)
        weights: dict[tuple[LinearRole, int], nn.Parameter] = {}

        def make(role: LinearRole, depth: int, in_features: int, out_features: int) -> nn.Module:
            if role == "head" or role in settings.biases:
                return dense(role, depth, in_features, out_features)
            place = role, depth // settings.group
            if place not in weights:
                weights[place] = dense(role, depth, in_features, out_features).get_parameter("weight")
            return SharedLinear(weights[place])

        return Transformer(settings, vocab_size=self.task.vocab_size, context=self.task.context, linear=make)


METHOD = Template
