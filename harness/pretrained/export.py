"""A record of a pretrained model written as a folder that its library loads, with nothing of ours in it."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.data.model_tokenizer import ModelTokenizer
from harness.errors import RunError, UsageError
from harness.loading import LoadedArtifact, load_artifact
from harness.pretrained.architecture import make_empty_model
from harness.pretrained.load import load_pretrained, without_bars
from harness.pretrained.network import PretrainedNetwork
from harness.pretrained.unrotate import dense_state, fit_state, needed_changes
from harness.records.native import ARTIFACT_FILE, read_record

_COMPARED_WINDOWS, _COMPARED_TOKENS = 4, 128
# Of the largest logit: rounding stays below the first; beyond the second the folder is another model than the record.
NEGLIGIBLE, MOST = 1e-4, 1e-2


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        folder: where.
        difference: largest difference between the logits of the folder and of the record.
        largest: largest logit of the record, in size.
        num_params: of the folder, all dense.
        has_tokenizer: whether the tokenizer is there, too.
    """

    folder: Path
    difference: float
    largest: float
    num_params: int
    has_tokenizer: bool

    @property
    def relative(self) -> float:
        """The difference as a part of the largest logit."""
        return self.difference / self.largest


def export_record(record: Path, folder: Path) -> Exported:
    """Write the network of a record as a folder for `transformers.AutoModelForCausalLM.from_pretrained`.

    Args:
        record: folder of a record that started from a pretrained model.
        folder: made; must not exist or be empty.

    Raises:
        UsageError: the record is none of a pretrained model, or the folder holds something.
        RunError: the folder would compute something else than the record.
    """
    found = read_record(record)
    if not found.is_pretrained:
        raise UsageError(
            f"{record}: a network of '{found.method.name}' on the shared backbone has no Hugging Face architecture; "
            "give a record of a pretrained model (harness run --model)"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty; choose another folder")
    loaded = load_artifact(record / ARTIFACT_FILE)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        made = Path(scratch, "model")
        exported = _write(loaded, made, folder)
        if not exported.relative <= MOST:
            raise RunError(
                f"{record}: as a Hugging Face model its logits would differ by {exported.relative:.2g} of the largest, "
                "since its bases are stored too coarsely to cancel. Nothing was written; store them finer "
                "(--set export.scalars=fp32)"
            )
        if folder.exists():
            folder.rmdir()
        shutil.move(made, folder)
    return exported


def _write(loaded: LoadedArtifact, made: Path, folder: Path) -> Exported:
    network = loaded.network
    assert isinstance(network, PretrainedNetwork), "records of pretrained models have such networks"
    tokens_BT = _draw_tokens(loaded)
    with torch.no_grad():
        expected = network(tokens_BT)
    architecture = loaded.artifact.meta["settings"]["model"]["architecture"]
    state = dense_state(network.residual)
    model = make_empty_model(needed_changes(architecture, state))
    model.load_state_dict(fit_state(state, model.state_dict()), assign=True)
    with without_bars():
        model.save_pretrained(made)
    has_tokenizer = isinstance(loaded.tokenizer, ModelTokenizer)
    if isinstance(loaded.tokenizer, ModelTokenizer):
        _write_tokenizer(loaded.tokenizer, model.config, made)
    again = load_pretrained(str(made), dtype=torch.float32)
    with torch.no_grad():
        logits = again(input_ids=tokens_BT).logits
    return Exported(
        folder=folder,
        difference=float((logits - expected).abs().max()),
        largest=float(expected.abs().max()),
        num_params=sum(parameter.numel() for parameter in again.parameters()),
        has_tokenizer=has_tokenizer,
    )


def _draw_tokens(loaded: LoadedArtifact) -> torch.Tensor:
    task = loaded.method.task
    shape = (_COMPARED_WINDOWS, min(task.context, _COMPARED_TOKENS))
    return torch.randint(task.vocab_size, shape, generator=torch.Generator().manual_seed(0))


def _write_tokenizer(tokenizer: ModelTokenizer, config: Any, folder: Path) -> None:
    """Write `tokenizer.json` as it was, and which class reads it with which special tokens."""
    (folder / "tokenizer.json").write_bytes(tokenizer.json)
    vocabulary = {token: piece for piece, token in tokenizer.vocabulary().items()}
    special = {}
    for name in ("bos_token", "eos_token", "pad_token"):
        token = getattr(config, f"{name}_id", None)
        if isinstance(token, int) and token in vocabulary:
            special[name] = vocabulary[token]
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
