"""The configuration of a pretrained model as plain values, and the model without its weights that it describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from harness.errors import ArtifactError, HarnessError, suggest
from harness.pretrained.families import FAMILIES, find_family, find_odd_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODEL_TYPE = "model_type"


def describe_config(config: Any) -> dict[str, Any]:
    """Return what of a Hugging Face configuration its function depends on, without nulls.

    Raises:
        UsageError: the family is unknown, or a variant whose residual stream cannot be rotated.
    """
    find_family(config)
    values = config.to_dict()
    keys = FAMILIES[config.model_type].config_keys
    described = {key: values[key] for key in keys if values.get(key) is not None}
    return {MODEL_TYPE: config.model_type, **described}


def make_config(architecture: Mapping[str, Any]) -> Any:
    """Return the Hugging Face configuration that `describe_config` described.

    Raises:
        ArtifactError: it is of no known family, has other keys than that, or sizes beyond any model.
    """
    from transformers import AutoConfig

    kind = str(architecture.get(MODEL_TYPE))
    if kind not in FAMILIES:
        raise ArtifactError(f"no pretrained model is of type {kind!r:.40}. {suggest(kind, FAMILIES)}")
    values = {key: value for key, value in architecture.items() if key != MODEL_TYPE}
    if odd := sorted(values.keys() - set(FAMILIES[kind].config_keys)):
        raise ArtifactError(f"architecture.{odd[0]:.40}: no key of a {kind} model")
    if wrong := find_odd_size(values):
        raise ArtifactError(f"architecture.{wrong}")
    try:
        config = AutoConfig.for_model(kind, **values)
    except Exception as error:  # values of wrong types raise whatever the class of the configuration raises
        raise ArtifactError(f"architecture: no configuration of a {kind} model ({_first_line(error)})") from error
    find_family(config)
    return config


def longest_context(architecture: Mapping[str, Any]) -> int:
    """Return the tokens of the longest window that a described model takes."""
    return int(architecture["max_position_embeddings"])


def make_empty_model(architecture: Mapping[str, Any]) -> PreTrainedModel:
    """Return the model on the meta device, in float32: shapes without numbers.

    Raises:
        ArtifactError: as `make_config`.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config, maker = make_config(architecture), cast(Any, AutoModelForCausalLM)
    try:
        with torch.device("meta"):
            model = maker.from_config(config, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False)
    except HarnessError:  # of who watches over the size of what is built
        raise
    except Exception as error:  # a module takes its sizes as they come
        raise ArtifactError(f"architecture: no model can be made of it ({_first_line(error)})") from error
    return cast("PreTrainedModel", model.eval())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
