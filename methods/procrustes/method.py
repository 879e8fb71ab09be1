"""Procrustes: a dense network, rotated part by part so that its matrices can be replaced by structured ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self, cast

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from harness.backbone import BackboneMethod, BackboneSettings
from harness.errors import ArtifactError, UsageError
from harness.method import ParamCounts, Parent, Role, TrainingRun, load_tensors
from harness.nn.config import LinearRole
from harness.nn.inits import uniform_fan_in
from harness.nn.layers import LinearFactory, dense_factory
from harness.nn.network import Network
from harness.nn.transformer import Transformer
from harness.pretrained.moments import Moments
from harness.pretrained.residual import Place
from methods.procrustes.classes import BlockLowRank, Exact, Kronecker, LowRank, Monarch, StructuredClass
from methods.procrustes.compress import Solver, by_alternation, by_descent, by_principal_basis, compress
from methods.procrustes.layer import StructuredLinear
from methods.procrustes.network import RotatedTransformer
from methods.procrustes.solver import SolverOptions
from methods.procrustes.stream import BackboneStream

# Parts of the backbone that act on single residual features, in which a rotation would change the function.
FIXED = {
    "norm": "rms",
    "sublayer_scales": False,
    "residual_mix": False,
    "skips": False,
    "schedule": (),
    "embedding_rank": 0,
    "biases": (),
}


class ProcrustesSettings(BackboneSettings):
    """The backbone's settings, the structured class of each matrix, and how the rotations are found."""

    sublayer_scales: bool = False
    residual_mix: bool = False
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
    dense_share: float = Field(0.8, gt=0, lt=1, description="part of the budget that trains dense; none with --from")
    calibration_tokens: PositiveInt = Field(65_536, description="training tokens that errors are weighted on")

    @model_validator(mode="after")
    def _check_basis_is_free(self) -> Self:
        for key, value in FIXED.items():
            if getattr(self, key) != value:
                raise UsageError(f"{key}: a rotation would change the network's function. Set {key}={value!r}")
        if self.positions == "sinusoidal":
            raise UsageError("positions: a fixed table cannot be rotated. Set positions=rope, learned or none")
        return self

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


class Procrustes(BackboneMethod):
    """Stores the factors of structured matrices and the matrices between bases."""

    settings_class = ProcrustesSettings
    settings: ProcrustesSettings

    def build(self) -> RotatedTransformer:
        """Make the network with fresh factors and no rotation."""

        def make(role: LinearRole, depth: int, in_features: int, out_features: int) -> nn.Module:
            if role == "head" or role in self.settings.exact_roles:
                return self._dense_factory()(role, depth, in_features, out_features)
            structure = self._structure(role, in_features, out_features)
            std = in_features**-0.25
            return StructuredLinear(
                structure, tuple(std * torch.randn(shape) for shape in structure.factor_shapes), None
            )

        return self._rotated(make)

    def train(self, run: TrainingRun) -> Network:
        """Train dense, or take the parent's network; compress it; train the factors for what is left of the budget."""
        settings = self.settings
        share = 1.0
        if run.parent is None:
            dense = self._dense()
            dense = cast(Transformer, run.fit(dense, share=settings.dense_share, flops_per_step=super().flops_per_step))
            share = 1 - settings.dense_share
        else:
            dense = self._dense_from(run.parent)
        moments = {}
        if settings.weighting == "activations":
            moments = run.calibrate(dense, num_tokens=settings.calibration_tokens)
        return run.fit(self.compress(dense, moments), share=share)

    @torch.no_grad()
    def compress(self, dense: Transformer, moments: Mapping[str, Tensor]) -> RotatedTransformer:
        """Return the rotated network with structured matrices in the place of a dense one's.

        Args:
            dense: of the same backbone.
            moments: second moments of the inputs of each linear map, by its name, where errors are weighted by them.
        """
        network = self._rotated(self._dense_factory()).to(next(dense.parameters()).device)
        network.load_state_dict(dense.state_dict(), strict=False)
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
        return "matrix" if ".factors." in name or name.endswith("_skip") else super().role_of(name)

    def part_of(self, name: str) -> str:
        """Name the component: matrices between bases apart from the blocks' own."""
        return "skips" if name.endswith("_skip") else "blocks" if ".factors." in name else super().part_of(name)

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
        extra = (2 * settings.num_layers + settings.tied) * settings.width**2
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

    def _dense_factory(self) -> LinearFactory:
        return dense_factory(self.settings, uniform_fan_in)

    def _dense(self) -> Transformer:
        return Transformer(
            self.settings, vocab_size=self.task.vocab_size, context=self.task.context, linear=self._dense_factory()
        )

    def _dense_from(self, parent: Parent) -> Transformer:
        network = self._dense()
        try:
            load_tensors(network, parent.tensors)
        except ArtifactError as error:
            raise UsageError(f"--from a record of '{parent.method}': {error}") from error
        return network

    def _rotated(self, linear: LinearFactory) -> RotatedTransformer:
        return RotatedTransformer(
            self.settings, vocab_size=self.task.vocab_size, context=self.task.context, linear=linear
        )


METHOD = Procrustes
