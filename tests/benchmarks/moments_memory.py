"""Memory and time of weighing the errors of a pretrained model: all moments at once, or those of few bases at a time.

    python tests/benchmarks/moments_memory.py [--layers 12] [--width 768] [--tokens 256] [--bases-per-pass all 1 2]

A random OPT model of that size is compressed by SVD weighted with gradients, which measures both moments of every map;
only query, key and output are replaced, to save time. Each way runs in a process of its own, whose peak is that of its
resident memory, less that after a first pass through the model.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

VOCAB, WINDOW = 4096, 128


def measure(layers: int, width: int, tokens: int, per_pass: str) -> None:
    import torch
    from transformers import OPTConfig, OPTForCausalLM

    from harness.pretrained.moments import PassedMoments
    from harness.pretrained.residual import ResidualModel
    from methods.procrustes.budgets import low_rank
    from methods.procrustes.compress import compress, without_rotation

    torch.manual_seed(0)
    sizes = {"hidden_size": width, "word_embed_proj_dim": width, "ffn_dim": 4 * width, "num_hidden_layers": layers}
    config = OPTConfig(**sizes, vocab_size=VOCAB, num_attention_heads=width // 64, max_position_embeddings=WINDOW)
    residual = ResidualModel(OPTForCausalLM(config).eval())
    text_BT = torch.randint(0, VOCAB, (tokens // WINDOW, WINDOW), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        residual.model(input_ids=text_BT[:2])
    before, start = peak_bytes(), time.perf_counter()
    bases = residual.num_bases if per_pass == "all" else int(per_pass)
    moments = PassedMoments(residual, text_BT, with_gradients=True, bases_per_pass=bases, batch_size=2)
    choose = low_rank(0.5, exact_roles=("value", "up", "down"))
    compress(residual, choose, without_rotation, weighting="gradients", moments=moments, skips="none")
    seconds, more = time.perf_counter() - start, peak_bytes() - before
    print(f"| {per_pass} | {before / 2**20:,.0f} | {more / 2**20:,.0f} | {seconds:.0f} |", flush=True)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--bases-per-pass", nargs="+", default=["all", "1", "2"])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(options.layers, options.width, options.tokens, options.one)
        return
    print("| bases per pass | process with the model, MiB | more at the peak, MiB | seconds |")
    print("| --- | ---: | ---: | ---: |", flush=True)
    for per_pass in options.bases_per_pass:
        sizes = ["--layers", str(options.layers), "--width", str(options.width), "--tokens", str(options.tokens)]
        subprocess.run([sys.executable, __file__, *sizes, "--one", per_pass], check=True)


if __name__ == "__main__":
    main()
