"""What methods on pretrained models have in common: settings, roles, counts, export. They add what replaces what.

Shape letters: D residual features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
from pydantic import Field, JsonValue
from torch import Tensor, nn

from harness.artifact.container import PlannedTensor
from harness.method import ExportSettings, Method, ParamCounts, ParamGroup, Role, Settings, Setup
from harness.pretrained.architecture import make_empty_model
from harness.pretrained.network import PretrainedNetwork, fill_network
from harness.pretrained.residual import ResidualModel
from harness.records.schema import BesidePart

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PretrainedSettings(Settings):
    """Settings of a method on a pretrained model; subclasses add their own."""

    architecture: dict[str, JsonValue] = Field({}, description="of the model, as its config.json says; filled in")

    def settle(self, setup: Setup) -> Self:
        """Write down the architecture, without which the file could not be decoded."""
        assert setup.architecture is not None, "only runs that start from a pretrained model come here"
        return self.model_copy(update={"architecture": dict(setup.architecture)})


class PretrainedMethod(Method):
    """A method whose network is a `PretrainedNetwork`; subclasses write `train` and `shape`."""

    settings: PretrainedSettings

    @abstractmethod
    def shape(self, residual: ResidualModel) -> None:
        """Put into a model without numbers the modules that a compressed one has; on the meta device."""

    @abstractmethod
    def dense_numbers(self, module: nn.Module) -> tuple[int, int] | None:
        """Return how many numbers a module stands for and how many it multiplies by a token.

        None where that is what it holds, so that its parts are asked.
        """

    def beside(
        self, load: Callable[[], PreTrainedModel], calibrate: Callable[[int], Tensor], windows_BT: Tensor
    ) -> Sequence[BesidePart]:
        """Compress copies of the model in the ways that this one has to beat, for the record to show; none by default.

        Args:
            load: returns the model as it was before the compression; not to be called where nothing is compared.
            calibrate: returns the first tokens of training (B, T), at least so many.
            windows_BT: token ids of the tune split, for perplexities.
        """
        return ()

    def build(self) -> PretrainedNetwork:
        """Make the network without numbers, on the meta device."""
        with torch.device("meta"):
            residual = ResidualModel(make_empty_model(self.settings.architecture))
            self.shape(residual)
        return PretrainedNetwork(residual)

    def role_of(self, name: str, tensor: Tensor) -> Role:
        """Return the role of a parameter: tables and heads, matrices of the blocks, and all else as scalars.

        Changes of basis are stored as scalars are, since an error there acts on the whole stream.
        """
        if "embed" in name or name.endswith("lm_head.weight"):
            return "embedding"
        return "matrix" if self.part_of(name) == "blocks" and tensor.ndim > 1 else "scalar"

    def part_of(self, name: str) -> str:
        """Name the component that a parameter is counted under."""
        if "embed" in name:
            return "embedding"
        if "_skip." in name:
            return "skips"
        return "blocks" if ".layers." in name else "head"

    def scheme_of(self, name: str, tensor: Tensor, export: ExportSettings) -> str:
        """Name the quantisation scheme of a stored tensor."""
        role = "scalar" if tensor.numel() <= export.small_numel else self.role_of(name, tensor)
        return {"embedding": export.embeddings, "matrix": export.matrices, "scalar": export.scalars}[role]

    def param_groups(self, network: nn.Module) -> Sequence[ParamGroup]:
        """Group the parameters by role; nothing trains them, but plans count by role."""
        names = defaultdict[Role, list[str]](list)
        for name, parameter in network.named_parameters():
            names[self.role_of(name, parameter)].append(name)
        return [ParamGroup(role=role, names=tuple(group)) for role, group in names.items()]

    def count_params(self, network: nn.Module) -> ParamCounts:
        """Count dense equivalents, parts, and what a token multiplies: a row of each table, a tied head its table."""
        parts = Counter[str]()
        for name, parameter in network.named_parameters():
            parts[self.part_of(name)] += parameter.numel()
        residual = cast(PretrainedNetwork, network).residual
        effective, active = self._count(network, set())
        rows = sum(embedding.num_embeddings - 1 for embedding in residual.embeddings) * residual.width
        head = residual.tables[0].numel() if residual.is_tied else 0
        return ParamCounts(effective=effective, active=active - rows + head, parts=dict(parts))

    def _count(self, module: nn.Module, seen: set[int]) -> tuple[int, int]:
        """Count what a module stands for and multiplies by; parameters in `seen` were counted before."""
        if (known := self.dense_numbers(module)) is not None:
            return known
        own = {id(parameter): parameter.numel() for parameter in module.parameters(recurse=False)}
        effective = active = sum(numel for key, numel in own.items() if key not in seen)
        seen.update(own)
        for child in module.children():
            numbers = self._count(child, seen)
            effective, active = effective + numbers[0], active + numbers[1]
        return effective, active

    def flops_per_step(self, num_tokens: int) -> float:
        """Count forward and backward; no step is trained, so that nothing rests on it."""
        return 6.0 * self.count_params(self.build()).active * num_tokens

    def stored_tensors(self, network: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Yield name and values, in place, of each tensor of the file: tied ones once, empty ones not at all."""
        for name, parameter in network.named_parameters():
            if parameter.numel():
                yield name, parameter.detach()

    def export(self, network: nn.Module, export: ExportSettings) -> Sequence[PlannedTensor]:
        """Store each tensor under the scheme of its role."""
        return [
            PlannedTensor(
                name=name,
                value=tensor.float().cpu().numpy(),
                scheme=self.scheme_of(name, tensor, export),
                part=self.part_of(name),
            )
            for name, tensor in self.stored_tensors(network)
        ]

    def stored_shapes(self, network: nn.Module, export: ExportSettings) -> Iterator[tuple[tuple[int, ...], str]]:
        """Yield shape and scheme of each of the `stored_tensors`."""
        for name, tensor in self.stored_tensors(network):
            yield tuple(tensor.shape), self.scheme_of(name, tensor, export)

    def evaluate(self, tensors: Mapping[str, np.ndarray[Any, Any]]) -> PretrainedNetwork:
        """Rebuild the network from the decoded tensors.

        Raises:
            ArtifactError: a name is missing or too many, or a shape differs.
        """
        return fill_network(self.prepare(self.build(), tensors), tensors).eval()

    def prepare(self, network: PretrainedNetwork, tensors: Mapping[str, np.ndarray[Any, Any]]) -> PretrainedNetwork:
        """Adapt the network without numbers to shapes that only the file tells; by default there are none."""
        return network
