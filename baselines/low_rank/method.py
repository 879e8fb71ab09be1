"""Low rank: each matrix is a product of two, from the start or by factorising a trained dense network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Literal, Self, cast

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from baselines.low_rank.factorise import LowRankLinear, truncated_svd, whitened_svd
from harness.backbone import BackboneMethod, BackboneSettings
from harness.errors import UsageError
from harness.method import ParamCounts, Role, TrainingRun
from harness.nn.config import LinearRole
from harness.nn.inits import normal, uniform_fan_in
from harness.nn.layers import Linear, LinearFactory, dense_factory
from harness.nn.network import Network
from harness.nn.transformer import Transformer


class LowRankSettings(BackboneSettings):
    """The backbone's settings, the rank of each role, and where the factors come from."""

    share: float = Field(0.5, gt=0, description="parameters of a matrix that its factors may have; sets its rank")
    ranks: dict[LinearRole, PositiveInt] = Field({}, description="rank of single roles, instead of by share")
    init: Literal["random", "svd", "whitened"] = Field(
        "random", description="draw the factors, or train dense first and factorise by plain or weighted SVD"
    )
    dense_share: float = Field(0.5, gt=0, lt=1, description="part of the budget that trains dense before an SVD")
    calibration_tokens: PositiveInt = Field(65_536, description="training tokens that weigh a whitened SVD")
    damping: float = Field(1e-4, gt=0, description="added to second moments, in units of their mean diagonal")
    factor_lr: float = Field(1.0, gt=0, description="learning rate of factors over that of ordinary matrices")
    init_std: float = Field(0.0, ge=0, description="deviation of initial matrices; 0 for U(-1/sqrt(in), 1/sqrt(in))")
    zero_outputs: bool = Field(True, description="matrices that write to the residual stream start at zero")

    def rank(self, role: LinearRole) -> int:
        """Return the rank of a role: as set, or the largest with at most `share` of the matrix's parameters."""
        inside, outside = self.linear_shapes[role]
        by_share = int(self.share * inside * outside / (inside + outside))
        return self.ranks.get(role, min(max(by_share, 1), inside, outside))

    @model_validator(mode="after")
    def _check_ranks(self) -> Self:
        for role, rank in self.ranks.items():
            if role not in self.linear_shapes:
                raise UsageError(f"ranks: this network has no matrix '{role}' in its blocks")
            if rank > (largest := min(self.linear_shapes[role])):
                raise UsageError(f"ranks: {role} has rank {largest} at most, got {rank}")
        return self


class LowRank(BackboneMethod):
    """Stores two factors for every matrix of every block and runs them as a chain."""

    settings_class = LowRankSettings
    settings: LowRankSettings

    def build(self) -> Transformer:
        """Make the network with fresh factors."""
        dense = self._dense_factory()

        def make(role: LinearRole, depth: int, in_features: int, out_features: int) -> nn.Module:
            settings = self.settings
            if role == "head":
                return dense(role, depth, in_features, out_features)
            is_zero = settings.zero_outputs and role in ("output", "down")
            std = 0.0 if is_zero else settings.init_std or (3 * in_features) ** -0.5
            return LowRankLinear(in_features, out_features, settings.rank(role), std=std, bias=role in settings.biases)

        return self._build(make)

    def _build(self, linear: LinearFactory) -> Transformer:
        return Transformer(self.settings, vocab_size=self.task.vocab_size, context=self.task.context, linear=linear)

    def _dense_factory(self) -> LinearFactory:
        settings = self.settings
        init = normal(settings.init_std) if settings.init_std else uniform_fan_in
        return dense_factory(settings, init, zero_outputs=settings.zero_outputs)

    def train(self, run: TrainingRun) -> Network:
        """Train factors all along; or dense, factorise, and the factors for the rest of the budget."""
        settings = self.settings
        if settings.init == "random":
            return run.fit(self.build())
        dense = self._build(self._dense_factory())
        dense = cast(Transformer, run.fit(dense, share=settings.dense_share, flops_per_step=super().flops_per_step))
        moments = run.calibrate(dense, num_tokens=settings.calibration_tokens) if settings.init == "whitened" else {}
        return run.fit(self.factorise(dense, moments), share=1 - settings.dense_share)

    @torch.no_grad()
    def factorise(self, dense: Network, moments: Mapping[str, Tensor]) -> Transformer:
        """Return a network of factors in place of the matrices of a dense one, all else as it is there.

        Args:
            dense: of the same backbone.
            moments: second moments of the inputs of each matrix, by its name; where one is missing, plain SVD.
        """
        network = self.build().to(next(dense.parameters()).device)
        maps = {name: module for name, module in network.named_modules() if isinstance(module, LowRankLinear)}
        for name, module in maps.items():
            weight_OI, rank = cast(Linear, dense.get_submodule(name)).weight, module.v.size(0)
            split = partial(truncated_svd, weight_OI)
            if name in moments:
                split = partial(whitened_svd, weight_OI, moments[name], damping=self.settings.damping)
            for factor, value in zip((module.u, module.v), split(rank), strict=True):
                factor.copy_(value)
        taken = dict(dense.named_parameters())
        for name, parameter in network.named_parameters():
            if name in taken:
                parameter.copy_(taken[name])
        return network

    def role_of(self, name: str) -> Role:
        """Factors are matrices; the rest is as in the backbone."""
        return "matrix" if name.endswith((".u", ".v")) else super().role_of(name)

    def lr_factor(self, name: str, parameter: Tensor) -> float | tuple[float, ...]:
        """Factors learn at `factor_lr` times the rate of matrices."""
        return self.settings.factor_lr if name.endswith((".u", ".v")) else 1.0

    def count_params(self, network: Network) -> ParamCounts:
        """Count as effective the matrices that the factors stand for, as active the factors."""
        counts = super().count_params(network)
        return replace(counts, active=counts.active - self._saved_params)

    def flops_per_step(self, num_tokens: int) -> float:
        """Count forward and backward of the backbone with two small products in place of each large one."""
        return super().flops_per_step(num_tokens) - 3 * 2.0 * num_tokens * self._saved_params

    @property
    def _saved_params(self) -> int:
        """Parameters of all matrices less those of their factors, over all depths; negative above half the rank."""
        settings = self.settings
        saved = sum(
            inside * outside - settings.rank(role) * (inside + outside)
            for role, (inside, outside) in settings.linear_shapes.items()
        )
        return settings.num_layers * saved


METHOD = LowRank
