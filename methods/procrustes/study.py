"""Every way to compress a pretrained model at the same total of stored parameters, as one table.

    python -m methods.procrustes.study MODEL --windows FILE.npz [--fractions 3/4 5/8 1/2] [--rows NAME ...]

MODEL is a folder in the hub's layout. FILE.npz has the array `calib` of token ids (windows, tokens) and those named by
`--splits`, by default `val`: a table shows the perplexity on each. Each fraction r/k makes one table: one-sided
Kronecker classes of r terms in k parts for every linear map of the blocks but `value`, with dense skip matrices, sets
the total; what has no skip matrices may spend them on its factors. With `--out FILE.jsonl` the surprise in every window
is kept there, rows that it holds already are not computed again, and `methods.procrustes.differences` compares them.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.errors import HarnessError, UsageError
from harness.pretrained.load import load_pretrained
from harness.pretrained.moments import Moments, measure_moments
from harness.pretrained.perplexity import window_nats
from harness.pretrained.residual import Place, ResidualModel
from harness.pretrained.slicing import largest_width, slice_model, stream_bases
from methods.procrustes.budgets import ByShare, compressed_params, largest_choice, low_rank, many_parts, one_sided
from methods.procrustes.comparison import Row, draw_gaussian, mean_error
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
from methods.procrustes.solver import PUBLISHED, SolverOptions
from methods.procrustes.weighting import Weighting


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
    choose: ByShare | None = None


_BY_GRADIENTS = Way(solve=by_descent(), weighting="gradients")
WAYS: Mapping[str, Way] = {
    "published": Way(solve=by_alternation(PUBLISHED)),
    "principal basis": Way(solve=by_principal_basis),
    "alternation": Way(solve=by_alternation(SolverOptions())),
    "descent": Way(solve=by_descent()),
    "descent, by weights": Way(solve=by_descent(), weighting="weights"),
    "descent, by activations": Way(solve=by_descent(), weighting="activations"),
    "descent, by gradients": _BY_GRADIENTS,
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

DENSE = "dense"
# Of the residual features themselves, so that it has no classes and no errors of weights.
SLICING = "slicing"
NULL_WAYS: tuple[tuple[Solver, Skips], ...] = (
    (without_rotation, "none"),
    (by_principal_basis, "dense"),
    (by_descent(), "dense"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRow:
    """A row of the table of one fraction.

    Attributes:
        fraction: r/k.
        seed: of the tokens that gradients are drawn at; 0 where there are none.
        num_params: numbers stored.
        relative_error: as in `Row`.
        seconds: of the compression without moments.
        nats: of each window of each split.
    """

    fraction: str
    name: str
    seed: int
    num_params: int
    relative_error: float | None
    seconds: float
    nats: Mapping[str, tuple[float, ...]]

    def on(self, split: str) -> Row:
        """Return the row on one split."""
        return Row(
            name=self.name,
            num_params=self.num_params,
            relative_error=self.relative_error,
            window_nats=tuple(self.nats[split]),
            seconds=self.seconds,
        )


class Study:
    """The table of one model.

    Args:
        source: as in `load_pretrained`.
        calibration_BT: token ids that moments are measured on.
        splits: token ids that perplexities are of, by name.
    """

    def __init__(self, source: str, calibration_BT: Tensor, splits: Mapping[str, Tensor]) -> None:
        self._model = load_pretrained(source, dtype=torch.float32)
        self._calibration_BT, self.splits = calibration_BT, splits
        self.moments = cache(self._measure)

    def folded(self) -> ResidualModel:
        """Return a fresh copy with its norms folded."""
        return ResidualModel(copy.deepcopy(self._model))

    def _measure(self, seed: int) -> Mapping[Place, Moments]:
        """Measure moments on the calibration windows, gradients at tokens drawn by a seed included."""
        return measure_moments(self.folded(), self._calibration_BT, with_gradients=True, seed=seed)

    def total_params(self, fraction: Fraction) -> int:
        """Return the total that a fraction stands for."""
        return compressed_params(self.folded(), one_sided(fraction), "dense")

    def row(self, name: str, fraction: Fraction, seed: int = 0) -> StudyRow:
        """Compress the model one way, to at most the total of a fraction, and score it."""
        residual, error, seconds = self.folded(), None, 0.0
        if name == SLICING:
            bases = stream_bases(residual, self.moments(0), self._calibration_BT)
            start = time.perf_counter()
            slice_model(residual, bases, largest_width(residual, self.total_params(fraction)))
            seconds = time.perf_counter() - start
        elif name != DENSE:
            if WAYS[name].weighting in ("activations", "gradients"):
                self.moments(seed)
            start = time.perf_counter()
            error = mean_error(self.run(residual, WAYS[name], fraction, seed))
            seconds = time.perf_counter() - start
        return StudyRow(
            fraction=str(fraction),
            name=name,
            seed=seed,
            num_params=residual.num_params(),
            relative_error=error,
            seconds=seconds,
            nats={split: tuple(window_nats(residual.model, tokens).tolist()) for split, tokens in self.splits.items()},
        )

    def run(self, residual: ResidualModel, way: Way, fraction: Fraction, seed: int = 0) -> Compression:
        """Compress a folded model one way, to at most the total of a fraction."""
        choose = one_sided(fraction)
        if way.choose is not None:
            choose = largest_choice(residual, way.choose, way.skips, self.total_params(fraction))
        moments = self.moments(seed) if way.weighting in ("activations", "gradients") else None
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


def is_drawn(name: str) -> bool:
    """Whether a row depends on the seed."""
    return name in WAYS and WAYS[name].weighting == "gradients"


def read_rows(path: Path) -> list[StudyRow]:
    """Return the rows of a file that `--out` wrote."""
    if not path.is_file():
        return []
    return [StudyRow(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _iterate_rows(
    study: Study, fraction: Fraction, names: list[str], seeds: list[int], out: Path | None
) -> Iterator[StudyRow]:
    known = {(row.fraction, row.name, row.seed): row for row in (read_rows(out) if out else [])}
    for name in [DENSE, *names]:
        for seed in seeds if is_drawn(name) else [0]:
            if (row := known.get((str(fraction), name, seed))) is None:
                row = study.row(name, fraction, seed)
                if out is not None:
                    with out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(row)) + "\n")
            yield row


def _render(row: StudyRow, splits: list[str]) -> str:
    name = f"{row.name}, seed {row.seed}" if row.seed else row.name
    perplexities = " | ".join(f"{row.on(split).perplexity:.3f}" for split in splits)
    error = "" if row.relative_error is None else f"{row.relative_error:.3f}"
    return f"| {name} | {row.num_params:,} | {perplexities} | {error} | {row.seconds:.0f} |"


def _parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m methods.procrustes.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model")
    parser.add_argument("--windows", type=Path, required=True)
    parser.add_argument("--splits", nargs="+", default=["val"])
    parser.add_argument(
        "--fractions", type=Fraction, nargs="+", default=[Fraction(3, 4), Fraction(5, 8), Fraction(1, 2)]
    )
    parser.add_argument("--rows", nargs="+", choices=[*WAYS, SLICING], default=[*WAYS, SLICING])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the tokens that gradients are drawn at")
    parser.add_argument("--out", type=Path, help="keeps rows, one a line of JSON")
    parser.add_argument("--no-null-control", action="store_true")
    return parser.parse_args(arguments)


def _print_tables(options: argparse.Namespace) -> None:
    with np.load(options.windows, allow_pickle=False) as stored:
        if absent := sorted({"calib", *options.splits} - set(stored.files)):
            raise UsageError(f"--windows {options.windows}: no array {', '.join(absent)}. Name others with --splits")
        tokens = {name: torch.from_numpy(stored[name].astype(np.int64)) for name in ("calib", *options.splits)}
    study = Study(options.model, tokens["calib"], {name: tokens[name] for name in options.splits})
    for fraction in options.fractions:
        print(f"r/k = {fraction}: {study.total_params(fraction):,} parameters at most\n")
        print(f"| way | parameters | {' | '.join(options.splits)} | relative error | seconds |")
        print("| --- |" + " ---: |" * (len(options.splits) + 3), flush=True)
        for row in _iterate_rows(study, fraction, options.rows, options.seeds, options.out):
            print(_render(row, options.splits), flush=True)
        print()
        if not options.no_null_control:
            print(*study.null_control(fraction), "", sep="\n", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; returns the exit code."""
    options = _parse_arguments(arguments)
    try:
        _print_tables(options)
    except (HarnessError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, HarnessError) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
