"""What the compression asks of a network: a pretrained model or one of the shared backbone.

Shape letters: D residual features, N other features of a weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from harness.nn.config import LinearRole
from harness.pretrained.residual import Place


class StreamBlock(Protocol):
    """A block whose linear maps can be replaced."""

    def set_linear(self, role: LinearRole, module: nn.Module) -> None:
        """Put another module in the place of a linear map."""
        ...


class Stream(Protocol):
    """A network with a residual stream, as `harness.pretrained.residual.ResidualModel` describes it."""

    @property
    def blocks(self) -> Sequence[StreamBlock]:
        """The blocks, first to last."""
        ...

    @property
    def tables(self) -> list[Tensor]:
        """The tables that write to the first basis, that of tokens first, each (rows, D)."""
        ...

    @property
    def width(self) -> int:
        """D."""
        ...

    @property
    def num_bases(self) -> int:
        """Bases along the depth."""
        ...

    def places(self, basis: int) -> list[Place]:
        """Return the linear maps that write to a basis or read from it."""
        ...

    def module(self, place: Place) -> nn.Module:
        """Return the module at a place, which has a `bias`."""
        ...

    def weight(self, place: Place) -> Tensor:
        """Return its dense weight oriented (D, N)."""
        ...

    def rotate(self, bases: Sequence[Tensor]) -> None:
        """Go to other bases."""
        ...
