"""Tiny pretrained models as folders in the hub's layout: random weights, a byte-level tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

TEXT = "the quick brown fox jumps over the lazy dog and then the dog sleeps \u00e9\u4e2d\n" * 40
# Two rows of the table are no tokens, as where a vocabulary is padded.
NUM_TOKENS, NUM_ROWS = 280, 282
SIZES = {
    "vocab_size": NUM_ROWS,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
ROTARY = SIZES | {"num_key_value_heads": 2, "intermediate_size": 40}


def make_config(family: str, **more: Any) -> Any:
    import transformers

    if family == "opt":
        return transformers.OPTConfig(**SIZES | {"ffn_dim": 40, "word_embed_proj_dim": 24} | more)
    kind = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}[family]
    return kind(**ROTARY | more)


def make_model(config: Any) -> Any:
    """Return a random model in float32 with gains, biases and embeddings far from their initial values."""
    import transformers

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.3 * noise if "norm" in name and name.endswith("weight") else 0.2 * noise + 0.05)
    return model


def tokenizer_json(num_tokens: int = NUM_TOKENS, *, begins_texts: bool = True) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=num_tokens,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    if begins_texts:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return str(tokenizer.to_str())


def write_model(folder: Path, family: str, *, num_tokens: int = NUM_TOKENS, **more: Any) -> Path:
    """Write config.json, model.safetensors and tokenizer.json; returns the folder."""
    make_model(make_config(family, **more)).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer_json(num_tokens), encoding="utf-8")
    return folder


def put_into_cache(folder: Path, cache: Path) -> Path:
    """Lay a model out as the hub's cache does, files as links to blobs; returns its `models--...` folder."""
    root = cache / "models--tiny--model"
    snapshot = root / "snapshots" / "0123abcd"
    for path in (snapshot, root / "blobs", root / "refs"):
        path.mkdir(parents=True)
    (root / "refs" / "main").write_text("0123abcd")
    for index, path in enumerate(sorted(folder.iterdir())):
        blob = root / "blobs" / f"{index:040x}"
        blob.write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(blob)
    return root
