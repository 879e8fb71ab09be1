"""Write the reference model `opt_small` as a folder in the hub's layout, and windows of its text.

    python tests/opt_small.py FIXTURES/procrustes/opt_small FOLDER [tinyshakespeare.txt]

With the text FOLDER/windows.npz has, each in windows of 128 bytes: `calib` and `val` as published with the model, the
first 128 of the training part and the first 200 of the last tenth; `tune`, the 200 windows after `calib`; and `rest`,
what of the last tenth comes after `val`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import OPTConfig, OPTForCausalLM


def write_folder(fixture: Path, folder: Path) -> None:
    config = OPTConfig(
        vocab_size=256,
        hidden_size=128,
        word_embed_proj_dim=128,
        ffn_dim=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=128,
        dropout=0.0,
    )
    model = OPTForCausalLM(config)
    with np.load(fixture / "model_fp16.npz", allow_pickle=False) as stored:
        state = {name: torch.from_numpy(stored[name].astype(np.float32)) for name in stored.files}
    absent, odd = model.load_state_dict(state, strict=False)
    assert (absent, odd) == (["lm_head.weight"], [])
    model.tie_weights()
    model.save_pretrained(folder)


def write_windows(fixture: Path, text: bytes, path: Path) -> None:
    with np.load(fixture / "data_and_logits.npz", allow_pickle=False) as stored:
        published = {name: stored[name] for name in ("calib", "val")}
    size, start = 128, 9 * len(text) // 10
    windows = {
        "calib": cut(text, 0, 128, size),
        "tune": cut(text, 128 * size, 200, size),
        "val": cut(text, start, 200, size),
        "rest": cut(text, start + 200 * size, (len(text) - start) // size - 200, size),
    }
    assert all(np.array_equal(windows[name], published[name]) for name in published)
    np.savez(path, **windows)


def cut(text: bytes, start: int, number: int, size: int) -> np.ndarray:
    return np.frombuffer(text, np.uint8)[start : start + number * size].reshape(number, size)


if __name__ == "__main__":
    write_folder(Path(sys.argv[1]), Path(sys.argv[2]))
    if len(sys.argv) > 3:
        write_windows(Path(sys.argv[1]), Path(sys.argv[3]).read_bytes(), Path(sys.argv[2]) / "windows.npz")
