"""Time and memory of a model whose maps run in structured form, beside the dense one.

    python -m methods.procrustes.speed MODEL [--device cpu|cuda] [--dtype float32|bfloat16]
        [--share 1/2] [--tokens 1 128 2048] [--repeats 5] [--rows NAME ...]

MODEL is a folder in the hub's layout, or one with a `config.json` alone, whose weights are then drawn: neither time nor
memory depends on values, so that factors and the numbers of Cayley's form are drawn, too. Every map of the blocks but
`value` is of the class, with at most the share of its parameters. Each row is timed in turns with the dense model; the
least time of the repeats counts. Windows longer than the model's context are left out. On a GPU, too, the passes run
operation by operation (no captured graph), and two models are in its memory at a time.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import HarnessError, UsageError
from harness.pretrained.load import load_pretrained
from harness.training.footprint import height_of
from methods.procrustes.variants import DENSE, SLICING, VARIANTS, build_variant, draw_model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NO_ROOM = "does not fit"


def weight_bytes(model: nn.Module) -> int:
    """Count the bytes of parameters and buffers, memory that several share once."""
    tensors = [*model.parameters(), *model.buffers()]
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


@torch.no_grad()
def time_in_turns(models: Sequence[Any], tokens_BT: Tensor, repeats: int) -> list[float]:
    """Return the least seconds of a forward pass of each model, run one after the other `repeats` times.

    Args:
        models: on the device of the tokens.
        tokens_BT: token ids of each pass.
        repeats: that are timed, after a first pass.
    """
    least = [float("inf")] * len(models)
    for repeat in range(repeats + 1):
        for index, model in enumerate(models):
            _wait_for(tokens_BT.device)
            start = time.perf_counter()
            model(input_ids=tokens_BT, use_cache=False)
            _wait_for(tokens_BT.device)
            if repeat:  # the first pass warms up
                least[index] = min(least[index], time.perf_counter() - start)
    return least


def _wait_for(device: torch.device) -> None:
    """Return when a GPU has done all that it was given; a processor has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def peak_bytes(model: Any, tokens_BT: Tensor) -> int:
    """Return the most bytes that a forward pass holds at a time beside the weights.

    On a processor those of results of operations, on a GPU all that torch allocates, work space of kernels included.
    """
    device = tokens_BT.device
    if device.type != "cuda":
        return height_of(lambda: model(input_ids=tokens_BT, use_cache=False))
    _wait_for(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    model(input_ids=tokens_BT, use_cache=False)
    _wait_for(device)
    return torch.cuda.max_memory_allocated(device) - before


def measure(model: Any, names: Sequence[str], share: float, lengths: Sequence[int], repeats: int) -> Iterator[str]:
    """Yield the lines of the table, one variant after the other; what a GPU has no memory for says so.

    Args:
        model: the dense one, whose device and dtype are those of all.
        names: of `VARIANTS`, or `SLICING`.
        share: of the parameters of each map.
        lengths: tokens of a window, one window at a time.
        repeats: of each time.
    """
    weight = next(model.parameters())
    limit = model.config.max_position_embeddings
    windows = [torch.zeros(1, n, dtype=torch.int64, device=weight.device) for n in lengths if n <= limit]
    if not windows:
        raise UsageError(f"--tokens {' '.join(map(str, lengths))}: the model takes windows of at most {limit} tokens")
    longest = max(windows, key=torch.Tensor.numel)
    times = " | ".join(f"ms a token, window of {window.numel():,}" for window in windows)
    setting = f"{_describe(weight.device)}, {str(weight.dtype).removeprefix('torch.')}"
    peaks = f"more at the peak of {longest.numel():,} tokens, MB"
    yield f"| maps ({setting}) | parameters | weights, MB | {peaks} | {times} |"
    yield "| --- |" + " ---: |" * (3 + len(windows))
    for name in [DENSE, *names]:
        variant = model if name == DENSE else build_variant(name, model, share)
        cells = [_time_cell(model, variant, window, repeats) for window in windows]
        try:
            peak = f"{peak_bytes(variant, longest) / 1e6:.1f}"
        except torch.OutOfMemoryError:
            peak = NO_ROOM
        number = sum(parameter.numel() for parameter in variant.parameters())
        yield f"| {name} | {number:,} | {weight_bytes(variant) / 1e6:.1f} | {peak} | {' | '.join(cells)} |"
        del variant  # before the next is made: of large models no third has room
        gc.collect()


def _time_cell(model: Any, variant: Any, window: Tensor, repeats: int) -> str:
    try:
        dense, own = time_in_turns([model, variant], window, repeats)
    except torch.OutOfMemoryError:
        return NO_ROOM
    ratio = "" if variant is model else f" ({own / dense:.2f})"
    return f"{1000 * own / window.numel():.3g}{ratio}"


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"processor, threads: {torch.get_num_threads()}"


def _fraction(text: str) -> Fraction:
    try:
        return Fraction(text)
    except ZeroDivisionError as error:
        raise argparse.ArgumentTypeError(f"{text}: divides by zero") from error


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m methods.procrustes.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--share", type=_fraction, default=Fraction(1, 2))
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 128, 2048])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", nargs="+", choices=[*VARIANTS, SLICING], default=[*VARIANTS, SLICING])
    options = parser.parse_args(arguments)
    if not 0 < options.share <= 1:
        parser.error("--share is above 0 and at most 1")
    if min(*options.tokens, options.repeats) < 1:
        parser.error("--tokens and --repeats are at least 1")
    try:
        model = _get_model(options.model, options.device, DTYPES[options.dtype])
        for line in measure(model, options.rows, float(options.share), options.tokens, options.repeats):
            print(line, flush=True)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _get_model(source: str, device: str, dtype: torch.dtype) -> Any:
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no GPU here. Leave it out for the processor")
    if Path(source).is_dir() and not any(Path(source).glob("*.safetensors")):
        return draw_model(source, device=device, dtype=dtype)
    model: Any = load_pretrained(source, dtype=dtype)
    return model.to(device)


if __name__ == "__main__":
    sys.exit(main())
