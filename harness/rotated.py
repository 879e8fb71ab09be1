"""What methods that rotate a trained network of the shared backbone have in common: settings, stages, counts."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self, cast

import torch
from pydantic import Field, PositiveInt, model_validator

from harness.backbone import BackboneMethod, BackboneSettings
from harness.errors import ArtifactError, UsageError
from harness.method import Parent, Role, TrainingRun, load_tensors
from harness.nn.inits import uniform_fan_in
from harness.nn.layers import LinearFactory, dense_factory
from harness.nn.network import Network
from harness.nn.rotated import RotatedTransformer
from harness.nn.transformer import Transformer

# Parts of the backbone that act on single residual features, in which a rotation would change the function.
FIXED = {
    "norm": "rms",
    "sublayer_scales": False,
    "residual_mix": False,
    "skips": False,
    "schedule": (),
    "embedding_rank": 0,
    "biases": (),
}


class RotatedSettings(BackboneSettings):
    """The settings of a backbone whose residual stream may change its basis, and of the stages before it does."""

    sublayer_scales: bool = False
    residual_mix: bool = False
    dense_share: float = Field(0.8, gt=0, lt=1, description="part of the budget that trains dense; none with --from")
    calibration_tokens: PositiveInt = Field(65_536, description="training tokens that moments are measured on")

    @model_validator(mode="after")
    def _check_basis_is_free(self) -> Self:
        for key, value in FIXED.items():
            if getattr(self, key) != value:
                raise UsageError(f"{key}: a rotation would change the network's function. Set {key}={value!r}")
        if self.positions == "sinusoidal":
            raise UsageError("positions: a fixed table cannot be rotated. Set positions=rope, learned or none")
        return self

    def skip_params(self, width: int) -> int:
        """Count the numbers of the matrices on skip connections and before a tied head, for a stream of a width."""
        return (2 * self.num_layers + self.tied) * width**2


class RotatedMethod(BackboneMethod):
    """Trains a dense network, or takes that of a record, rotates it, compresses it and trains what came of it."""

    settings: RotatedSettings

    @abstractmethod
    def compress_dense(self, dense: Transformer, run: TrainingRun) -> Network:
        """Return the compressed network, of the kind that `build` makes."""

    def train(self, run: TrainingRun) -> Network:
        """Train dense, or take the parent's network; compress it; train what came of it for the rest of the budget."""
        share = 1.0
        if run.parent is None:
            dense = self.build_dense()
            dense_share, flops = self.settings.dense_share, super().flops_per_step
            dense = cast(Transformer, run.fit(dense, share=dense_share, flops_per_step=flops))
            share = 1 - dense_share
        else:
            dense = self._dense_from(run.parent)
        return run.fit(self.compress_dense(dense, run), share=share)

    def role_of(self, name: str) -> Role:
        """Matrices between bases are matrices; the rest is as in the backbone."""
        return "matrix" if name.endswith("_skip") else super().role_of(name)

    def part_of(self, name: str) -> str:
        """Name the component: matrices between bases apart from the blocks' own."""
        return "skips" if name.endswith("_skip") else super().part_of(name)

    def build_dense(self) -> Transformer:
        """Make the dense network that is to be rotated, with fresh weights."""
        return Transformer(
            self.settings, vocab_size=self.task.vocab_size, context=self.task.context, linear=self.dense_factory()
        )

    @torch.no_grad()
    def with_bases(self, dense: Transformer) -> RotatedTransformer:
        """Return a copy of a dense network with matrices between bases, all of them the identity yet."""
        network = RotatedTransformer(
            self.settings, vocab_size=self.task.vocab_size, context=self.task.context, linear=self.dense_factory()
        )
        network = network.to(next(dense.parameters()).device)
        network.load_state_dict(dense.state_dict(), strict=False)
        return network

    def dense_factory(self) -> LinearFactory:
        """Return the factory of dense maps."""
        return dense_factory(self.settings, uniform_fan_in)

    def _dense_from(self, parent: Parent) -> Transformer:
        network = self.build_dense()
        try:
            load_tensors(network, parent.tensors)
        except ArtifactError as error:
            raise UsageError(f"--from a record of '{parent.method}': {error}") from error
        return network
