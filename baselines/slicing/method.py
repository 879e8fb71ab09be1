"""Slicing: a dense network, each part of it rotated to the principal components of its inputs, which lose the least."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from pydantic import Field
from torch import Tensor, nn

from baselines.slicing.network import SlicedTransformer
from harness.method import ParamCounts, TrainingRun
from harness.nn.layers import Linear
from harness.nn.network import Network
from harness.nn.transformer import Transformer
from harness.pretrained.backbone import BackboneStream
from harness.pretrained.slicing import principal_components
from harness.rotated import RotatedMethod, RotatedSettings

# Name of the map that stands before a tied head while moments are measured.
PROBE = "final_norm.1"


class SlicingSettings(RotatedSettings):
    """The backbone's settings, and how much of the residual stream is kept."""

    kept_share: float = Field(0.75, gt=0, le=1, description="part of the residual features that is kept")

    @property
    def kept_width(self) -> int:
        """Features that are kept, at least one."""
        return max(1, round(self.kept_share * self.width))


class Slicing(RotatedMethod):
    """Stores a network whose residual stream is narrower than the one it was trained with."""

    settings_class = SlicingSettings
    settings: SlicingSettings

    def build(self) -> SlicedTransformer:
        """Make the narrow network with fresh weights."""
        return SlicedTransformer(
            self.settings,
            vocab_size=self.task.vocab_size,
            context=self.task.context,
            linear=self.dense_factory(),
            kept=self.settings.kept_width,
        )

    def compress_dense(self, dense: Transformer, run: TrainingRun) -> Network:
        """Slice by moments of the run's first tokens."""
        with _probed(dense):
            moments = run.calibrate(dense, num_tokens=self.settings.calibration_tokens)
        return self.slice(dense, moments)

    @torch.no_grad()
    def slice(self, dense: Transformer, moments: Mapping[str, Tensor]) -> SlicedTransformer:
        """Return the network that is left of a dense one's.

        Norms over K of D features divide by less: what reads from the stream makes up for it. With a norm behind the
        embedding, the stream itself begins longer by (D / K)^(1/2), and what writes to it has to keep up.

        Args:
            dense: of the same backbone.
            moments: second moments of the inputs of each linear map, by its name, that before the head among them.
        """
        settings = self.settings
        whole = self.with_bases(dense)
        stream = BackboneStream(whole)
        names = {id(module): name for name, module in whole.named_modules()}
        readers = [
            next(place for place in stream.places(basis) if place.reads) for basis in range(stream.num_bases - 1)
        ]
        seen = [*(moments[names[id(stream.module(place))]] for place in readers), moments[_last_reader(dense)]]
        stream.rotate([principal_components(moment_DD) for moment_DD in seen])
        network = self.build().to(whole.embedding.table)
        parts = dict(whole.named_parameters())
        for name, parameter in network.named_parameters():
            # Leading components come first in every basis: a corner is what is kept.
            parameter.copy_(parts[name][tuple(slice(size) for size in parameter.shape)])
        reader_scale = (settings.width / settings.kept_width) ** 0.5
        sliced = BackboneStream(network)
        for basis in range(sliced.num_bases):
            for place in sliced.places(basis):
                if place.reads:
                    sliced.weight(place).mul_(reader_scale)
                elif settings.embedding_norm:
                    sliced.weight(place).div_(reader_scale)
        head = network.head_skip if network.head is None else network.head.get_parameter("weight")
        assert head is not None
        head.mul_(reader_scale)
        return network

    def count_params(self, network: Network) -> ParamCounts:
        """Count what runs: every map is narrower on the side of the stream; and the matrices between bases."""
        settings, counts = self.settings, super().count_params(network)
        cut = settings.width - settings.kept_width
        skips = settings.skip_params(settings.kept_width)
        learned = settings.positions == "learned"
        rows = self.task.vocab_size * (1 if settings.tied else 2) + self.task.context * learned
        active_rows = self.task.vocab_size + (not settings.tied) + learned
        faces = self._features_that_face_the_stream
        return ParamCounts(
            effective=counts.effective + skips - cut * (faces + rows),
            active=counts.active + skips - cut * (faces + active_rows),
            parts=counts.parts,
        )

    def flops_per_step(self, num_tokens: int) -> float:
        """Count the backbone's operations, less those of features that are cut, with the matrices between bases."""
        settings = self.settings
        cut = settings.width - settings.kept_width
        fewer = cut * (self._features_that_face_the_stream + self.task.vocab_size)
        extra = settings.skip_params(settings.kept_width) - fewer
        return super().flops_per_step(num_tokens) + 3 * 2.0 * extra * num_tokens

    @property
    def _features_that_face_the_stream(self) -> int:
        """In or out features, on their other side, of all linear maps of the blocks."""
        shapes = self.settings.linear_shapes.items()
        block = sum(inside if role in ("output", "down") else outside for role, (inside, outside) in shapes)
        return self.settings.num_layers * block


def _last_reader(dense: Transformer) -> str:
    return PROBE if dense.head is None else "head"


@contextmanager
def _probed(dense: Transformer) -> Iterator[None]:
    """Put a linear map that changes nothing before a tied head, so that its inputs are measured as others are."""
    norm = dense.final_norm
    if dense.head is None:
        probe = Linear(dense.config.width, dense.config.width, nn.init.eye_).to(dense.embedding.table)
        dense.final_norm = nn.Sequential(norm, probe)
    try:
        yield
    finally:
        dense.final_norm = norm


METHOD = Slicing
