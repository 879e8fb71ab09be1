"""The dense baseline: the shared backbone with a stored matrix for every linear map."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.backbone import BackboneMethod, BackboneSettings
from harness.nn import inits
from harness.nn.layers import dense_factory
from harness.nn.transformer import Transformer


class DenseSettings(BackboneSettings):
    """The backbone's settings, and how matrices start."""

    init: Literal["uniform", "normal"] = Field(
        "uniform", description="U(-1/sqrt(in), 1/sqrt(in)), or normal with deviation init_std"
    )
    init_std: float = Field(0.0, ge=0, description="deviation of a normal init; 0 for 1/sqrt(in)")
    zero_outputs: bool = Field(True, description="matrices that write to the residual stream start at zero")


class Dense(BackboneMethod):
    """Every block owns its matrices."""

    settings_class = DenseSettings
    settings: DenseSettings

    def build(self) -> Transformer:
        """Make the network with fresh weights."""
        settings = self.settings
        return Transformer(
            settings,
            vocab_size=self.task.vocab_size,
            context=self.task.context,
            linear=dense_factory(settings, self._init(), zero_outputs=settings.zero_outputs),
        )

    def _init(self) -> inits.Init:
        if self.settings.init == "uniform":
            return inits.uniform_fan_in
        return inits.normal(self.settings.init_std) if self.settings.init_std else inits.normal_fan_in


METHOD = Dense
