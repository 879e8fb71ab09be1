"""From an artifact file to a network that runs, without trust in its header.

Letters: R windows of a probe, T tokens of a window, V token ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from harness.artifact.container import Artifact
from harness.artifact.header import FLOAT_BYTES
from harness.data.tokenizers import Tokenizer, tokenizer_from_blob
from harness.errors import ArtifactError, MissingExtraError, UsageError
from harness.method import Method, Task
from harness.nn.network import Network
from harness.registry import find_method

# A network may hold more than what is stored: ties counted twice, tables of positions, masks.
_SPARE_NETWORK_BYTES = 256 << 20
_NETWORK_BYTES_PER_DECODED = 4
_MAX_MODULES = 1 << 16
# Logits of the same numbers in the same shape differ by rounding only, far less than this.
_LOOK_AHEAD_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedArtifact:
    """An artifact decoded to something that runs."""

    artifact: Artifact
    method: Method
    network: Network
    tokenizer: Tokenizer


def load_artifact(path: Path, device: str = "cpu") -> LoadedArtifact:
    """Decode an artifact file into its network and tokenizer.

    Raises:
        ArtifactError: the file is damaged, or its header does not make a model of the method it names.
        UsageError: the method it names is not installed.
    """
    artifact = Artifact.open(path)
    with _blaming(path):
        meta = artifact.meta
        name, model, sizes, kind = meta["method"], meta["settings"]["model"], meta["task"], meta["tokenizer"]["kind"]
        task = Task(vocab_size=int(sizes["vocab_size"]), context=int(sizes["context"]))
    # Outside: a method that this machine lacks is no fault of the file.
    method_class = find_method(str(name)).load(pretrained=artifact.meta.get("pretrained") is True)
    with _blaming(path):
        tokenizer = tokenizer_from_blob(str(kind), artifact.blob("tokenizer"))
        if not 1 <= tokenizer.vocab_size <= task.vocab_size or task.context < 1:
            raise ArtifactError(f"{task} does not fit a tokenizer of {tokenizer.vocab_size} tokens")
        settings = method_class.settings_class.model_validate(model)
        with torch.device("meta"), _bounded_network(artifact):
            method_class(settings, task).build()
        method = method_class(settings, task)
        network = method.evaluate(artifact.decode_tensors())
    return LoadedArtifact(artifact=artifact, method=method, network=network.to(device).eval(), tokenizer=tokenizer)


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Turn what a wrong header makes of our code and a plugin's into the fault of the file that it is."""
    try:
        yield
    except MissingExtraError:
        raise
    except ArtifactError as error:
        told = str(error)
        raise ArtifactError(told if told.startswith(str(path)) else f"{path}: {told}") from error
    except (UsageError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
        told = " ".join(f"{kind}{error}".split())
        raise ArtifactError(f"{path}: its header does not describe a model ({told})") from error


@contextmanager
def _bounded_network(artifact: Artifact) -> Iterator[None]:
    """Refuse a network far larger than what is stored, while it is built on the meta device and costs nothing."""
    decoded_bytes = sum(entry.num_numbers for entry in artifact.entries) * FLOAT_BYTES
    max_bytes = _SPARE_NETWORK_BYTES + _NETWORK_BYTES_PER_DECODED * decoded_bytes
    num_bytes = num_modules = 0

    def note_tensor(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal num_bytes
        num_bytes += 0 if tensor is None else tensor.nbytes
        if num_bytes > max_bytes:
            raise ArtifactError(f"describes a network of over {max_bytes} bytes, but stores {decoded_bytes}")

    def note_module(module: nn.Module, name: str, child: nn.Module | None) -> None:
        nonlocal num_modules
        num_modules += 1
        if num_modules > _MAX_MODULES:
            raise ArtifactError(f"describes a network of over {_MAX_MODULES} modules")

    with ExitStack() as hooks:
        handles: list[Any] = [
            register_module_parameter_registration_hook(note_tensor),
            register_module_buffer_registration_hook(note_tensor),
            register_module_module_registration_hook(note_module),
        ]
        for handle in handles:
            hooks.callback(handle.remove)
        yield


@torch.no_grad()
def check_causal(network: Network, *, vocab_size: int, context: int) -> None:
    """Check that logits do not depend on later tokens: windows of random tokens, equal up to a position.

    Args:
        network: on its device, in evaluation mode.
        vocab_size: number of token ids.
        context: tokens of a window.

    Raises:
        ArtifactError: they do, so that scores would say nothing.
    """
    positions = sorted({1, context // 3, context // 2 + 1, context - 1} & set(range(1, context)))
    if not positions or vocab_size < 2:
        return
    generator = torch.Generator().manual_seed(0)
    first_T = torch.randint(vocab_size, (context,), generator=generator)
    other_T = (first_T + torch.randint(1, vocab_size, (context,), generator=generator)) % vocab_size
    rows = [first_T, *(torch.cat((first_T[:position], other_T[position:])) for position in positions)]
    logits_RTV = network(torch.stack(rows).to(next(network.parameters()).device), last=context)
    for row, position in enumerate(positions, start=1):
        apart = float((logits_RTV[row, :position] - logits_RTV[0, :position]).abs().max())
        if apart > _LOOK_AHEAD_TOLERANCE:
            raise ArtifactError(
                f"the network looks ahead: logits before position {position} move by {apart:.3g} with tokens after it"
            )
