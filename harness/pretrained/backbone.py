"""The residual stream of a network of the shared backbone, seen as `ResidualModel` shows that of a pretrained model.

Shape letters: D residual features, N other features of a weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from harness.nn.config import LinearRole
from harness.nn.layers import Linear
from harness.nn.rotated import RotatedBlock, RotatedTransformer
from harness.pretrained.residual import READERS_OF_ATTENTION, Place, places_of


@dataclass(frozen=True, slots=True)
class StreamBlock:
    """A block by the roles of its linear maps."""

    module: RotatedBlock

    def linear(self, role: LinearRole) -> nn.Module:
        """Return the linear map of a role."""
        return self.module.get_submodule(self._path(role))

    def set_linear(self, role: LinearRole, module: nn.Module) -> None:
        """Put another module in the place of a linear map."""
        self.module.set_submodule(self._path(role), module)

    def roles(self) -> tuple[LinearRole, ...]:
        """Return the roles of its linear maps."""
        return (
            "query",
            "key",
            "value",
            "output",
            *(("gate",) if self.module.mlp.gate is not None else ()),
            "up",
            "down",
        )

    @staticmethod
    def _path(role: LinearRole) -> str:
        return f"attention.{role}" if role in (*READERS_OF_ATTENTION, "output") else f"mlp.{role}"


class BackboneStream:
    """A rotated transformer whose linear maps are dense yet.

    Args:
        network: changed in place.
    """

    def __init__(self, network: RotatedTransformer) -> None:
        self.network = network

    @property
    def blocks(self) -> list[StreamBlock]:
        """The blocks, first to last."""
        return [StreamBlock(cast(RotatedBlock, block)) for block in self.network.blocks]

    @property
    def tables(self) -> list[Tensor]:
        """The tables that write to the first basis, that of tokens first, each (rows, D)."""
        positions = self.network.positions
        learned = [positions] if isinstance(positions, nn.Parameter) else []
        return [table.detach() for table in (self.network.embedding.table, *learned)]

    @property
    def width(self) -> int:
        """D."""
        return self.network.config.width

    @property
    def num_bases(self) -> int:
        """2 L + 1."""
        return 2 * len(self.network.blocks) + 1

    def places(self, basis: int) -> list[Place]:
        """Return the linear maps of blocks that write to a basis or read from it, the writer first."""
        return places_of(basis, len(self.network.blocks), self.blocks[0].roles())

    def module(self, place: Place) -> nn.Module:
        """Return the module at a place."""
        return self.blocks[place.block].linear(place.role)

    def weight(self, place: Place) -> Tensor:
        """Return its dense weight oriented (D, N), a view."""
        weight_OI = cast(Linear, self.module(place)).weight.detach()
        return weight_OI.T if place.reads else weight_OI

    @torch.no_grad()
    def rotate(self, bases: Sequence[Tensor]) -> None:
        """Go to orthogonal bases (D, D), one for each of `num_bases`, which leaves the function as it is."""
        bases = [basis.double() for basis in bases]
        for table in self.tables:
            table.copy_(table.double() @ bases[0].T)
        for index, basis in enumerate(bases):
            for place in self.places(index):
                weight_DN = self.weight(place)
                weight_DN.copy_(basis @ weight_DN.double())
        for index, block in enumerate(self.network.blocks):
            attention, mlp, following = bases[2 * index : 2 * index + 3]
            cast(RotatedBlock, block).attention_skip.copy_(attention @ mlp.T)
            cast(RotatedBlock, block).mlp_skip.copy_(mlp @ following.T)
        if self.network.head_skip is not None:
            self.network.head_skip.copy_(bases[-1] @ bases[0].T)
        else:
            head_VD = cast(Linear, self.network.head).weight
            head_VD.copy_(head_VD.double() @ bases[-1].T)
