"""The model families whose residual stream may change its basis, and where their parts are.

A family qualifies if each block normalises what it reads (pre-norm) and nothing else acts on the residual stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import UsageError, suggest
from harness.nn.config import LinearRole


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Paths of parts, below the model or below a decoder layer.

    Attributes:
        decoder: the module with the layers.
        embeddings: of tokens first; they add up to what the first block reads. Below the decoder.
        final_norm: below the decoder.
        attention_norm: below a layer.
        mlp_norm: below a layer.
        linears: the linear maps of a layer by role.
        activation: what lies between `up` and `down` where the layer itself runs these; below a layer.
        centres: the norms subtract the mean of features.
        config_keys: what of the configuration the function depends on, and the ids of special tokens.
    """

    decoder: str
    embeddings: tuple[str, ...]
    final_norm: str
    attention_norm: str
    mlp_norm: str
    linears: Mapping[LinearRole, str]
    activation: str = ""
    centres: bool = False
    config_keys: tuple[str, ...]


_COMMON_KEYS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"),
    *("tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id"),
)
_LLAMA_KEYS = (
    *_COMMON_KEYS,
    *("intermediate_size", "num_key_value_heads", "head_dim", "hidden_act", "rms_norm_eps", "rope_parameters"),
    *("attention_bias", "mlp_bias"),
)
_QWEN2_KEYS = (*_LLAMA_KEYS, "use_sliding_window", "sliding_window", "max_window_layers", "layer_types")
_OPT_KEYS = (
    *_COMMON_KEYS,
    *("ffn_dim", "activation_function", "do_layer_norm_before", "word_embed_proj_dim", "enable_bias"),
    "layer_norm_elementwise_affine",
)
_ATTENTION: dict[LinearRole, str] = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
}
_LLAMA = Family(
    decoder="model",
    embeddings=("embed_tokens",),
    final_norm="norm",
    attention_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    linears=_ATTENTION
    | {"output": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"},
    config_keys=_LLAMA_KEYS,
)
_OPT = Family(
    decoder="model.decoder",
    embeddings=("embed_tokens", "embed_positions"),
    final_norm="final_layer_norm",
    attention_norm="self_attn_layer_norm",
    mlp_norm="final_layer_norm",
    linears=_ATTENTION | {"output": "self_attn.out_proj", "up": "fc1", "down": "fc2"},
    activation="activation_fn",
    centres=True,
    config_keys=_OPT_KEYS,
)
FAMILIES: Mapping[str, Family] = {"llama": _LLAMA, "opt": _OPT, "qwen2": replace(_LLAMA, config_keys=_QWEN2_KEYS)}


_SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"),
    *("intermediate_size", "num_key_value_heads", "head_dim", "ffn_dim"),
)
# Far beyond any model, and small enough that lists of them do no harm before a module is made.
_MAX_NUMBER = 1 << 24
_MAX_LAYERS = 1 << 12


def find_odd_size(values: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a size of a configuration, if anything is: not a count, or beyond any model."""
    for key, value in values.items():
        bound = _MAX_LAYERS if key == "num_hidden_layers" else _MAX_NUMBER
        if key in _SIZES and value is not None and (type(value) is not int or value < 1):
            return f"{key} is {value!r:.40}, expected a number from 1"
        if type(value) is int and abs(value) > bound:
            return f"{key} is {value}, beyond {bound}"
    return None


def find_family(config: Any) -> Family:
    """Return the family of a model by its Hugging Face configuration.

    Raises:
        UsageError: the architecture is unknown, or a variant in which the basis of the residual stream is not free.
    """
    kind = config.model_type
    if kind not in FAMILIES:
        raise UsageError(f"no rule to rotate models of type '{kind}'. {suggest(kind, FAMILIES)}")
    if not getattr(config, "do_layer_norm_before", True):
        raise UsageError(
            f"this {kind} model normalises after each sublayer, where a rotation changes the function. "
            "Give a pre-norm model: do_layer_norm_before = true"
        )
    if getattr(config, "_remove_final_layer_norm", False):
        raise UsageError(f"this {kind} model has no final norm, so that its head would see the rotation. Give another")
    if getattr(config, "word_embed_proj_dim", config.hidden_size) != config.hidden_size:
        raise UsageError(
            f"this {kind} model projects its embeddings ({config.word_embed_proj_dim} to {config.hidden_size} "
            "features), which is not supported. Give a model without projection"
        )
    return FAMILIES[kind]
