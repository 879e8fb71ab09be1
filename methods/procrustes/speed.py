"""Time and memory of a model whose maps run in structured form, beside the dense one.

    python -m methods.procrustes.speed MODEL [--share 1/2] [--tokens 1 128 2048] [--repeats 5] [--rows NAME ...]

MODEL is a folder in the hub's layout, or one with a `config.json` alone, whose weights are then drawn: neither time nor
memory depends on values, so that factors are drawn, too. Every map of the blocks but `value` is of the class, with at
most the share of its parameters. Each row is timed in turns with the dense model, in float32; the least time of the
repeats counts. Windows longer than the model's context are left out.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import HarnessError, UsageError
from harness.pretrained.families import find_family
from harness.pretrained.load import load_pretrained
from harness.pretrained.residual import Place, ResidualModel
from harness.pretrained.slicing import slice_model
from harness.training.footprint import height_of
from methods.procrustes.budgets import ByShare, low_rank, one_sided
from methods.procrustes.classes import BlockLowRank, Exact, Kronecker, Monarch, StructuredClass
from methods.procrustes.compress import Skips, encode_skips
from methods.procrustes.layer import StructuredLinear
from methods.procrustes.weighting import Choice

# Blocks a side of Monarch and block low-rank classes.
BLOCKS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """What takes the place of the dense maps.

    Attributes:
        by_share: gives the classes; None leaves the maps as they are.
        skips: what stands on the skip connections.
    """

    by_share: ByShare | None
    skips: Skips


def _by_share(make: Callable[[float, int, int], StructuredClass]) -> ByShare:
    def by_share(share: float) -> Choice:
        def choose(place: Place, rows: int, columns: int) -> StructuredClass:
            return Exact(rows, columns) if place.role == "value" else make(share, rows, columns)

        return choose

    return by_share


def _square(share: float, rows: int, columns: int) -> Kronecker:
    left_rows, left_columns = _middle_divisor(rows), _middle_divisor(columns)
    size = left_rows * left_columns + rows // left_rows * (columns // left_columns)
    terms = min(
        int(share * rows * columns / size), left_rows * left_columns, rows * columns // left_rows // left_columns
    )
    return Kronecker(rows, columns, terms=max(terms, 1), left_rows=left_rows, left_columns=left_columns)


def _middle_divisor(number: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - number**0.5))


def _monarch(share: float, rows: int, columns: int) -> Monarch:
    return Monarch(rows, columns, BLOCKS, BLOCKS, max(int(share * rows * columns / (rows + columns)), 1))


def _block_low_rank(share: float, rows: int, columns: int) -> BlockLowRank:
    rank = max(int(share * rows * columns / (rows + columns) / BLOCKS), 1)
    return BlockLowRank(rows, columns, BLOCKS, BLOCKS, rank)


_ONE_SIDED: ByShare = lambda share: one_sided(Fraction(share).limit_denominator(32))  # noqa: E731
DENSE, SLICING = "dense", "slicing"
VARIANTS: Mapping[str, Variant] = {
    "dense, rotated": Variant(by_share=None, skips="dense"),
    "one-sided Kronecker, dense skips": Variant(by_share=_ONE_SIDED, skips="dense"),
    "one-sided Kronecker, Cayley skips": Variant(by_share=_ONE_SIDED, skips="cayley"),
    "one-sided Kronecker, no skips": Variant(by_share=_ONE_SIDED, skips="none"),
    "square Kronecker, dense skips": Variant(by_share=_by_share(_square), skips="dense"),
    "Monarch, dense skips": Variant(by_share=_by_share(_monarch), skips="dense"),
    "block low rank, dense skips": Variant(by_share=_by_share(_block_low_rank), skips="dense"),
    "low rank, no skips": Variant(by_share=low_rank, skips="none"),
}


@torch.no_grad()
def build_variant(name: str, model: Any, share: float, seed: int = 0) -> Any:
    """Return a copy of a Hugging Face model with drawn factors in the place of its maps.

    Args:
        name: of `VARIANTS`, or `SLICING`, which keeps the share of the residual features.
        model: left as it is.
        share: of the parameters of each map.
        seed: of bases and factors.
    """
    residual = ResidualModel(copy.deepcopy(model))
    generator = torch.Generator().manual_seed(seed)
    size = residual.width
    # Two in turns: a matrix on every skip connection, and little work to find them.
    pair = [torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q for _ in range(2)]
    bases = [pair[basis % 2] for basis in range(residual.num_bases)]
    if name == SLICING:
        slice_model(residual, bases, max(round(share * size), 1))
        return residual.model
    variant = VARIANTS[name]
    if variant.skips != "none":
        residual.rotate(bases)
    if variant.skips == "cayley":
        encode_skips(residual)
    if variant.by_share is not None:
        _fill(residual, variant.by_share(share), generator)
    return residual.model


def _fill(residual: ResidualModel, choose: Choice, generator: torch.Generator) -> None:
    places = [place for basis in range(residual.num_bases) for place in residual.places(basis)]
    for place in places:
        weight_DN = residual.weight(place)
        structure = choose(place, *weight_DN.shape)
        if isinstance(structure, Exact):
            continue
        # entries of about the deviation of drawn matrices, so that nothing overflows
        factors = tuple(0.05 * torch.randn(shape, generator=generator) for shape in structure.factor_shapes)
        if not place.reads:
            structure, factors = structure.transpose(factors)
        factors = tuple(factor.to(weight_DN) for factor in factors)
        bias = getattr(residual.module(place), "bias", None)
        residual.blocks[place.block].set_linear(place.role, StructuredLinear(structure, factors, bias))


def draw_model(folder: str) -> Any:
    """Make a model by its configuration alone, its weights drawn in float32 as its family does, seed 0.

    Raises:
        UsageError: there is no configuration, or its family cannot be rotated.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder}: no readable config.json. Give a folder in the hub's layout") from error
    find_family(config)
    torch.manual_seed(0)
    make: Any = AutoModelForCausalLM.from_config
    return make(config, dtype=torch.float32, attn_implementation="sdpa").eval()


def weight_bytes(model: nn.Module) -> int:
    """Count the bytes of parameters and buffers, memory that several share once."""
    tensors = [*model.parameters(), *model.buffers()]
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


@torch.no_grad()
def time_in_turns(models: Sequence[Any], tokens_BT: Tensor, repeats: int) -> list[float]:
    """Return the least seconds of a forward pass of each model, run one after the other `repeats` times."""
    least = [float("inf")] * len(models)
    for repeat in range(repeats + 1):
        for index, model in enumerate(models):
            start = time.perf_counter()
            model(input_ids=tokens_BT, use_cache=False)
            if repeat:  # the first pass warms up
                least[index] = min(least[index], time.perf_counter() - start)
    return least


def measure(model: Any, names: Sequence[str], share: float, lengths: Sequence[int], repeats: int) -> Iterator[str]:
    """Yield the lines of the table, one variant after the other.

    Args:
        model: the dense one.
        names: of `VARIANTS`, or `SLICING`.
        share: of the parameters of each map.
        lengths: tokens of a window, one window at a time.
        repeats: of each time.
    """
    limit = model.config.max_position_embeddings
    windows = [torch.zeros(1, length, dtype=torch.int64) for length in lengths if length <= limit]
    times = " | ".join(f"ms a token, window of {window.numel():,}" for window in windows)
    yield f"| maps | parameters | weights, MB | more at the peak, MB | {times} |"
    yield "| --- |" + " ---: |" * (3 + len(windows))
    for name in [DENSE, *names]:
        variant = model if name == DENSE else build_variant(name, model, share)
        cells = []
        for window in windows:
            dense, own = time_in_turns([model, variant], window, repeats)
            ratio = "" if name == DENSE else f" ({own / dense:.2f})"
            cells.append(f"{1000 * own / window.numel():.3g}{ratio}")
        with torch.no_grad():
            peak = height_of(lambda variant=variant: variant(input_ids=windows[-1], use_cache=False))
        number = sum(parameter.numel() for parameter in variant.parameters())
        yield f"| {name} | {number:,} | {weight_bytes(variant) / 1e6:.1f} | {peak / 1e6:.1f} | {' | '.join(cells)} |"


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m methods.procrustes.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model")
    parser.add_argument("--share", type=Fraction, default=Fraction(1, 2))
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 128, 2048])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", nargs="+", choices=[*VARIANTS, SLICING], default=[*VARIANTS, SLICING])
    options = parser.parse_args(arguments)
    try:
        has_weights = not Path(options.model).is_dir() or any(Path(options.model).glob("*.safetensors"))
        model = load_pretrained(options.model, dtype=torch.float32) if has_weights else draw_model(options.model)
        for line in measure(model, options.rows, float(options.share), options.tokens, options.repeats):
            print(line, flush=True)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
