"""A pretrained model as the start of a run: its configuration, tokenizer and weights, read and checked once.

The hash covers the weights as numbers by name, so that it does not depend on how they were cut into files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.data.model_tokenizer import ModelTokenizer, make_blob
from harness.data.tokenizers import ByteTokenizer, Tokenizer
from harness.errors import DataError, RecordError, UsageError
from harness.pretrained.architecture import describe_config
from harness.pretrained.load import load_pretrained, locate, read_tokenizer
from harness.records.schema import AncestorPart

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Tables are padded to rows that are never tokens: by a few hundred as a rule.
_MAX_SPARE_ROWS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedSource:
    """What a run starts from.

    Attributes:
        name: as the user gave it.
        architecture: what its function depends on, as plain values.
        tokenizer: of the model, or the one asked for.
        model: in float32, on the CPU.
        sha256: of its weights.
    """

    name: str
    architecture: Mapping[str, Any]
    tokenizer: Tokenizer
    model: PreTrainedModel
    sha256: str

    @property
    def lineage(self) -> list[AncestorPart]:
        """The model as the only ancestor; nobody knows what its training cost."""
        name = self.name.rstrip("/").rpartition("/")[2] if locate(self.name).is_local else self.name
        return [AncestorPart(kind="pretrained", name=name, artifact_sha256=self.sha256, spent=None)]


def load_source(name: str, tokenizer: str | None = None) -> PretrainedSource:
    """Read a model and its tokenizer.

    Args:
        name: a folder in the hub's layout, a GGUF file, or a name on the hub.
        tokenizer: "bytes" for a model over bytes; None for the model's own.

    Raises:
        MissingExtraError: transformers is not installed.
        UsageError: no such model, its family cannot be rotated, or the tokenizer is not that of the model.
        RunError: a shard or tensors are missing, or weights are not numbers.
    """
    import torch

    model = load_pretrained(name, dtype=torch.float32)
    architecture = describe_config(model.config)
    found = _find_tokenizer(name, tokenizer, architecture)
    _check_vocabulary(name, found, int(architecture["vocab_size"]))
    return PretrainedSource(
        name=name, architecture=architecture, tokenizer=found, model=model, sha256=hash_weights(model)
    )


def reload_source(name: str, tokenizer: str | None, folder: object, lineage: list[AncestorPart]) -> PretrainedSource:
    """Read the model of a run that was begun before.

    Raises:
        RecordError: its weights are others now.
    """
    source = load_source(name, tokenizer)
    if not lineage or lineage[-1].artifact_sha256 != source.sha256:
        raise RecordError(f"{folder}: --model {name} is not the model that it was begun from (other weights)")
    return source


def hash_weights(model: PreTrainedModel) -> str:
    """Return the sha256 over a model's configuration and its parameters' names, shapes and float32 values, by name."""
    digest = hashlib.sha256(json.dumps(describe_config(model.config), sort_keys=True).encode())
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"\0{name}\0{tuple(parameter.shape)}\0".encode())
        digest.update(parameter.detach().float().contiguous().numpy().data)
    return digest.hexdigest()


def _find_tokenizer(name: str, asked: str | None, architecture: Mapping[str, Any]) -> Tokenizer:
    if asked == "bytes":
        return ByteTokenizer()
    if asked is not None:
        raise UsageError(f"--tokenizer {asked}: a pretrained model has its own; leave it out, or give bytes")
    content = read_tokenizer(name)
    try:
        return ModelTokenizer(make_blob(content, architecture.get("bos_token_id")))
    except DataError as error:
        raise UsageError(f"--model {name}: {error}") from error


def _check_vocabulary(name: str, tokenizer: Tokenizer, num_rows: int) -> None:
    if not num_rows - _MAX_SPARE_ROWS <= tokenizer.vocab_size <= num_rows:
        raise UsageError(
            f"--model {name}: its tokenizer has {tokenizer.vocab_size:,} tokens, its table {num_rows:,} rows: that is "
            "not its tokenizer. Put the right tokenizer.json beside the model"
        )
