"""Write the reference model `opt_small` as a folder in the hub's layout.

python tests/opt_small.py FIXTURES/procrustes/opt_small FOLDER
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


if __name__ == "__main__":
    write_folder(Path(sys.argv[1]), Path(sys.argv[2]))
