"""What a run will do, said before it starts: sizes, operations, epochs, expected bytes and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.artifact.quantize import parse_scheme
from harness.method import Method, ParamCounts
from harness.settings import RunSettings
from harness.training.budget import Budget

if TYPE_CHECKING:
    from harness.data.shards import TokenData

MAX_EPOCHS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The figures printed before a run.

    Attributes:
        params: parameters as the network runs them.
        num_params_trained: trainable parameters.
        flops_per_step: analytic operations of one optimiser step: forward, backward, generation and optimiser.
        tokens_per_step: tokens of one optimiser step.
        train_tokens: tokens of one epoch of the training split.
        max_steps: steps of a step, token or FLOP budget; None for a budget in seconds.
        expected_artifact_bytes: trained parameters at the width of their scheme, before entropy coding.
    """

    params: ParamCounts
    num_params_trained: int
    flops_per_step: float
    tokens_per_step: int
    train_tokens: int
    max_steps: int | None
    expected_artifact_bytes: int

    def epochs(self, steps: float) -> float:
        """Passes over the training split in `steps` steps."""
        return steps * self.tokens_per_step / self.train_tokens


def make_plan(method: Method, settings: RunSettings, budget: Budget, data: TokenData) -> Plan:
    """Build the network on the meta device (no memory, no time) and count.

    Raises:
        RunError: a step, token or FLOP budget does not hold a single optimiser step.
    """
    import torch

    from harness.training.optim import optimiser_flops

    with torch.device("meta"):
        network = method.build()
    recipe = settings.train
    groups = method.param_groups(network)
    flops = method.flops_per_step(recipe.batch_tokens) + optimiser_flops(network, groups, recipe)
    max_steps = budget.max_steps(recipe.batch_tokens, flops)
    bits = {
        "matrix": parse_scheme(settings.export.matrices).bits,
        "embedding": parse_scheme(settings.export.embeddings).bits,
        "scalar": parse_scheme(settings.export.scalars).bits,
    }
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    total_bits = sum(bits[group.role] * sizes[name] for group in groups for name in group.names)
    return Plan(
        params=method.count_params(network),
        num_params_trained=sum(sizes.values()),
        flops_per_step=flops,
        tokens_per_step=recipe.batch_tokens,
        train_tokens=data.train.num_tokens,
        max_steps=max_steps,
        expected_artifact_bytes=round(total_bits / 8),
    )
