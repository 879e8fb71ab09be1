"""Pruning: the matrices of a dense network lose their smallest weights while they are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn

from baselines.pruning.masks import MaskedLinear, Scope, num_to_prune, prune, sparsity_at, zero_masked
from baselines.pruning.storage import MASK, ROWS, VALUES, join_weight, num_scales, split_weight
from harness.artifact.container import PlannedTensor
from harness.artifact.expected import num_stored
from harness.backbone import BackboneMethod, BackboneSettings
from harness.errors import UsageError
from harness.method import ExportSettings, TrainingRun
from harness.nn.config import LinearRole
from harness.nn.inits import normal, uniform_fan_in, zeros
from harness.nn.layers import dense_factory
from harness.nn.network import Network
from harness.nn.transformer import Transformer


class PruningSettings(BackboneSettings):
    """The backbone's settings, how much is pruned, when, and how the rest is stored."""

    sparsity: float = Field(0.5, ge=0, lt=1, description="part of the weights of the blocks' matrices that ends at 0")
    pace: Literal["gradual", "one_shot"] = Field(
        "gradual", description="cubic from begin to end (Zhu and Gupta), or all at begin"
    )
    begin: float = Field(0.2, ge=0, le=1, description="part of the training after which pruning begins; 1: at its end")
    end: float = Field(0.7, ge=0, le=1, description="part of the training after which a gradual schedule is through")
    updates: int = Field(50, ge=1, description="jumps of a gradual schedule")
    scope: Scope = Field("global", description="the part of each matrix, or of all matrices together")
    storage: Literal["mask", "zeros"] = Field(
        "mask", description="mask and numbers left apart, or the matrix with its zeros, left to the entropy coder"
    )
    init_std: float = Field(0.0, ge=0, description="deviation of initial matrices; 0 for U(-1/sqrt(in), 1/sqrt(in))")
    zero_outputs: bool = Field(True, description="matrices that write to the residual stream start at zero")

    @model_validator(mode="after")
    def _check_pace(self) -> Self:
        if self.pace == "gradual" and self.end < self.begin:
            raise UsageError(f"end: {self.end} is before begin={self.begin}. Set end to at least {self.begin}.")
        return self

    def sparsity_at(self, progress: float) -> float:
        """Return the sparsity to have at `progress` through the training."""
        end = self.end if self.pace == "gradual" else self.begin
        return sparsity_at(progress, final=self.sparsity, begin=self.begin, end=end, updates=self.updates)


class Pruning(BackboneMethod):
    """Trains a dense network under masks that grow, and stores what is left."""

    settings_class = PruningSettings
    settings: PruningSettings

    def build(self) -> Transformer:
        """Make the network with fresh weights, none of them pruned."""
        settings = self.settings
        init = normal(settings.init_std) if settings.init_std else uniform_fan_in
        dense = dense_factory(settings, init, zero_outputs=settings.zero_outputs)

        def make(role: LinearRole, depth: int, in_features: int, out_features: int) -> nn.Module:
            if role == "head":
                return dense(role, depth, in_features, out_features)
            is_zero = settings.zero_outputs and role in ("output", "down")
            return MaskedLinear(in_features, out_features, zeros if is_zero else init, bias=role in settings.biases)

        return Transformer(settings, vocab_size=self.task.vocab_size, context=self.task.context, linear=make)

    def train(self, run: TrainingRun) -> Network:
        """Train under masks that follow the schedule; the last of it holds whatever the budget was measured in."""
        network = self.build()
        maps = list(_masked(network).values())
        run.fit(network, before_step=lambda progress: self._update(maps, progress))
        prune(maps, self.settings.sparsity, self.settings.scope)
        return network

    def _update(self, maps: Sequence[MaskedLinear], progress: float) -> None:
        settings = self.settings
        zero_masked(maps)
        target = settings.sparsity_at(progress)
        numbers = [one.mask.numel() for one in maps]
        groups = [sum(numbers)] if settings.scope == "global" else numbers
        # What is masked by now is read from the masks, which a checkpoint restores, and remembered nowhere else.
        if sum(numbers) - sum(int(one.mask.sum()) for one in maps) < sum(num_to_prune(n, target) for n in groups):
            prune(maps, target, settings.scope)

    def export(self, network: Network, export: ExportSettings) -> Sequence[PlannedTensor]:
        """Store each matrix as mask and numbers left, or with its zeros; the rest as in the backbone."""
        maps = _masked(network)
        zero_masked(list(maps.values()))
        planned = super().export(network, export)
        if self.settings.storage == "zeros":
            return planned
        names = {f"{name}.weight" for name in maps}
        return [part for one in planned for part in (split_weight(one) if one.name in names else [one])]

    def count_stored(self, network: Network, export: ExportSettings) -> int:
        """Count the numbers left by the end and the scales; masks are no parameters."""
        if self.settings.storage == "zeros":
            return super().count_stored(network, export)
        names = {f"{name}.weight" for name in _masked(network)}
        total, num_weights = 0, []
        for name, tensor in self.stored_tensors(network):
            scheme = self.scheme_of(name, tensor, export)
            if name in names:
                num_weights.append(tensor.numel())
                total += num_scales(tensor.size(0), scheme)
            else:
                total += num_stored(tuple(tensor.shape), scheme)
        groups = [sum(num_weights)] if self.settings.scope == "global" else num_weights
        return total + sum(n - num_to_prune(n, self.settings.sparsity) for n in groups)

    def load_stored(self, network: Network, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Copy decoded tensors to their places; pruned weights come back as zeros, masks stay as they are.

        Raises:
            ArtifactError: a name is missing or too many, a shape differs, or a mask does not fit its numbers.
        """
        if self.settings.storage == "mask":
            names = {f"{name}.weight" for name in _masked(network)}
            apart = {f"{name}.{kind}" for name in names for kind in (MASK, VALUES, ROWS)}
            kept = {name: value for name, value in tensors.items() if name not in apart}
            tensors = kept | {name: join_weight(name, tensors) for name in names}
        super().load_stored(network, tensors)


def _masked(network: Network) -> dict[str, MaskedLinear]:
    return {name: module for name, module in network.named_modules() if isinstance(module, MaskedLinear)}


METHOD = Pruning
