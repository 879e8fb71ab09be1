"""Llama models as GGUF files in float32, as llama.cpp lays them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(path: Path, model: Any) -> None:
    """Write a Llama model without biases, with a vocabulary of made-up pieces."""
    import gguf

    config, writer = model.config, gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"piece{index}" for index in range(config.vocab_size)])
    for name, tensor in model.state_dict().items():
        values_OI = tensor.numpy()
        stem = name.removesuffix(".weight")
        if stem in _ENDS:
            writer.add_tensor(f"{_ENDS[stem]}.weight", values_OI)
            continue
        index, _, part = stem.removeprefix("model.layers.").partition(".")
        num_heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(_PARTS[part])
        if num_heads:  # llama.cpp turns pairs of neighbours, transformers halves of a head
            halves = values_OI.reshape(num_heads, 2, -1, values_OI.shape[1])
            values_OI = halves.swapaxes(1, 2).reshape(values_OI.shape)
        writer.add_tensor(f"blk.{index}.{_PARTS[part]}.weight", np.ascontiguousarray(values_OI))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
