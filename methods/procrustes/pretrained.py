"""Procrustes on a pretrained model: rotate part by part, put structured matrices for dense ones, train nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from harness.method import TrainingRun
from harness.nn.config import LinearRole
from harness.pretrained.method import PretrainedMethod, PretrainedSettings
from harness.pretrained.moments import Moments, measure_moments
from harness.pretrained.network import PretrainedNetwork
from harness.pretrained.parts import DenseSkip
from harness.pretrained.residual import Place, ResidualModel, iterate_linears
from harness.pretrained.unrotate import keep_means_out
from harness.records.schema import BesidePart
from methods.procrustes.budgets import many_parts
from methods.procrustes.classes import BlockLowRank, Exact, Kronecker, LowRank, Monarch, StructuredClass
from methods.procrustes.comparison import ROTATION, ComparisonSettings, Row, fair_comparison
from methods.procrustes.compress import (
    Skips,
    Solver,
    by_alternation,
    by_descent,
    by_principal_basis,
    compress,
    without_rotation,
)
from methods.procrustes.layer import StructuredLinear
from methods.procrustes.skips import CayleySkip
from methods.procrustes.solver import SolverOptions
from methods.procrustes.weighting import Choice, Weighting

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_SHARE = 0.999  # a share of 1 keeps the matrix as it is

_SOLVERS: Mapping[str, Callable[[], Solver]] = {
    "principal": lambda: by_principal_basis,
    "alternation": lambda: by_alternation(SolverOptions()),
    "descent": by_descent,
}


class PretrainedProcrustesSettings(PretrainedSettings):
    """The structured class of each matrix, how rotations are found and stored, and how errors count."""

    structure: Literal["kronecker", "monarch", "low_rank", "block_low_rank"] = Field(
        "kronecker", description="class of the matrices; kronecker is one-sided"
    )
    terms: PositiveInt = Field(3, description="Kronecker terms, or the rank (of each block)")
    parts: PositiveInt = Field(4, description="parts of the residual features, or blocks a side")
    share: float = Field(
        0.0, ge=0, lt=1, description="part of a matrix's numbers to keep, which chooses the terms; 0: as many as said"
    )
    exact_roles: tuple[LinearRole, ...] = Field(("value",), description="roles that keep a dense matrix")
    solver: Literal["principal", "alternation", "descent"] = Field(
        "descent", description="principal basis alone, alternating projections, or descent over rotations"
    )
    weighting: Weighting = Field("activations", description="how errors count; alternation and principal know none")
    skips: Skips = Field(
        "dense", description="matrices between the bases: dense, cayley, one shared basis, none (no rotation)"
    )
    calibration_tokens: PositiveInt = Field(65_536, description="training tokens that errors are weighted on")
    comparison: bool = Field(
        True, description="compress copies in the ways that a rotation has to beat, and put them into the record"
    )

    def structure_of(self, place: Place, rows: int, columns: int) -> StructuredClass:
        """Return the class of the weight at a place, oriented with the residual features as rows.

        Raises:
            UsageError: the parts do not divide its sizes, or there are more terms than it has.
        """
        if place.role in self.exact_roles:
            return Exact(rows, columns)
        unit = self._make(rows, columns, 1)
        terms = self.terms if not self.share else max(1, int(self.share * rows * columns / unit.num_params))
        if self.share and terms * unit.num_params >= rows * columns:
            return Exact(rows, columns)
        return self._make(rows, columns, terms)

    def by_share(self, share: float) -> Choice:
        """Return the choice of classes of this structure with at most a share of each map's numbers.

        A Kronecker class gets as many parts as make the share close, since few parts leave much of it unused.
        """
        if self.structure == "kronecker":
            return many_parts(share, self.exact_roles)
        return self.model_copy(update={"share": min(share, MAX_SHARE)}).structure_of

    def _make(self, rows: int, columns: int, terms: int) -> StructuredClass:
        if self.structure == "low_rank":
            return LowRank(rows, columns, terms)
        if self.structure == "block_low_rank":
            return BlockLowRank(rows, columns, self.parts, self.parts, terms)
        if self.structure == "monarch":
            return Monarch(rows, columns, self.parts, self.parts, terms * self.parts)
        return Kronecker(rows, columns, terms, self.parts, 1)


class PretrainedProcrustes(PretrainedMethod):
    """Stores the factors of structured matrices, the matrices between bases, and the rest of the model as it is."""

    settings_class = PretrainedProcrustesSettings
    settings: PretrainedProcrustesSettings

    def train(self, run: TrainingRun) -> PretrainedNetwork:
        """Compress the model; nothing is trained."""
        settings = self.settings
        residual = ResidualModel(run.pretrained)
        moments: Mapping[Place, Moments] = {}
        if settings.weighting in ("activations", "gradients"):

            def measure(tokens_BT: Tensor) -> Mapping[Place, Moments]:
                return measure_moments(
                    residual,
                    tokens_BT,
                    with_gradients=settings.weighting == "gradients",
                    batch_size=max(1, 2048 // tokens_BT.size(1)),
                    seed=torch.initial_seed(),
                )

            moments = run.observe(measure, num_tokens=settings.calibration_tokens)
        compress(
            residual,
            settings.structure_of,
            without_rotation if settings.skips == "none" else _SOLVERS[settings.solver](),
            weighting=settings.weighting,
            moments=moments,
            skips=settings.skips,
        )
        self._fill_skips(residual, lambda: _identity_skip(settings.skips, residual))
        keep_means_out(residual)
        return PretrainedNetwork(residual)

    def beside(
        self, load: Callable[[], PreTrainedModel], calibrate: Callable[[int], Tensor], windows_BT: Tensor
    ) -> Sequence[BesidePart]:
        """Compare with no rotation, SVDs, slicing and Gaussian weights at the same total (`fair_comparison`)."""
        settings = self.settings
        if not settings.comparison or settings.skips == "none":
            return ()
        rows = fair_comparison(
            load(),
            ComparisonSettings(
                choose=settings.structure_of,
                skips=settings.skips,
                solve=_SOLVERS[settings.solver](),
                weighting=settings.weighting,
                by_share=settings.by_share,
                exact_roles=settings.exact_roles,
                seed=torch.initial_seed(),
            ),
            calibration_BT=calibrate(settings.calibration_tokens),
            test_BT=windows_BT,
        )
        own = next(row for row in rows if row.name == ROTATION)
        return [_describe(row, own) for row in rows]

    def shape(self, residual: ResidualModel) -> None:
        """Put empty factors, matrices between bases and the head's in their places."""
        for place, module in list(iterate_linears(residual)):
            linear = cast(nn.Linear, module)
            rows, columns = residual.weight(place).shape
            structure = self.settings.structure_of(place, rows, columns)
            if isinstance(structure, Exact):
                continue
            if not place.reads:
                blank = tuple(torch.empty(shape, device="meta") for shape in structure.factor_shapes)
                structure, _ = structure.transpose(blank)
            factors = tuple(torch.empty(shape, device="meta") for shape in structure.factor_shapes)
            residual.blocks[place.block].set_linear(place.role, StructuredLinear(structure, factors, linear.bias))
        self._fill_skips(residual, lambda: _blank_skip(self.settings.skips, residual.width))
        if residual.family.centres:
            norms = [norm for block in residual.blocks for norm in (block.norm, block.mlp_norm)]
            for norm in (*norms, residual.head_norm.norm):
                norm.removed = nn.Parameter(torch.empty(residual.width, device="meta"))
        if residual.is_tied and self.settings.skips != "none":
            residual.head_norm.gain = nn.Parameter(torch.empty(residual.width, residual.width, device="meta"))

    def prepare(self, network: PretrainedNetwork, tensors: Mapping[str, np.ndarray[Any, Any]]) -> PretrainedNetwork:
        """Make room for the reflections of Cayley's form, of which each matrix has as many as it needs."""
        for name, module in network.named_modules():
            if isinstance(module, CayleySkip):
                stored = tensors.get(f"{name}.reflections")
                count = 0 if stored is None or stored.ndim != 2 else len(stored)
                width = network.residual.width
                shape = (count, width)
                module.reflections = nn.Parameter(torch.empty(shape, device="meta" if count else "cpu"))
        return network

    def dense_numbers(self, module: nn.Module) -> tuple[int, int] | None:
        """Count factors as the matrix that they stand for, and Cayley's form as the matrix that it makes."""
        if isinstance(module, StructuredLinear):
            bias = 0 if module.bias is None else module.bias.numel()
            structure = module.structure
            return structure.rows * structure.columns + bias, structure.multiply_adds + bias
        if isinstance(module, CayleySkip):
            square = module.reflections.size(1) ** 2
            return square, square
        return None

    def _fill_skips(self, residual: ResidualModel, make: Callable[[], nn.Module]) -> None:
        """Give every skip connection its matrix, that of the identity where two bases happen to be one."""
        if self.settings.skips not in ("dense", "cayley"):
            return
        for block in residual.blocks:
            for name in ("attention_skip", "mlp_skip"):
                if isinstance(getattr(block, name), nn.Identity):
                    setattr(block, name, make())


def _identity_skip(skips: Skips, residual: ResidualModel) -> nn.Module:
    identity_DD = torch.eye(residual.width).to(residual.tables[0])
    return DenseSkip(identity_DD) if skips == "dense" else CayleySkip(identity_DD)


def _blank_skip(skips: Skips, width: int) -> nn.Module:
    if skips == "dense":
        return DenseSkip(torch.empty(width, width, device="meta"))
    return CayleySkip.of_shape(width)


def _describe(row: Row, own: Row) -> BesidePart:
    is_paired = row is not own and len(row.window_nats) > 1  # what has no windows has nothing to pair
    more_nats, interval = row.more_nats_than(own) if is_paired else (None, None)
    return BesidePart(
        name=row.name,
        num_params=row.num_params,
        relative_error=row.relative_error,
        perplexity=row.perplexity,
        more_nats=more_nats,
        more_nats_error=interval.standard_error if interval else None,
        seconds=row.seconds,
        problem=row.problem,
    )


METHOD = PretrainedProcrustes
