"""Quantised: a dense network at few bits a number, trained with or without a look at what will be stored."""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import nn

from baselines.quantised.fake import QuantisedLinear, QuantisedWeight, fake_quantise
from harness.artifact.schemes import parse_scheme
from harness.backbone import BackboneMethod, BackboneSettings
from harness.errors import UsageError
from harness.method import Role, Setup, TrainingRun
from harness.nn.config import LinearRole
from harness.nn.inits import Init, normal, uniform_fan_in, zeros
from harness.nn.layers import LinearFactory, dense_factory
from harness.nn.network import Network
from harness.nn.transformer import Transformer


class QuantisedSettings(BackboneSettings):
    """The backbone's settings, and whether training sees the quantised weights."""

    qat: str = Field(
        "", description='scheme that training sees the blocks\' matrices under; "" quantises at export only'
    )
    qat_begin: float = Field(0.0, ge=0, lt=1, description="part of the training after which it sees them")
    init_std: float = Field(0.0, ge=0, description="deviation of initial matrices; 0 for U(-1/sqrt(in), 1/sqrt(in))")
    zero_outputs: bool = Field(True, description="matrices that write to the residual stream start at zero")

    @model_validator(mode="after")
    def _check_scheme(self) -> Self:
        if self.qat and parse_scheme(self.qat).kind not in ("grid", "ternary"):
            raise UsageError(
                f"qat: {self.qat} is not idempotent. Set it to int4..int8 or ternary with -row or -tensor."
            )
        return self

    def settle(self, setup: Setup) -> Self:
        """Return the settings as they are.

        Raises:
            UsageError: the matrices would be stored under another scheme than they are trained for.
        """
        if self.qat and setup.export.target_bytes:
            raise UsageError(
                f"trained for qat={self.qat}, to be stored with steps that fill {setup.export.target_bytes:,} bytes: "
                "that would round twice. Set qat to nothing, or export.target_bytes=0."
            )
        matrices = setup.export.matrices
        if self.qat and matrices != self.qat and parse_scheme(matrices).kind != "float":
            raise UsageError(
                f"trained for qat={self.qat}, to be stored as {matrices}: that would round twice. "
                f"Set export.matrices={self.qat}, or qat to it."
            )
        return self


class Quantised(BackboneMethod):
    """Trains a dense network, straight through the quantiser if asked to."""

    settings_class = QuantisedSettings
    settings: QuantisedSettings

    def build(self) -> Transformer:
        """Make the plain dense network with fresh weights."""
        settings = self.settings
        return self._build(dense_factory(settings, self._init, zero_outputs=settings.zero_outputs))

    def _build(self, linear: LinearFactory) -> Transformer:
        return Transformer(self.settings, vocab_size=self.task.vocab_size, context=self.task.context, linear=linear)

    @property
    def _init(self) -> Init:
        return normal(self.settings.init_std) if self.settings.init_std else uniform_fan_in

    def build_for_training(self) -> Transformer:
        """Make the network whose matrices can be seen quantised; the same weights as those of `build`."""
        dense = dense_factory(self.settings, self._init)

        def make(role: LinearRole, depth: int, in_features: int, out_features: int) -> nn.Module:
            settings = self.settings
            if role == "head":
                return dense(role, depth, in_features, out_features)
            init = zeros if settings.zero_outputs and role in ("output", "down") else self._init
            has_bias = role in settings.biases
            return QuantisedLinear(in_features, out_features, init, settings.qat, bias=has_bias)

        return self._build(make)

    def train(self, run: TrainingRun) -> Network:
        """Train; what comes out holds the very numbers that the last steps, and then the file, have seen."""
        if not self.settings.qat:
            return super().train(run)
        network = self.build_for_training()
        weights = [module for module in network.modules() if isinstance(module, QuantisedWeight)]

        def switch(progress: float) -> None:
            for weight in weights:
                weight.is_on = progress >= self.settings.qat_begin

        return self.settle(run.fit(network, before_step=switch))

    @torch.no_grad()
    def settle(self, trained: Network) -> Transformer:
        """Return the plain network with the quantised values of a trained one."""
        network = self.build().to(next(trained.parameters()).device)
        parameters = dict(trained.named_parameters())
        for name, parameter in network.named_parameters():
            latent = parameters.get(f"{name}.latent")
            parameter.copy_(parameters[name] if latent is None else fake_quantise(latent, self.settings.qat))
        return network

    def role_of(self, name: str) -> Role:
        """Weights under training are matrices; the rest is as in the backbone."""
        return "matrix" if name.endswith(".latent") else super().role_of(name)


METHOD = Quantised
