"""What a run will do, said before it starts: sizes, operations, epochs, expected bytes and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.artifact.quantize import parse_scheme
from harness.errors import RunError
from harness.method import Method, ParamCounts
from harness.settings import RunSettings
from harness.training.budget import Budget

if TYPE_CHECKING:
    from harness.data.shards import TokenData
    from harness.nn.network import Network

MAX_EPOCHS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The figures printed before a run.

    Attributes:
        params: parameters as the network runs them.
        num_params_trained: trainable parameters.
        flops_per_step: analytic operations of one optimiser step: forward, backward, generation and optimiser.
        tokens_per_step: tokens of one optimiser step.
        train_tokens: tokens of one epoch of the training split; None where the corpus is not there.
        max_steps: steps of a step, token or FLOP budget; None for a budget in seconds.
        expected_artifact_bytes: trained parameters at the width of their scheme, before entropy coding.
        training_bytes: memory that training holds all the time, activations apart; 0 where nothing is trained.
    """

    params: ParamCounts
    num_params_trained: int
    flops_per_step: float
    tokens_per_step: int
    train_tokens: int | None
    max_steps: int | None
    expected_artifact_bytes: int
    training_bytes: int

    def epochs(self, steps: float) -> float:
        """Passes over the training split, which must be known, in `steps` steps."""
        assert self.train_tokens is not None, "nobody asks for epochs of a corpus that is not there"
        return steps * self.tokens_per_step / self.train_tokens


def make_plan(
    method: Method, settings: RunSettings, budget: Budget, data: TokenData | None, *, is_trained: bool = True
) -> Plan:
    """Build the network on the meta device (no memory, no time) and count.

    Args:
        method: at its settings.
        settings: of the run.
        budget: of the run.
        data: the corpus; None for a plan that is made where it is not.
        is_trained: False where a pretrained model is compressed, which takes no steps.

    Raises:
        RunError: a step, token or FLOP budget does not hold a single optimiser step; sizes are beyond 64 bits.
    """
    from harness.training.optim import optimiser_flops, training_bytes
    from harness.training.phases import teacher_flops

    network = build_on_meta(method)
    recipe = settings.train
    groups = method.param_groups(network)
    network_flops = method.flops_per_step(recipe.batch_tokens) if is_trained else 0.0
    flops = network_flops + optimiser_flops(network, groups, recipe) if is_trained else 0.0
    max_steps = budget.max_steps(recipe.batch_tokens, flops, teacher_flops(recipe.model_dump(), network_flops))
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
        train_tokens=data.train.num_tokens if data is not None else None,
        max_steps=max_steps,
        expected_artifact_bytes=round(total_bits / 8),
        training_bytes=training_bytes(network, groups, recipe) if is_trained else 0,
    )


def build_on_meta(method: Method) -> Network:
    """Build the network without memory, to count it.

    Raises:
        RunError: sizes are beyond 64 bits.
    """
    import torch

    try:
        with torch.device("meta"):
            return method.build()
    except RuntimeError as error:
        if "overflow" not in str(error):
            raise
        raise RunError(f"the network is larger than any memory ({error}): choose smaller --set options") from error


def device_memory_bytes(device: str) -> int:
    """Return the memory of a torch device, or of the machine where that is the processor, used or not."""
    if device == "cpu":
        import psutil

        return int(psutil.virtual_memory().total)
    import torch

    return int(torch.cuda.mem_get_info(device)[1])


def check_memory(plan: Plan, preset: str, device: str) -> None:
    """Refuse, before anything is allocated, a model that the whole memory cannot hold.

    Raises:
        RunError: says what it needs and what there is.
    """
    memory_bytes = device_memory_bytes(device)
    if plan.training_bytes > memory_bytes:
        raise RunError(
            f"{plan.num_params_trained:,} parameters take {plan.training_bytes / 1e9:,.1f} GB with gradients and "
            f"optimiser state, {device} has {memory_bytes / 1e9:,.1f} GB: choose a smaller model than preset "
            f"'{preset}' with these --set options"
        )


def memory_advice(plan: Plan, preset: str, device: str) -> str:
    """Say what helps a run that had not enough memory: a smaller model where that fills it, else a smaller batch."""
    if plan.training_bytes > device_memory_bytes(device) / 2:
        size_gb = plan.training_bytes / 1e9
        return f"the model of preset '{preset}' takes {size_gb:,.1f} GB of it: use a smaller preset or size"
    return "halve --set train.micro_batch_tokens"
