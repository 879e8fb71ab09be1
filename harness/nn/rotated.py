"""The shared backbone with a basis for every part: matrices on its skip connections and before a tied head.

Shape letters: B batch, T positions, D width, V vocabulary.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from harness.nn.config import BackboneConfig
from harness.nn.layers import LinearFactory, Rotary
from harness.nn.transformer import Block, Transformer


class RotatedBlock(Block):
    """Attention and MLP, each in a basis of its own."""

    def __init__(self, config: BackboneConfig, linear: LinearFactory, depth: int, rotary: Rotary | None) -> None:
        super().__init__(config, linear, depth, rotary)
        self.attention_skip = nn.Parameter(torch.eye(config.width))
        self.mlp_skip = nn.Parameter(torch.eye(config.width))

    def forward(self, x_BTD: Tensor, x0_BTD: Tensor) -> Tensor:
        """Transform the stream (B, T, D)."""
        x_BTD = x_BTD @ self.attention_skip.to(x_BTD.dtype) + self.attention(self.attention_norm(x_BTD))
        return x_BTD @ self.mlp_skip.to(x_BTD.dtype) + cast(Tensor, self.mlp(self.mlp_norm(x_BTD)))


class RotatedTransformer(Transformer):
    """The backbone of rotated blocks; a tied head reads by way of a matrix that leads back to the embedding's basis."""

    def __init__(self, config: BackboneConfig, *, vocab_size: int, context: int, linear: LinearFactory) -> None:
        super().__init__(config, vocab_size=vocab_size, context=context, linear=linear)
        self.head_skip = nn.Parameter(torch.eye(config.width)) if config.tied else None

    def make_block(self, config: BackboneConfig, linear: LinearFactory, depth: int, rotary: Rotary | None) -> nn.Module:
        """Make the block of a depth."""
        return RotatedBlock(config, linear, depth, rotary)

    def products(self, x_BTD: Tensor) -> Tensor:
        """Return the products of the head (B, T, V)."""
        if self.head_skip is not None:
            x_BTD = x_BTD @ self.head_skip.to(x_BTD.dtype)
        return super().products(x_BTD)
