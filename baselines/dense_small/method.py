"""A dense network as large as a given record, in stored parameters or in stored bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import torch
from pydantic import Field, model_validator

from harness.artifact.expected import expected_bytes
from harness.backbone import BackboneMethod, BackboneSettings
from harness.errors import UsageError
from harness.method import ExportSettings, Setup, Task
from harness.nn.inits import normal, uniform_fan_in
from harness.nn.layers import dense_factory
from harness.nn.transformer import Transformer
from harness.sizing import Shape, Sized, find_shape

Match = Literal["params", "bytes"]


class DenseSmallSettings(BackboneSettings):
    """The backbone's settings, whose width, depth and inner width are worked out from a target before a run."""

    like: str = Field("", description="folder of the record to be as large as")
    match: Match = Field("params", description="in stored parameters, or in stored bytes")
    target_params: int = Field(0, ge=0, description="stored parameters to have, instead of a record; 0 for none")
    bits_from: str = Field("", description="folder of a dense record whose bits a number foretell the bytes")
    init_std: float = Field(0.0, ge=0, description="deviation of initial matrices; 0 for U(-1/sqrt(in), 1/sqrt(in))")
    zero_outputs: bool = Field(True, description="matrices that write to the residual stream start at zero")

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if self.like and self.target_params:
            raise UsageError("like, target_params: two targets. Set one of them.")
        if self.match == "bytes" and not self.like:
            raise UsageError("match: bytes are matched with a record. Set like=FOLDER.")
        return self

    def settle(self, setup: Setup) -> Self:
        """Return settings of the shape that meets the target, which is then named no more: a decoder needs no record.

        Raises:
            UsageError: no shape of these proportions is as small as the target.
            RecordError: there is no record in the folder.
        """
        if not (self.like or self.target_params):
            return self
        target, bits = float(self.target_params), dict[str, float]()
        overhead = 0
        if self.like:
            sizes = setup.sizes_of(self.like)
            overhead = sizes.overhead_bytes if self.match == "bytes" else 0
            target = float(sizes.artifact_bytes if self.match == "bytes" else sizes.num_params_stored)
        if self.bits_from:
            bits |= setup.sizes_of(self.bits_from).bits_by_scheme

        def size_of(shape: Shape) -> float:
            return overhead + _measure(self._with_shape(shape), setup.task, setup.export, self.match, bits)

        start = Shape(width=self.width, num_layers=self.num_layers, mlp_width=self.mlp_width)
        found = find_shape(start, target, size_of, width_step=2 * self.num_heads, can_vary_depth=not self.schedule)
        if found is None:
            raise UsageError(
                f"no network of {self.num_heads} heads is as small as {target:,.0f} {self.match}. Set fewer."
            )
        setup.say(_describe(found, target, self.match, self.like))
        return self._with_shape(found.shape)

    def _with_shape(self, shape: Shape) -> Self:
        changed = {
            "width": shape.width,
            "num_layers": shape.num_layers,
            "mlp_width": shape.mlp_width,
            "like": "",
            "match": "params",
            "target_params": 0,
            "bits_from": "",
        }
        return type(self).model_validate(self.model_dump() | changed)


class DenseSmall(BackboneMethod):
    """Every block owns its matrices, as in the dense baseline."""

    settings_class = DenseSmallSettings
    settings: DenseSmallSettings

    def build(self) -> Transformer:
        """Make the network with fresh weights."""
        settings = self.settings
        init = normal(settings.init_std) if settings.init_std else uniform_fan_in
        return Transformer(
            settings,
            vocab_size=self.task.vocab_size,
            context=self.task.context,
            linear=dense_factory(settings, init, zero_outputs=settings.zero_outputs),
        )


def _measure(
    settings: DenseSmallSettings, task: Task, export: ExportSettings, match: Match, bits: Mapping[str, float]
) -> float:
    """Count the stored parameters of a network, or estimate the bytes of its tensors."""
    method = DenseSmall(settings, task)
    with torch.device("meta"):
        network = method.build()
    if match == "params":
        return method.count_stored(network, export)
    return sum(expected_bytes(shape, scheme, bits) for shape, scheme in method.stored_shapes(network, export))


def _describe(found: Sized, target: float, match: Match, like: str) -> str:
    shape, what = found.shape, "stored parameters" if match == "params" else "stored bytes expected"
    return (
        f"dense_small: {shape.num_layers} layers of width {shape.width}, inner width {shape.mlp_width}: "
        f"{found.size:,.0f} {what}, {found.size / target - 1:+.2%} of {target:,.0f}{f' of {like}' if like else ''}"
    )


METHOD = DenseSmall
