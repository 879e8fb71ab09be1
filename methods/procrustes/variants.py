"""Models that time and memory are measured on: drawn by a configuration, with drawn structured maps in their places."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import UsageError
from harness.pretrained.families import find_family
from harness.pretrained.residual import Place, ResidualModel
from harness.pretrained.slicing import slice_model
from methods.procrustes.budgets import ByShare, low_rank, one_sided
from methods.procrustes.classes import BlockLowRank, Exact, Kronecker, Monarch, StructuredClass
from methods.procrustes.compress import Skips
from methods.procrustes.layer import StructuredLinear
from methods.procrustes.skips import NEAREST_TO_MINUS_ONE, CayleySkip
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
    """Return a copy of a Hugging Face model with drawn factors in the place of its maps, on its device in its dtype.

    Args:
        name: of `VARIANTS`, or `SLICING`, which keeps the share of the residual features.
        model: left as it is.
        share: of the parameters of each map.
        seed: of bases and factors.
    """
    residual = ResidualModel(copy.deepcopy(model))
    generator = torch.Generator(residual.tables[0].device).manual_seed(seed)
    # Two in turns: a matrix on every skip connection, and little work to find them.
    pair = [_draw_orthogonal(residual.width, generator) for _ in range(2)]
    bases = [pair[basis % 2] for basis in range(residual.num_bases)]
    if name == SLICING:
        slice_model(residual, bases, max(round(share * residual.width), 1))
        return residual.model
    variant = VARIANTS[name]
    if variant.skips != "none":
        residual.rotate(bases)
    if variant.skips == "cayley":
        _draw_cayley_skips(residual, generator)
    if variant.by_share is not None:
        _fill(residual, variant.by_share(share), generator)
    return residual.model


def _draw_orthogonal(size: int, generator: torch.Generator) -> Tensor:
    normal = torch.randn(size, size, generator=generator, dtype=torch.float64, device=generator.device)
    return torch.linalg.qr(normal).Q


def _draw_cayley_skips(residual: ResidualModel, generator: torch.Generator) -> None:
    """Put matrices in Cayley's form on every skip connection, each with as many reflections as a drawn one has."""
    size = residual.width
    count = max(round(size * NEAREST_TO_MINUS_ONE / math.pi), 1)
    reflections_MD = _draw_orthogonal(size, generator)[:count]
    # entries with which the skew matrix has eigenvalues of about 1
    upper = torch.randn(size * (size - 1) // 2, generator=generator, device=generator.device) / size**0.5
    for block in residual.blocks:
        for name in ("attention_skip", "mlp_skip"):
            skip = CayleySkip.of_shape(size)
            skip.upper = nn.Parameter(upper.to(residual.tables[0], copy=True))
            skip.reflections = nn.Parameter(reflections_MD.to(residual.tables[0], copy=True))
            setattr(block, name, skip)


def _fill(residual: ResidualModel, choose: Choice, generator: torch.Generator) -> None:
    places = [place for basis in range(residual.num_bases) for place in residual.places(basis)]
    for place in places:
        weight_DN = residual.weight(place)
        structure = choose(place, *weight_DN.shape)
        if isinstance(structure, Exact):
            continue
        # entries of about the deviation of drawn matrices, so that nothing overflows
        factors = tuple(
            0.05 * torch.randn(shape, generator=generator, device=generator.device) for shape in structure.factor_shapes
        )
        if not place.reads:
            structure, factors = structure.transpose(factors)
        factors = tuple(factor.to(weight_DN) for factor in factors)
        bias = getattr(residual.module(place), "bias", None)
        residual.blocks[place.block].set_linear(place.role, StructuredLinear(structure, factors, bias))


def draw_model(folder: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """Make a model by its configuration alone, its weights drawn in place as its family does, seed 0.

    Args:
        folder: with the `config.json`.
        device: that the weights are drawn on, so that no copy of them is elsewhere.
        dtype: of the weights.

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
    with torch.device(device):
        return make(config, dtype=dtype, attn_implementation="sdpa").eval()
