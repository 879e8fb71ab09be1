"""Load a Hugging Face model from a folder in the hub's layout, a GGUF file or the hub, running no code of its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.errors import HarnessError, RunError, UsageError, missing_extra
from harness.pretrained.families import find_family, find_odd_size

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
        UsageError: there is no such model, its family cannot be rotated, or its sizes are those of no model.
        RunError: a shard is missing, tensors are missing or too many, or weights are not numbers.
    """
    if importlib.util.find_spec("transformers") is None:
        raise missing_extra("a pretrained model", "hf")
    from transformers import AutoConfig, AutoModelForCausalLM

    location = locate(source)
    where, options = location.where, location.options
    if "gguf_file" in options and not all(importlib.util.find_spec(name) for name in ("gguf", "accelerate")):
        raise missing_extra("a GGUF file", "hf")
    try:
        config = AutoConfig.from_pretrained(where, trust_remote_code=False, **options)
    except ImportError as error:
        raise UsageError(f"--model {source}: another package is needed ({_first_line(error)})") from error
    except Exception as error:  # a configuration of wrong types raises whatever its class raises
        way_out = "" if location.is_local else ". Give a folder in the hub's layout where the hub cannot be reached"
        raise UsageError(f"--model {source}: no readable configuration ({_first_line(error)}){way_out}") from error
    find_family(config)
    _check_config(source, config)
    try:
        with without_bars():
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
    except (HarnessError, MemoryError):
        raise
    except ImportError as error:
        raise UsageError(f"--model {source}: another package is needed ({_first_line(error)})") from error
    except Exception as error:  # readers of the formats raise kinds of their own, wrong shapes a mere hint at an option
        why = "shapes are not those of its config.json" if "mismatched" in str(error) else _first_line(error)
        raise RunError(f"--model {source}: weights cannot be read ({why}). Fetch them again") from error
    model, report = loaded
    _check(source, model, report)
    return cast("PreTrainedModel", model.eval())


@dataclass(frozen=True, slots=True)
class Location:
    """Where transformers is to load from, and the options that go with it."""

    where: str
    options: Mapping[str, Any]

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine, so that nothing is fetched."""
        return bool(self.options["local_files_only"])


def locate(source: str) -> Location:
    """Say where a model lies: a GGUF file, a plain folder, a folder of the hub's cache, or else the hub.

    Raises:
        UsageError: a path to nothing, or a folder of the hub's cache without the snapshot that it names.
    """
    path = Path(source)
    if not path.exists() and (source.endswith(".gguf") or source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise UsageError(f"--model {source}: no such file or folder")
    if path.is_file() and path.suffix == ".gguf":
        return Location(str(path.parent), {"gguf_file": path.name, "local_files_only": True})
    if not path.is_dir():
        return Location(source, {"local_files_only": False})
    if (path / "snapshots").is_dir() and not (path / "config.json").is_file():
        path = _main_snapshot(path)
    return Location(str(path), {"local_files_only": True})


def _main_snapshot(cached: Path) -> Path:
    """Return the snapshot of `main`, or the only one, of a folder `models--OWNER--NAME` of the hub's cache."""
    reference = cached / "refs" / "main"
    snapshots = sorted(path for path in (cached / "snapshots").iterdir() if path.is_dir())
    if reference.is_file():
        name = reference.read_text(encoding="utf-8").strip()
        snapshots = [path for path in snapshots if path.name == name]
    if len(snapshots) != 1:
        raise UsageError(f"--model {cached}: {len(snapshots)} snapshots of main in it. Give the folder of one")
    return snapshots[0]


def read_tokenizer(source: str) -> bytes:
    """Return the `tokenizer.json` of a model: the file, or what its older vocabulary files amount to.

    Raises:
        UsageError: there is none that can be read.
    """
    from transformers import AutoTokenizer

    location = locate(source)
    path = Path(location.where) / "tokenizer.json"
    if location.is_local and "gguf_file" not in location.options and path.is_file():
        return path.read_bytes()
    try:
        tokenizer = AutoTokenizer.from_pretrained(location.where, trust_remote_code=False, **location.options)
        content: str = tokenizer.backend_tokenizer.to_str()
    except Exception as error:  # it raises whatever the reader of one of its many formats raises
        raise UsageError(
            f"--model {source}: no tokenizer can be read ({_first_line(error)}). Put its tokenizer.json beside the "
            "model; for a model over bytes give --tokenizer bytes"
        ) from error
    return content.encode()


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers from drawing progress bars into our output."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def _check_config(source: str, config: Any) -> None:
    """Refuse what would be loaded as another model than the file holds, or never."""
    if odd := find_odd_size(config.to_dict()):
        raise UsageError(f"--model {source}: config.json: {odd}")
    if getattr(config, "quantization_config", None):
        raise UsageError(f"--model {source}: its weights are quantised already. Give the model before quantisation")


def _check(source: str, model: PreTrainedModel, report: dict[str, Any]) -> None:
    # frequencies of rotary positions, which older files hold, follow from the configuration
    if surplus := sorted(name for name in report["unexpected_keys"] if not name.endswith("rotary_emb.inv_freq")):
        raise RunError(
            f"--model {source}: {len(surplus)} tensors have no place in the model of its config.json, such as "
            f"{surplus[0]}. Give the config.json that belongs to the weights"
        )
    if absent := sorted(report["missing_keys"]):
        raise RunError(f"--model {source}: {len(absent)} tensors are missing, such as {absent[0]}. Fetch it again")
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise RunError(f"--model {source}: {name} holds values that are not finite. Fetch it again")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
