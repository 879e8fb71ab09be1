"""The memory of a training step, counted on tensors that have none.

The real network runs forward and backward in torch's fake-tensor mode: operations work out shapes, none allocates. What
autograd keeps for the backward pass is seen by its own hooks, the height by how long each result
lives.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
        temporaries: what operations of forward and backward hold beyond that at their height.
        warm_up_copy: weights as they were, kept during the warm-up to undo it.
    """

    weights: int
    generated_weights: int
    gradients: int
    optimiser_state: int
    averages: int
    teacher: int
    activations: int | None
    temporaries: int
    warm_up_copy: int

    @property
    def peak(self) -> int:
        """Sum of all; what an allocator cannot use comes on top."""
        return sum(value or 0 for value in asdict(self).values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """Bytes of one forward and backward pass, weights left out.

    Attributes:
        saved: what autograd keeps from forward to backward, each piece of memory once.
        height: the most that is held at a time, gradients included.
    """

    saved: int
    height: int


def height_of(run: Callable[[], object]) -> int:
    """Return the most bytes that results of operations hold at a time while a call runs; kernels' own is not seen."""
    with _LiveBytes() as live:
        run()
    height: int = live.height
    return height


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the memory of the results of operations for as long as each is held; also of gradients."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.height = 0
        self._live = 0
        self._watched: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in known:
                self._watch(leaf.untyped_storage())
        self.height = max(self.height, self._live)
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, num_bytes = storage._cdata, storage.nbytes()
        if key in self._watched:
            return

        def forget(_: object) -> None:
            del self._watched[key]
            self._live -= num_bytes

        self._watched[key] = weakref.ref(storage, forget)
        self._live += num_bytes


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
        found = _measure_micro_batch(network, leaves, recipe, method, device_type)
        return Footprint(
            weights=_total_bytes([*own, *network.buffers()]),
            generated_weights=sum(_storages(leaves)[key] for key in generated),
            gradients=leaf_bytes * num_gradient_lists(recipe.num_micro_batches),
            optimiser_state=optimiser_state_bytes(network, method.param_groups(network), recipe),
            averages=4 * numbers if recipe.ema_decay or recipe.swa_start else 0,
            teacher=_total_bytes(own) if recipe.distill_start else 0,
            activations=found.saved if found else None,
            temporaries=max(0, found.height - found.saved - leaf_bytes) if found else 0,
            warm_up_copy=_total_bytes(own),
        )


def num_gradient_lists(num_micro_batches: int) -> int:
    """Return how many lists of gradients are held at most while one is made: `TreeSum` is a binary counter.

    After k micro-batches it holds as many lists as k has ones in binary; before the last of n that is at most
    floor(log2 n).
    """
    return num_micro_batches.bit_length()


def measure_pass(network: Network, leaves: Sequence[Tensor], tokens_BT: Tensor, recipe: Recipe) -> Pass:
    """Count the bytes of one forward and backward pass.

    Args:
        network: in training mode, between `begin_step` and `finish_step`.
        leaves: of `begin_step`.
        tokens_BT: token ids of one micro-batch, on the processor; may be fake.
        recipe: says the number format.
    """
    held = _storages([*network.parameters(), *network.buffers(), *leaves]).keys()
    kept: dict[int, torch.UntypedStorage] = {}  # holds the storages, so that no address is used twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in held:
            kept[storage._cdata] = storage
        return tensor

    with _LiveBytes() as live:
        with (
            saved_tensors_hooks(note, lambda tensor: tensor),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.precision == "bfloat16"),
        ):
            loss = network.loss(tokens_BT, tokens_BT)
        saved = sum(storage.nbytes() for storage in kept.values())
        kept.clear()
        torch.autograd.grad(loss, leaves)
    return Pass(saved=saved, height=live.height)


def _measure_micro_batch(
    network: Network, leaves: Sequence[Tensor], recipe: Recipe, method: Method, device_type: str
) -> Pass | None:
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

    tokens_BT = torch.zeros(recipe.micro_batch_sequences, recipe.context, dtype=torch.int64)
    with ExitStack() as stack:
        if device_type != "cpu":
            stack.enter_context(_gpu_attention(method, recipe))
        try:
            return measure_pass(network, leaves, tokens_BT, recipe)
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
