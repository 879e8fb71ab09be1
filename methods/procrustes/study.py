"""Every way to compress a pretrained model at the same total of stored parameters, as one table.

    python -m methods.procrustes.study MODEL --windows FILE.npz [--fractions 3/4 5/8 1/2] [--rows NAME ...]

MODEL is a folder in the hub's layout. FILE.npz has the arrays `calib` and `val` of token ids (windows, tokens). Each
fraction r/k makes one table: one-sided Kronecker classes of r terms in k parts for every linear map of the blocks but
`value`, with dense skip matrices, sets the total; what has no skip matrices may spend them on its factors.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import UsageError
from harness.pretrained.load import load_pretrained
from harness.pretrained.moments import Moments, measure_moments
from harness.pretrained.perplexity import window_perplexity
from harness.pretrained.residual import Place, ResidualModel, iterate_linears
from methods.procrustes.classes import Exact, Kronecker, LowRank, StructuredClass
from methods.procrustes.compress import (
    Compression,
    Skips,
    Solver,
    by_alternation,
    by_descent,
    by_principal_basis,
    compress,
    without_rotation,
)
from methods.procrustes.slicing import largest_width, slice_model, stream_bases
from methods.procrustes.solver import PUBLISHED, SolverOptions
from methods.procrustes.weighting import Choice, Weighting

# Parts of one-sided classes where the share of parameters is any: as many, so that it is met closely.
PARTS = 32
# Reflections that a matrix in Cayley's form is expected to need, see `methods.procrustes.skips`.
EXPECTED_REFLECTIONS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One row of the table.

    Attributes:
        solve: the solver.
        weighting: how errors count.
        skips: how the change of bases is stored.
        choose: makes the classes for a share of the parameters of each map, the largest that fits; None for those of
            the fraction.
    """

    solve: Solver
    weighting: Weighting = "none"
    skips: Skips = "dense"
    choose: Callable[[float], Choice] | None = None


def one_sided(fraction: Fraction) -> Choice:
    """Return the choice of r terms in k parts of the residual features, `value` exact."""

    def choose(place: Place, rows: int, columns: int) -> StructuredClass:
        if place.role == "value":
            return Exact(rows, columns)
        return Kronecker(rows, columns, terms=fraction.numerator, left_rows=fraction.denominator, left_columns=1)

    return choose


def low_rank(share: float) -> Choice:
    """Return the choice of the largest rank with at most a share of a map's parameters, `value` exact."""

    def choose(place: Place, rows: int, columns: int) -> StructuredClass:
        rank = int(share * rows * columns / (rows + columns))
        if place.role == "value" or rank >= min(rows, columns):
            return Exact(rows, columns)
        return LowRank(rows, columns, rank=max(rank, 1))

    return choose


def many_parts(share: float) -> Choice:
    """Return the choice of one-sided classes of many parts with at most a share of a map's parameters."""

    def choose(place: Place, rows: int, columns: int) -> StructuredClass:
        parts = PARTS
        terms = int(share * rows * columns / (parts + rows // parts * columns))
        if place.role == "value" or terms >= parts:
            return Exact(rows, columns)
        return Kronecker(rows, columns, terms=max(terms, 1), left_rows=parts, left_columns=1)

    return choose


WAYS: Mapping[str, Way] = {
    "published": Way(solve=by_alternation(PUBLISHED)),
    "principal basis": Way(solve=by_principal_basis),
    "alternation": Way(solve=by_alternation(SolverOptions())),
    "descent": Way(solve=by_descent()),
    "descent, by weights": Way(solve=by_descent(), weighting="weights"),
    "descent, by activations": Way(solve=by_descent(), weighting="activations"),
    "descent, by gradients": Way(solve=by_descent(), weighting="gradients"),
    "descent, by gradients, Cayley": Way(solve=by_descent(), weighting="gradients", skips="cayley", choose=many_parts),
    "descent, by gradients, shared basis": Way(
        solve=by_descent(), weighting="gradients", skips="shared", choose=many_parts
    ),
    "no rotation": Way(solve=without_rotation, skips="none", choose=many_parts),
    "no rotation, by gradients": Way(solve=without_rotation, weighting="gradients", skips="none", choose=many_parts),
    "truncated SVD": Way(solve=without_rotation, skips="none", choose=low_rank),
    "whitened SVD": Way(solve=without_rotation, weighting="activations", skips="none", choose=low_rank),
    "SVD, by gradients": Way(solve=without_rotation, weighting="gradients", skips="none", choose=low_rank),
}

# Of the residual features themselves, so that it has no classes and no errors of weights.
SLICING = "slicing"
NULL_WAYS: tuple[tuple[Solver, Skips], ...] = (
    (without_rotation, "none"),
    (by_principal_basis, "dense"),
    (by_descent(), "dense"),
)


class Study:
    """The table of one model.

    Args:
        source: as in `load_pretrained`.
        calibration_BT: token ids that moments are measured on.
        validation_BT: token ids that perplexities are of.
    """

    def __init__(self, source: str, calibration_BT: Tensor, validation_BT: Tensor) -> None:
        self._model = load_pretrained(source, dtype=torch.float32)
        self._calibration_BT, self._validation_BT = calibration_BT, validation_BT

    def folded(self) -> ResidualModel:
        """Return a fresh copy with its norms folded."""
        return ResidualModel(copy.deepcopy(self._model))

    @cached_property
    def moments(self) -> Mapping[Place, Moments]:
        """Moments on the calibration windows, gradients included."""
        return measure_moments(self.folded(), self._calibration_BT, with_gradients=True)

    def table(self, fraction: Fraction, names: list[str]) -> Iterator[str]:
        """Yield the lines of a Markdown table, one after the other as they are measured."""
        total = self.total_params(one_sided(fraction), "dense")
        yield f"r/k = {fraction}: {total:,} parameters at most"
        yield ""
        yield "| way | parameters | perplexity | relative error | seconds |"
        yield "| --- | ---: | ---: | ---: | ---: |"
        dense = self.folded()
        yield f"| dense | {dense.num_params():,} | {self.perplexity(dense):.3f} | 0 | |"
        if SLICING in names:
            yield self._sliced(total)
        for name in names:
            if name == SLICING:
                continue
            if WAYS[name].weighting in ("activations", "gradients"):
                _ = self.moments
            start, residual = time.perf_counter(), self.folded()
            done = self.run(residual, WAYS[name], fraction, total)
            seconds = time.perf_counter() - start
            yield (
                f"| {name} | {residual.num_params():,} | {self.perplexity(residual):.3f} | "
                f"{mean_error(done):.3f} | {seconds:.0f} |"
            )

    def _sliced(self, total: int) -> str:
        bases = stream_bases(self.folded(), self.moments, self._calibration_BT)
        start, residual = time.perf_counter(), self.folded()
        slice_model(residual, bases, largest_width(residual, total))
        seconds = time.perf_counter() - start
        return f"| {SLICING} | {residual.num_params():,} | {self.perplexity(residual):.3f} | | {seconds:.0f} |"

    def run(self, residual: ResidualModel, way: Way, fraction: Fraction, total: int) -> Compression:
        """Compress a folded model one way, to at most a total of parameters."""
        choose = one_sided(fraction) if way.choose is None else self.largest(way.choose, way.skips, total)
        moments = self.moments if way.weighting in ("activations", "gradients") else None
        return compress(residual, choose, way.solve, weighting=way.weighting, moments=moments, skips=way.skips)

    def null_control(self, fraction: Fraction) -> Iterator[str]:
        """Yield relative errors of projection of the model's weights and of Gaussian ones of their shapes."""
        yield "| weights | as they are | principal basis | descent |"
        yield "| --- | ---: | ---: | ---: |"
        for name in ("trained", "Gaussian"):
            errors = []
            for solve, skips in NULL_WAYS:
                residual = self.folded()
                if name == "Gaussian":
                    draw_gaussian(residual)
                errors.append(mean_error(compress(residual, one_sided(fraction), solve, skips=skips)))
            yield f"| {name} | " + " | ".join(f"{error:.3f}" for error in errors) + " |"

    def perplexity(self, residual: ResidualModel) -> float:
        """Return the perplexity on the validation windows."""
        return window_perplexity(residual.model, self._validation_BT)

    def total_params(self, choose: Choice, skips: Skips) -> int:
        """Count the parameters of the model compressed by a choice of classes."""
        residual = self.folded()
        total = residual.num_params()
        for basis in range(residual.num_bases):
            for place in residual.places(basis):
                rows, columns = residual.weight(place).shape
                total += choose(place, rows, columns).num_params - rows * columns
        width, square = residual.width, residual.width**2
        skip = {"dense": square, "cayley": width * (width - 1) // 2 + EXPECTED_REFLECTIONS * width}.get(skips, 0)
        total += 2 * len(residual.blocks) * skip
        return total + (skips != "none" and residual.is_tied) * (square - width)

    def largest(self, make: Callable[[float], Choice], skips: Skips, total: int) -> Choice:
        """Return the choice by the largest share whose model has at most a total of parameters, by bisection.

        Raises:
            UsageError: even the smallest has more.
        """
        low, high = 0.0, 2.0
        for _ in range(20):
            middle = (low + high) / 2
            fits = self.total_params(make(middle), skips) <= total
            low, high = (middle, high) if fits else (low, middle)
        if low == 0:
            raise UsageError(f"no class has as few as {total:,} parameters. Give a larger fraction")
        return make(low)


def mean_error(done: Compression) -> float:
    """Return the root mean square of the relative errors of all compressed weights."""
    squares = [error**2 for error in done.relative_errors.values()]
    return (sum(squares) / max(len(squares), 1)) ** 0.5


@torch.no_grad()
def draw_gaussian(residual: ResidualModel) -> None:
    """Replace the weights of blocks by Gaussian ones of the same deviation."""
    generator = torch.Generator().manual_seed(0)
    for _, module in iterate_linears(residual):
        assert isinstance(module, nn.Linear)
        module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * module.weight.std())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--windows", type=Path, required=True)
    parser.add_argument(
        "--fractions", type=Fraction, nargs="+", default=[Fraction(3, 4), Fraction(5, 8), Fraction(1, 2)]
    )
    parser.add_argument("--rows", nargs="+", choices=[*WAYS, SLICING], default=[*WAYS, SLICING])
    arguments = parser.parse_args()
    with np.load(arguments.windows, allow_pickle=False) as stored:
        calibration_BT, validation_BT = (torch.from_numpy(stored[name].astype(np.int64)) for name in ("calib", "val"))
    study = Study(arguments.model, calibration_BT, validation_BT)
    for fraction in arguments.fractions:
        for line in study.table(fraction, arguments.rows):
            print(line, flush=True)
        print("", *study.null_control(fraction), "", sep="\n", flush=True)


if __name__ == "__main__":
    main()
