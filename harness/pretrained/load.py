"""Load a Hugging Face model from a folder in the hub's layout, a GGUF file or the hub, running no code of its own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.errors import RunError, UsageError, missing_extra
from harness.pretrained.families import find_family

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def load_pretrained(source: str, *, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Load a causal language model whose family is known, for evaluation, on the CPU.

    Args:
        source: a folder with `config.json` and safetensors files (in one or many shards), a GGUF file, or a hub name.
        dtype: of its weights; by default that of the file.

    Raises:
        MissingExtraError: transformers is not installed.
        UsageError: there is no such model, or its family cannot be rotated.
        RunError: a shard is missing, tensors are missing, or weights are not numbers.
    """
    if importlib.util.find_spec("transformers") is None:
        raise missing_extra("a pretrained model", "hf")
    from transformers import AutoConfig, AutoModelForCausalLM

    where, options = _place(source)
    try:
        config = AutoConfig.from_pretrained(where, trust_remote_code=False, **options)
    except ImportError as error:
        raise UsageError(f"--model {source}: another package is needed ({_first_line(error)})") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"--model {source}: no readable configuration ({_first_line(error)})") from error
    find_family(config)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            where,
            config=config,
            dtype=dtype or "auto",
            trust_remote_code=False,
            use_safetensors=None if "gguf_file" in options else True,
            attn_implementation="sdpa",
            output_loading_info=True,
            **options,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise RunError(f"--model {source}: weights cannot be read ({_first_line(error)}). Fetch them again") from error
    model, report = loaded
    _check(source, model, report)
    return cast("PreTrainedModel", model.eval())


def _place(source: str) -> tuple[str, dict[str, Any]]:
    """Return what transformers is to load from, and the options that go with it."""
    path = Path(source)
    if path.is_file() and path.suffix == ".gguf":
        return str(path.parent), {"gguf_file": path.name, "local_files_only": True}
    return source, {"local_files_only": path.is_dir()}


def _check(source: str, model: PreTrainedModel, report: dict[str, Any]) -> None:
    if absent := sorted(report["missing_keys"]):
        raise RunError(f"--model {source}: {len(absent)} tensors are missing, such as {absent[0]}. Fetch it again")
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise RunError(f"--model {source}: {name} holds values that are not finite. Fetch it again")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
