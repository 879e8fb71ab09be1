"""The rotated backbone with fewer features in its residual stream than its attention and MLP were made for.

Shape letters: B batch, T positions, V vocabulary, D width of the backbone, K features that are kept.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from harness.nn.config import BackboneConfig, LinearRole
from harness.nn.layers import LinearFactory
from harness.nn.rotated import RotatedBlock, RotatedTransformer


class SlicedTransformer(RotatedTransformer):
    """A residual stream of K features; heads and inner features are those of the width D.

    Args:
        config: of the network that is sliced.
        vocab_size: number of token ids.
        context: longest input, in tokens.
        linear: makes every linear map, asked for the features it has.
        kept: K.
    """

    def __init__(
        self, config: BackboneConfig, *, vocab_size: int, context: int, linear: LinearFactory, kept: int
    ) -> None:
        def make(role: LinearRole, depth: int, in_features: int, out_features: int) -> nn.Module:
            if role in ("output", "down"):
                return linear(role, depth, in_features, kept)
            return linear(role, depth, kept, out_features)

        super().__init__(config, vocab_size=vocab_size, context=context, linear=make)
        self.embedding.table = nn.Parameter(self.embedding.table.detach()[:, :kept].clone())
        if isinstance(self.positions, nn.Parameter):
            self.positions = nn.Parameter(self.positions.detach()[:, :kept].clone())
        for block in self.blocks:
            cast(RotatedBlock, block).attention_skip = nn.Parameter(torch.eye(kept))
            cast(RotatedBlock, block).mlp_skip = nn.Parameter(torch.eye(kept))
        if self.head_skip is not None:
            self.head_skip = nn.Parameter(torch.eye(kept))

    def products(self, x_BTK: Tensor) -> Tensor:
        """Return the products of the head (B, T, V): the matrix after the norm, with which it does not commute."""
        x_BTK = self.final_norm(x_BTK)
        if self.head is not None:
            return cast(Tensor, self.head(x_BTK))
        assert self.head_skip is not None
        return self.embedding.unembed(x_BTK @ self.head_skip.to(x_BTK.dtype))
