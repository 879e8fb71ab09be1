"""The memory of a training step, counted on tensors that have none.

The real network runs forward in torch's fake-tensor mode: every operation works out shapes, none allocates. What
autograd keeps for the backward pass is seen by its own hooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.method import Method
from harness.nn.config import BackboneConfig
from harness.nn.kernels import kernels_of
from harness.nn.network import Network
from harness.training.optim import optimiser_state_bytes
from harness.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """Bytes that a step holds at its height, by what they are for.

    Attributes:
        weights: parameters and buffers.
        generated_weights: weights that are generated from parameters once a step.
        gradients: of the micro-batch at hand, and partial sums of earlier ones.
        optimiser_state: momenta and second moments.
        averages: the average of the weights that is exported, where one is taken.
        teacher: frozen weights of self-distillation.
        activations: what autograd keeps of one micro-batch; None where the network cannot run without data.
    """

    weights: int
    generated_weights: int
    gradients: int
    optimiser_state: int
    averages: int
    teacher: int
    activations: int | None

    @property
    def peak(self) -> int:
        """Sum of all; temporaries and what an allocator cannot use come on top."""
        parts = (self.weights, self.generated_weights, self.gradients, self.optimiser_state, self.averages)
        return sum(parts) + self.teacher + (self.activations or 0)


def measure_footprint(method: Method, recipe: Recipe, device_type: str) -> Footprint:
    """Count the memory of a training step; none is allocated.

    Args:
        method: at its settings.
        recipe: of the run, its precision resolved.
        device_type: "cpu" or "cuda", whose kernels and number formats are assumed. On a GPU attention is flash
            attention, or in float32 with fewer key than query heads, the plain formula, as torch chooses.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), kernels_of(device_type):
        network = method.build().train()
        own = list(network.parameters())
        numbers = sum(parameter.numel() for parameter in own)
        leaves = network.begin_step()
        generated = _storages(leaves).keys() - _storages(own).keys()
        leaf_bytes = sum(leaf.numel() * leaf.element_size() for leaf in leaves)
        return Footprint(
            weights=_total_bytes([*own, *network.buffers()]),
            generated_weights=sum(_storages(leaves)[key] for key in generated),
            gradients=leaf_bytes * num_gradient_lists(recipe.num_micro_batches),
            optimiser_state=optimiser_state_bytes(network, method.param_groups(network), recipe),
            averages=4 * numbers if recipe.ema_decay or recipe.swa_start else 0,
            teacher=_total_bytes(own) if recipe.distill_start else 0,
            activations=_activation_bytes(network, leaves, recipe, method, device_type),
        )


def num_gradient_lists(num_micro_batches: int) -> int:
    """Return how many lists of gradients are held at most while one is made: `TreeSum` is a binary counter.

    After k micro-batches it holds as many lists as k has ones in binary; before the last of n that is at most
    floor(log2 n).
    """
    return num_micro_batches.bit_length()


def saved_bytes(network: Network, leaves: Iterable[Tensor], tokens_BT: Tensor, recipe: Recipe) -> int:
    """Count the bytes that autograd keeps of one forward pass, each piece of memory once, weights left out.

    Args:
        network: in training mode, between `begin_step` and `finish_step`.
        leaves: of `begin_step`.
        tokens_BT: token ids of one micro-batch, on the processor; may be fake.
        recipe: says the number format.
    """
    held = _storages([*network.parameters(), *network.buffers(), *leaves]).keys()
    kept: dict[int, torch.UntypedStorage] = {}  # keeps the storages, so that no address is used twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in held:
            kept[storage._cdata] = storage
        return tensor

    with (
        saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.precision == "bfloat16"),
    ):
        loss = network.loss(tokens_BT, tokens_BT)
    num_bytes = sum(storage.nbytes() for storage in kept.values())
    del loss
    return num_bytes


def _activation_bytes(
    network: Network, leaves: Iterable[Tensor], recipe: Recipe, method: Method, device_type: str
) -> int | None:
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

    tokens_BT = torch.zeros(recipe.micro_batch_sequences, recipe.context, dtype=torch.int64)
    with ExitStack() as stack:
        if device_type != "cpu":
            stack.enter_context(_gpu_attention(method, recipe))
        try:
            return saved_bytes(network, leaves, tokens_BT, recipe)
        except (DataDependentOutputException, DynamicOutputShapeException):
            return None


@contextmanager
def _gpu_attention(method: Method, recipe: Recipe) -> Iterator[None]:
    settings = method.settings
    is_grouped = isinstance(settings, BackboneConfig) and settings.num_kv_heads < settings.num_heads
    is_plain = recipe.precision == "float32" and is_grouped
    with sdpa_kernel(SDPBackend.MATH if is_plain else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
        yield


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    storages = [tensor.untyped_storage() for tensor in tensors]
    return {storage._cdata: storage.nbytes() for storage in storages}


def _total_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(_storages(tensors).values())
