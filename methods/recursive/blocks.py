"""Blocks of recursive sharing: own value excluded from attention, values from tokens, rotation by the length rule.

Shape letters: B batch, T positions, D width, H query heads, G key/value heads, R = H / G, E features of a head,
K = G * E.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.nn.attend import attend
from harness.nn.config import BackboneConfig
from harness.nn.layers import Attention, LinearFactory, Rotary, rotary_tables, rotate
from harness.nn.transformer import Block, add_scaled
from methods.recursive.settings import RecursiveSettings


def length_base(base: float, rotated: int, trained_length: int, length: int) -> float:
    """Return the rotary base for inputs of `length` tokens ("NTK" rule).

    base * (length / trained_length)^(R / (R - 2)) for inputs longer than `trained_length`, R features being rotated;
    22,082 for 10,000, 16 features and 2,048 tokens over 1,024. The published code was built with 1,024 and trained on
    2,048, so the rule was always in force.
    """
    if not trained_length or length <= trained_length:
        return base
    return float(base * (length / trained_length) ** (rotated / (rotated - 2)))


class LengthRotary(Rotary):
    """Rotary positions whose base follows the length of each input."""

    def __init__(self, context: int, rotated: int, base: float, trained_length: int) -> None:
        super().__init__(context, rotated, length_base(base, rotated, trained_length, context))
        self.context, self.rotated, self.base, self.trained_length = context, rotated, base, trained_length

    def forward(self, x_BTHE: Tensor) -> Tensor:
        """Rotate heads of shape (B, T, H, E) by their position."""
        bases = [length_base(self.base, self.rotated, self.trained_length, n) for n in (x_BTHE.size(1), self.context)]
        if bases[0] == bases[1]:
            return super().forward(x_BTHE)
        with torch.device(x_BTHE.device):
            cosine_T1R, sine_T1R = rotary_tables(x_BTHE.size(1), self.rotated, bases[0])
        return rotate(x_BTHE, cosine_T1R, sine_T1R)


def exclude_own_value(y_BTHE: Tensor, v_BTGE: Tensor) -> Tensor:
    """Take from each head's output its component along the value of the same position (XSA).

    Args:
        y_BTHE: outputs of attention, (B, T, H, E).
        v_BTGE: values, (B, T, G, E); value head j belongs to output heads jR .. jR + R - 1.

    Returns:
        y - (y . n) n with n = v / |v|, of shape (B, T, H, E).
    """
    n_BTG1E = F.normalize(v_BTGE, dim=-1).unsqueeze(3)
    y_BTGRE = y_BTHE.unflatten(2, (v_BTGE.size(2), -1))
    along_BTGR1 = (y_BTGRE * n_BTG1E).sum(-1, keepdim=True)
    return (y_BTGRE - along_BTGR1 * n_BTG1E).flatten(2, 3)


class RecursiveAttention(Attention):
    """Attention whose values may get an embedding of the token, and whose output may leave out the own value."""

    def __init__(self, config: RecursiveSettings, linear: LinearFactory, depth: int, rotary: Rotary | None) -> None:
        super().__init__(config, linear, depth, rotary)
        self.excludes_own = config.excludes_own[depth]
        self.value_scale = nn.Parameter(torch.ones(1)) if config.adds_value[depth] else None

    def forward(self, x_BTD: Tensor, token_value_BTK: Tensor | None = None) -> Tensor:
        """Attend within each row of (B, T, D); values of tokens (B, T, K) are added where this block has a scale."""
        value_BTK = self.value(x_BTD)
        if self.value_scale is not None and token_value_BTK is not None:
            value_BTK = value_BTK + self.value_scale.to(value_BTK.dtype) * token_value_BTK
        v_BTGE = self.split_heads(value_BTK)
        y_BTHE = attend(self.queries(x_BTD), self.keys(x_BTD), v_BTGE)
        if self.excludes_own:
            y_BTHE = exclude_own_value(y_BTHE, v_BTGE)
        output_BTD: Tensor = self.output(y_BTHE.flatten(2))
        return output_BTD


class RecursiveBlock(Block):
    """A block of the backbone whose sub-layers read the stream times 1/sqrt(index + 1)."""

    attention: RecursiveAttention

    def __init__(self, config: RecursiveSettings, linear: LinearFactory, depth: int, rotary: Rotary | None) -> None:
        super().__init__(config, linear, depth, rotary)
        self.input_scale = (depth + 1) ** -0.5 if config.depth_scale else 1.0

    def make_attention(
        self, config: BackboneConfig, linear: LinearFactory, depth: int, rotary: Rotary | None
    ) -> RecursiveAttention:
        """Make the attention of the stored block `depth`."""
        assert isinstance(config, RecursiveSettings)
        return RecursiveAttention(config, linear, depth, rotary)

    def forward(self, x_BTD: Tensor, x0_BTD: Tensor, token_value_BTK: Tensor | None = None) -> Tensor:
        """Transform the stream (B, T, D), given the embedded tokens (B, T, D) and their values (B, T, K)."""
        x_BTD = self.mix_in(x_BTD, x0_BTD)
        y_BTD = self.attention(self.attention_norm(x_BTD) * self.input_scale, token_value_BTK)
        x_BTD = add_scaled(x_BTD, self.attention_scale, y_BTD)
        return add_scaled(x_BTD, self.mlp_scale, self.mlp(self.mlp_norm(x_BTD) * self.input_scale))
