"""Procrustes: a dense network, rotated part by part so that its matrices can be replaced by structured ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from harness.method import ParamCounts, Role, TrainingRun
from harness.nn.config import LinearRole
from harness.nn.network import Network
from harness.nn.rotated import RotatedTransformer
from harness.nn.transformer import Transformer
from harness.pretrained.backbone import BackboneStream
from harness.pretrained.moments import Moments
from harness.pretrained.residual import Place
from harness.rotated import RotatedMethod, RotatedSettings
from methods.procrustes.classes import BlockLowRank, Exact, Kronecker, LowRank, Monarch, StructuredClass
from methods.procrustes.compress import Solver, by_alternation, by_descent, by_principal_basis, compress
from methods.procrustes.layer import StructuredLinear
from methods.procrustes.solver import SolverOptions


class ProcrustesSettings(RotatedSettings):
    """The backbone's settings, the structured class of each matrix, and how the rotations are found."""

    structure: Literal["kronecker", "monarch", "low_rank", "block_low_rank"] = Field(
        "kronecker", description="class of the matrices; kronecker is one-sided"
    )
    terms: PositiveInt = Field(3, description="Kronecker terms, or the rank (of each block)")
    parts: PositiveInt = Field(4, description="parts of the residual features, or blocks a side")
    exact_roles: tuple[LinearRole, ...] = Field(("value",), description="roles that keep a dense matrix")
    solver: Literal["principal", "alternation", "descent"] = Field(
        "descent", description="principal basis alone, alternating projections, or descent over rotations"
    )
    weighting: Literal["none", "weights", "activations"] = Field(
        "activations", description="how errors count; alternation and principal know no weights"
    )

    def structure_of(self, place: Place, rows: int, columns: int) -> StructuredClass:
        """Return the class of the weight at a place, oriented with the residual features as rows."""
        if place.role in self.exact_roles:
            return Exact(rows, columns)
        if self.structure == "low_rank":
            return LowRank(rows, columns, self.terms)
        if self.structure == "block_low_rank":
            return BlockLowRank(rows, columns, self.parts, self.parts, self.terms)
        if self.structure == "monarch":
            return Monarch(rows, columns, self.parts, self.parts, self.terms * self.parts)
        return Kronecker(rows, columns, self.terms, self.parts, 1)


class Procrustes(RotatedMethod):
    """Stores the factors of structured matrices and the matrices between bases."""

    settings_class = ProcrustesSettings
    settings: ProcrustesSettings

    def build(self) -> RotatedTransformer:
        """Make the network with fresh factors and no rotation."""

        def make(role: LinearRole, depth: int, in_features: int, out_features: int) -> nn.Module:
            if role == "head" or role in self.settings.exact_roles:
                return self.dense_factory()(role, depth, in_features, out_features)
            structure = self._structure(role, in_features, out_features)
            std = in_features**-0.25
            return StructuredLinear(
                structure, tuple(std * torch.randn(shape) for shape in structure.factor_shapes), None
            )

        return RotatedTransformer(
            self.settings, vocab_size=self.task.vocab_size, context=self.task.context, linear=make
        )

    def compress_dense(self, dense: Transformer, run: TrainingRun) -> Network:
        """Compress with moments of the run's first tokens, where errors are weighted by them."""
        needs_moments = self.settings.weighting == "activations"
        return self.compress(
            dense, run.calibrate(dense, num_tokens=self.settings.calibration_tokens) if needs_moments else {}
        )

    @torch.no_grad()
    def compress(self, dense: Transformer, moments: Mapping[str, Tensor]) -> RotatedTransformer:
        """Return the rotated network with structured matrices in the place of a dense one's.

        Args:
            dense: of the same backbone.
            moments: second moments of the inputs of each linear map, by its name, where errors are weighted by them.
        """
        network = self.with_bases(dense)
        stream = BackboneStream(network)
        names = {id(module): name for name, module in network.named_modules()}
        places = [place for basis in range(stream.num_bases) for place in stream.places(basis)]
        measured = {
            place: Moments(num_tokens=1, input_squares=moments[names[id(stream.module(place))]])
            for place in places
            if moments
        }
        with torch.enable_grad():
            compress(
                stream, self.settings.structure_of, self._solver(), weighting=self.settings.weighting, moments=measured
            )
        return network

    def role_of(self, name: str) -> Role:
        """Factors and matrices between bases are matrices, but for the few numbers of a left Kronecker factor."""
        if name.endswith(".factors.0") and self.settings.structure == "kronecker":
            return "scalar"
        return "matrix" if ".factors." in name else super().role_of(name)

    def part_of(self, name: str) -> str:
        """Name the component: factors are the blocks' own."""
        return "blocks" if ".factors." in name else super().part_of(name)

    def count_params(self, network: Network) -> ParamCounts:
        """Count as effective the matrices that factors stand for, as active the factors; matrices between bases too."""
        counts = super().count_params(network)
        skips = counts.parts["skips"]
        saved = sum(
            inside * outside - self._structure(role, inside, outside).num_params
            for role, inside, outside in self._maps()
        )
        return ParamCounts(effective=counts.effective + skips, active=counts.active + skips - saved, parts=counts.parts)

    def flops_per_step(self, num_tokens: int) -> float:
        """Count the backbone's operations, with those of structured products and of the matrices between bases."""
        settings = self.settings
        extra = settings.skip_params(settings.width)
        for role, inside, outside in self._maps():
            extra += self._structure(role, inside, outside).multiply_adds - inside * outside
        return super().flops_per_step(num_tokens) + 3 * 2.0 * extra * num_tokens

    def _maps(self) -> list[tuple[LinearRole, int, int]]:
        """Return role, in and out features of every structured map, at every depth."""
        settings = self.settings
        shapes = [(role, *shape) for role, shape in settings.linear_shapes.items() if role not in settings.exact_roles]
        return shapes * settings.num_layers

    def _structure(self, role: LinearRole, in_features: int, out_features: int) -> StructuredClass:
        """Return the class of a map's (I, O) matrix."""
        reads = role not in ("output", "down")
        sides = (in_features, out_features) if reads else (out_features, in_features)
        structure = self.settings.structure_of(Place(block=0, role=role, reads=reads), *sides)
        if reads:
            return structure
        return structure.transpose(tuple(torch.empty(shape, device="meta") for shape in structure.factor_shapes))[0]

    def _solver(self) -> Solver:
        if self.settings.solver == "principal":
            return by_principal_basis
        return by_descent() if self.settings.solver == "descent" else by_alternation(SolverOptions())


METHOD = Procrustes
