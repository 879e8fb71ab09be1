"""Legendre: groups of layers whose matrices are polynomials of depth, between two blocks of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Self

from pydantic import Field, NonNegativeInt, model_validator
from torch import Tensor, nn

from harness.backbone import BackboneMethod, BackboneSettings
from harness.errors import UsageError
from harness.method import ExportSettings, Role
from harness.nn.config import LinearRole
from harness.nn.generated import GeneratedLinear
from harness.nn.inits import normal_fan_in
from harness.nn.layers import LinearFactory, dense_factory
from harness.nn.network import Network
from harness.nn.transformer import Transformer
from methods.legendre.generator import Basis, LegendreGenerator

_Group = Mapping[str, LegendreGenerator]


class LegendreSettings(BackboneSettings):
    """The backbone's settings, and how depth is parameterised; the defaults are the published ones."""

    groups: int = Field(1, ge=1, description="groups of generated layers, each with coefficients of its own")
    sandwich: bool = Field(True, description="the first and the last block own their matrices")
    attention_degree: int = Field(5, ge=0, description="degree of query, key, value and output")
    mlp_degree: int = Field(2, ge=0, description="degree of gate, up and down")
    degrees: dict[LinearRole, NonNegativeInt] = Field({}, description="degree of single roles, where it differs")
    basis: Basis = Field("legendre", description="polynomials over depth")
    coefficient_lr_factor: float = Field(0.625, gt=0, description="rate of order 0 over that of matrices")
    order_lr_growth: float = Field(1.1, gt=0, description="factor from the rate of an order to that of the next")
    lora_rank: int = Field(0, ge=0, description="rank of a pair A B added to each generated weight; 0 for none")
    wrap: bool = Field(False, description="replace generated weights W by W - round(W)")
    order_schemes: tuple[str, ...] = Field(
        (), description="quantisation scheme of orders 0, 1, ...; further ones follow export.matrices"
    )

    def degree(self, role: LinearRole) -> int:
        """Return the degree of a role."""
        is_attention = role in ("query", "key", "value", "output")
        return self.degrees.get(role, self.attention_degree if is_attention else self.mlp_degree)

    @property
    def num_generated(self) -> int:
        """Generated blocks."""
        return self.num_blocks - 2 * self.sandwich

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """Blocks of each group: as equal as can be, the larger groups first."""
        size, larger = divmod(self.num_generated, self.groups)
        return tuple(size + (group < larger) for group in range(self.groups))

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if self.num_generated < self.groups:
            raise UsageError(
                f"groups: {self.groups} groups of {self.num_generated} generated layers. "
                f"Set num_layers to at least {self.groups + 2 * self.sandwich} or groups to fewer."
            )
        return self


class Legendre(BackboneMethod):
    """Generates the matrices of each group of layers from coefficient matrices, one per polynomial order."""

    settings_class = LegendreSettings
    settings: LegendreSettings

    def build(self) -> Transformer:
        """Make the network with fresh coefficients."""
        settings = self.settings
        groups = [self._make_group(size) for size in settings.group_sizes]
        network = Transformer(
            settings,
            vocab_size=self.task.vocab_size,
            context=self.task.context,
            linear=self._make_factory(groups),
        )
        network.add_module("generators", nn.ModuleList(nn.ModuleDict(group) for group in groups))
        return network

    def _make_group(self, num_layers: int) -> _Group:
        settings = self.settings
        return {
            role: LegendreGenerator(
                num_layers,
                settings.degree(role),
                *shape,
                basis=settings.basis,
                zero=role in ("output", "down"),
                lora_rank=settings.lora_rank,
                wrap=settings.wrap,
            )
            for role, shape in settings.linear_shapes.items()
        }

    def _make_factory(self, groups: Sequence[_Group]) -> LinearFactory:
        settings = self.settings
        own = dense_factory(settings, normal_fan_in)
        places = [
            (group, layer) for group, size in zip(groups, settings.group_sizes, strict=True) for layer in range(size)
        ]

        def make(role: LinearRole, depth: int, in_features: int, out_features: int) -> nn.Module:
            place = depth - settings.sandwich
            if role == "head" or not 0 <= place < len(places):
                return own(role, depth, in_features, out_features)
            group, layer = places[place]
            return GeneratedLinear(
                partial(group[role].weight, layer), bias_features=out_features if role in settings.biases else 0
            )

        return make

    def role_of(self, name: str) -> Role:
        """Coefficients and LoRA pairs are matrices; the rest is as in the backbone."""
        return "matrix" if ".coefficients" in name or ".lora_" in name else super().role_of(name)

    def lr_factor(self, name: str, parameter: Tensor) -> float | tuple[float, ...]:
        """Coefficients of order k learn at coefficient_lr_factor * order_lr_growth^k times the matrices' rate."""
        first, growth = self.settings.coefficient_lr_factor, self.settings.order_lr_growth
        if name.endswith(".coefficients"):
            return tuple(first * growth**k for k in range(len(parameter)))
        return first if ".lora_" in name else 1.0

    def part_of(self, name: str) -> str:
        """Name the component as the published parameter budget does, its layer scales apart."""
        kind, index, *_ = name.split(".")
        if kind == "generators":
            return next(part for part in ("coefficients", "layer_scales", "lora") if f".{part}" in name)
        if kind == "blocks":
            is_own = self.settings.sandwich and int(index) in (0, self.settings.num_blocks - 1)
            return "sandwich" if is_own else "layer_scalars"
        return super().part_of(name)

    def stored_tensors(self, network: Network) -> Iterator[tuple[str, Tensor]]:
        """Yield the coefficients order by order, so that each order has a scheme and a coder of its own."""
        for name, tensor in super().stored_tensors(network):
            if name.endswith(".coefficients"):
                yield from ((f"{name}.{k}", matrix_OI) for k, matrix_OI in enumerate(tensor))
            else:
                yield name, tensor

    def scheme_of(self, name: str, tensor: Tensor, export: ExportSettings) -> str:
        """Name the scheme of a stored tensor; `order_schemes` has the first word on coefficients."""
        stem, _, last = name.rpartition(".")
        if stem.endswith(".coefficients") and int(last) < len(self.settings.order_schemes):
            return self.settings.order_schemes[int(last)]
        return super().scheme_of(name, tensor, export)

    def flops_per_step(self, num_tokens: int) -> float:
        """Count forward and backward of the backbone, and of the generation of every weight, once."""
        settings = self.settings
        generation = sum(
            (settings.degree(role) + 1 + settings.lora_rank) * inside * outside
            for role, (inside, outside) in settings.linear_shapes.items()
        )
        return super().flops_per_step(num_tokens) + 3 * 2.0 * settings.num_generated * generation


METHOD = Legendre
