"""What methods on the shared backbone have in common: roles, counts, export. They add where weights come from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from harness.artifact.container import PlannedTensor
from harness.method import ExportSettings, Method, ParamCounts, ParamGroup, Role, Settings, copy_tensors
from harness.nn import counting
from harness.nn.config import BackboneConfig
from harness.nn.network import Network


class BackboneSettings(Settings, BackboneConfig):
    """Model settings of a method on the shared backbone: the backbone's keys; subclasses add their own."""


class BackboneMethod(Method):
    """A method whose network is a `harness.nn.transformer.Transformer`; subclasses write `build`.

    The methods that take a name say how one parameter is trained, counted and stored; subclasses refine them for
    the parameters that they add.
    """

    settings: BackboneSettings

    def role_of(self, name: str) -> Role:
        """Return the role of a parameter: weights in blocks are matrices, tables and heads embeddings."""
        if name.startswith(("embedding.", "head.", "positions")):
            return "embedding"
        if name.startswith("blocks.") and name.endswith(".weight") and "_norm." not in name:
            return "matrix"
        return "scalar"

    def lr_factor(self, name: str, parameter: Tensor) -> float | tuple[float, ...]:
        """Return the learning-rate factor of a parameter, or one for each index of its leading dimension."""
        return 1.0

    def part_of(self, name: str) -> str:
        """Name the component that a parameter or stored tensor is counted under."""
        return {"embedding": "embedding", "matrix": "blocks", "scalar": "scalars"}[self.role_of(name)]

    def scheme_of(self, name: str, tensor: Tensor, export: ExportSettings) -> str:
        """Name the quantisation scheme of a stored tensor."""
        role = "scalar" if tensor.numel() <= export.small_numel else self.role_of(name)
        return {"embedding": export.embeddings, "matrix": export.matrices, "scalar": export.scalars}[role]

    def stored_tensors(self, network: Network) -> Iterator[tuple[str, Tensor]]:
        """Yield name and values, in place, of each tensor that the artifact holds; tied ones once."""
        for name, parameter in network.named_parameters():
            yield name, parameter.detach()

    def param_groups(self, network: Network) -> Sequence[ParamGroup]:
        """Group the parameters by role and learning-rate factor."""
        names = defaultdict[tuple[Role, float | tuple[float, ...]], list[str]](list)
        for name, parameter in network.named_parameters():
            names[self.role_of(name), self.lr_factor(name, parameter)].append(name)
        return [ParamGroup(role=role, names=tuple(group), lr_factor=factor) for (role, factor), group in names.items()]

    def count_params(self, network: Network) -> ParamCounts:
        """Count what runs by the formulas of the backbone, and what is trained by component."""
        parts = Counter[str]()
        for name, parameter in network.named_parameters():
            parts[self.part_of(name)] += parameter.numel()
        return ParamCounts(
            effective=counting.effective_params(self.settings, **self._sizes),
            active=counting.active_params(self.settings, **self._sizes),
            parts=dict(parts),
        )

    def flops_per_step(self, num_tokens: int) -> float:
        """Count the operations of forward and backward through the backbone."""
        return counting.training_flops(self.settings, num_tokens=num_tokens, **self._sizes)

    def export(self, network: Network, export: ExportSettings) -> Sequence[PlannedTensor]:
        """Store each tensor under the scheme of its role, small ones under that of scalars."""
        return [
            PlannedTensor(
                name=name,
                value=tensor.float().cpu().numpy(),
                scheme=self.scheme_of(name, tensor, export),
                part=self.part_of(name),
            )
            for name, tensor in self.stored_tensors(network)
        ]

    def stored_shapes(self, network: Network, export: ExportSettings) -> Iterator[tuple[tuple[int, ...], str]]:
        """Yield shape and scheme of each of the `stored_tensors`."""
        for name, tensor in self.stored_tensors(network):
            yield tuple(tensor.shape), self.scheme_of(name, tensor, export)

    def load_stored(self, network: Network, tensors: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Copy decoded tensors to where `stored_tensors` finds them.

        Raises:
            ArtifactError: a name is missing or too many, or a shape differs.
        """
        copy_tensors(dict(self.stored_tensors(network)), tensors)

    def evaluate(self, tensors: Mapping[str, np.ndarray[Any, Any]]) -> Network:
        """Build the network and fill in the decoded tensors.

        Raises:
            ArtifactError: a name is missing or too many, or a shape differs.
        """
        network = self.build()
        self.load_stored(network, tensors)
        return network.eval()

    @property
    def _sizes(self) -> dict[str, int]:
        return {"vocab_size": self.task.vocab_size, "context": self.task.context}
