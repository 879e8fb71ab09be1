"""Train a small OPT model, so that claims on compression are judged on models of several seeds.

    python -m methods.procrustes.source_model FOLDER --seed 0 [--steps 2000] [--width 80] [--layers 3]

FOLDER gets a model over bytes in the hub's layout, for `harness run --model FOLDER --tokenizer bytes`. It is trained on
the training split of Tiny Shakespeare alone, by AdamW with a linear warm-up and a cosine to zero, in float32. The same
seed on the same processor and torch gives the same weights, if one thread runs.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import torch

from harness.data.batches import Batches
from harness.data.prepare import prepare
from harness.errors import HarnessError, UsageError
from harness.pretrained.load import without_bars

CONTEXT = 128
BATCH_SEQUENCES = 16
PEAK_RATE, WARM_UP_STEPS, WEIGHT_DECAY = 2e-3, 100, 0.1
VOCABULARY, NUM_HEADS = 256, 4


def make_model(width: int, layers: int, seed: int) -> Any:
    """Draw an OPT model over bytes, with an inner width of four times its own and a tied head.

    Raises:
        UsageError: the heads do not divide the width.
    """
    from transformers import OPTConfig, OPTForCausalLM

    if width % NUM_HEADS or width < NUM_HEADS:
        raise UsageError(f"--width {width}: {NUM_HEADS} heads do not divide it. Give a multiple of {NUM_HEADS}")
    torch.manual_seed(seed)
    config = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        word_embed_proj_dim=width,
        ffn_dim=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=NUM_HEADS,
        max_position_embeddings=CONTEXT,
        dropout=0.0,
        attn_implementation="sdpa",
    )
    return OPTForCausalLM(config)


def rate_at(step: int, steps: int) -> float:
    """Return the learning rate of a step, over its peak."""
    if step < WARM_UP_STEPS:
        return (step + 1) / WARM_UP_STEPS
    return 0.5 * (1 + math.cos(math.pi * (step - WARM_UP_STEPS) / max(steps - WARM_UP_STEPS, 1)))


def train(model: Any, batches: Batches, steps: int) -> float:
    """Train in place; returns the mean loss of the last 100 steps, in nats a byte.

    Args:
        model: in float32.
        batches: one micro-batch a step.
        steps: of the optimiser.
    """
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), PEAK_RATE, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_at(step, steps))
    losses: list[float] = []
    for step in range(steps):
        x_BT, y_BT = (torch.from_numpy(part) for part in batches.batch(step, 0))
        logits_BTV = model(input_ids=x_BT, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), y_BT.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 500 == 0:
            print(f"step {step + 1:,}: {sum(losses[-100:]) / len(losses[-100:]):.4f} nats a byte", flush=True)
    model.eval()
    return sum(losses[-100:]) / len(losses[-100:])


def main(arguments: list[str] | None = None) -> int:
    """Train and save; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m methods.procrustes.source_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--width", type=int, default=80)
    parser.add_argument("--layers", type=int, default=3)
    options = parser.parse_args(arguments)
    if min(options.steps, options.width, options.layers) < 1:
        parser.error("--steps, --width and --layers are at least 1")
    if not 0 <= options.seed < 2**63:
        parser.error("--seed is at least 0 and below 2^63")
    if options.folder.exists() and not (options.folder.is_dir() and not any(options.folder.iterdir())):
        parser.error(f"{options.folder} is there; choose a folder that is empty or is not there")
    try:
        model = make_model(options.width, options.layers, options.seed)
        batches = Batches(
            prepare("tinyshakespeare", tokenizer="bytes").train,
            order="shuffled",
            seed=options.seed,
            context=CONTEXT,
            micro_batch_sequences=BATCH_SEQUENCES,
            num_micro=1,
        )
        train(model, batches, options.steps)
        with without_bars():
            model.save_pretrained(options.folder)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
