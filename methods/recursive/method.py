"""Recursive: few stored blocks, run several times, with what tells the passes and the tokens apart."""

from __future__ import annotations

from torch import Tensor

from harness.backbone import BackboneMethod
from harness.method import ExportSettings, ParamCounts, Role
from harness.nn.network import Network
from methods.recursive import counting
from methods.recursive.network import RecursiveTransformer
from methods.recursive.settings import RecursiveSettings

_PARTS = {
    "body.skip_weights": "skips",
    "body.loop_vectors": "loop_vectors",
    "body.gate.": "gate",
    "condition.": "hash_embedding",
    "smear.": "smear_gate",
    "value_embedding.": "value_embedding",
}


class Recursive(BackboneMethod):
    """Runs shared blocks in loops."""

    settings_class = RecursiveSettings
    settings: RecursiveSettings

    def build(self) -> RecursiveTransformer:
        """Make the network with fresh weights."""
        return RecursiveTransformer(self.settings, self.task)

    @property
    def cost_period(self) -> int:
        """With a cadence, so many steps, of which one fires every loop."""
        return self.settings.cadence if self.settings.uses_cadence else 1

    def role_of(self, name: str) -> Role:
        """Tables are embeddings, projections and the gate's map matrices; the rest is as in the backbone."""
        if name.startswith(("condition.", "value_embedding.", "body.gate.")):
            return "embedding" if name.endswith(".table") else "matrix" if name.endswith(".weight") else "scalar"
        return super().role_of(name)

    def part_of(self, name: str) -> str:
        """Name the component; shared blocks apart from those that run once."""
        for prefix, part in _PARTS.items():
            if name.startswith(prefix):
                return part
        if name.startswith("blocks."):
            if name.endswith(".value_scale"):
                return "value_scales"
            return "flat_blocks" if int(name.split(".")[1]) < self.settings.flat_blocks else "shared_blocks"
        return super().part_of(name)

    def scheme_of(self, name: str, tensor: Tensor, export: ExportSettings) -> str:
        """Name the scheme of a stored tensor; `gate_scheme` has the first word on the gate's matrix."""
        if name == "body.gate.mix.weight" and self.settings.gate_scheme:
            return self.settings.gate_scheme
        return super().scheme_of(name, tensor, export)

    def count_params(self, network: Network) -> ParamCounts:
        """Count what runs at evaluation, with loops, and what is trained by component."""
        return ParamCounts(
            effective=counting.effective_params(self.settings, **self._sizes),
            active=counting.active_params(self.settings, **self._sizes),
            parts=super().count_params(network).parts,
        )

    def flops_per_step(self, num_tokens: int) -> float:
        """Count the operations of forward and backward, the mean over the steps of a cadence."""
        return counting.training_flops(self.settings, num_tokens=num_tokens, **self._sizes)


METHOD = Recursive
