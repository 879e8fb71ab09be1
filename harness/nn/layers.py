"""Parts of the backbone.

Shape letters: B batch, T positions, D width, H query heads, G key/value heads, E features of a head, M inner
features of the MLP, V vocabulary, O and I out and in features of a linear map.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.nn.attend import attend
from harness.nn.config import BackboneConfig, LinearRole
from harness.nn.fused import relu_squared, rms_normalise
from harness.nn.inits import Init, uniform_fan_in, zeros


class LinearFactory(Protocol):
    """Makes the linear map of a role at a stored block; for an untied head, depth is the number of blocks."""

    def __call__(self, role: LinearRole, depth: int, in_features: int, out_features: int) -> nn.Module:
        """Return a module that maps (..., in_features) to (..., out_features)."""
        ...


class Linear(nn.Module):
    """A dense linear map whose initial values are drawn once, by `init`."""

    def __init__(self, in_features: int, out_features: int, init: Init, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        init(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        return F.linear(x, self.weight, self.bias)


def dense_factory(config: BackboneConfig, init: Init, *, zero_outputs: bool = True) -> LinearFactory:
    """Return a factory of dense maps; with `zero_outputs`, those that write to the stream start at zero."""

    def make(role: LinearRole, depth: int, in_features: int, out_features: int) -> Linear:
        is_zero = zero_outputs and role in ("output", "down")
        return Linear(in_features, out_features, zeros if is_zero else init, bias=role in config.biases)

    return make


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) over the last dimension; with `features`, times a learned gain for each."""

    def __init__(self, features: int = 0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(features)) if features else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of `x`."""
        y = rms_normalise(x)
        return y if self.gain is None else y * self.gain.to(y.dtype)


def make_norm(config: BackboneConfig) -> nn.Module:
    """Return the norm that the configuration names, over the residual stream."""
    if config.norm == "layer":
        return nn.LayerNorm(config.width)
    return RMSNorm(config.width if config.norm == "rms_gain" else 0)


class Rotary(nn.Module):
    """Rotary positions on leading features of a head, in halves: (a, b) -> (a cos + b sin, b cos - a sin)."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, context: int, rotated: int, base: float) -> None:
        super().__init__()
        cosine_T1R, sine_T1R = rotary_tables(context, rotated, base)
        self.register_buffer("cosine", cosine_T1R, persistent=False)
        self.register_buffer("sine", sine_T1R, persistent=False)

    def forward(self, x_BTHE: Tensor) -> Tensor:
        """Rotate heads of shape (B, T, H, E) by their position."""
        length = x_BTHE.size(1)
        return rotate(x_BTHE, self.cosine[:length], self.sine[:length])


def rotary_tables(context: int, rotated: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cosine and signed sine, each of shape (T, 1, R) for R rotated features, float32."""
    angle_T1F = _angles(context, rotated, base)[:, None]
    cosine_T1F, sine_T1F = angle_T1F.cos(), angle_T1F.sin()
    return torch.cat((cosine_T1F, cosine_T1F), -1), torch.cat((sine_T1F, -sine_T1F), -1)


def rotate(x_BTHE: Tensor, cosine_T1R: Tensor, sine_T1R: Tensor) -> Tensor:
    """Rotate the leading R features of heads (B, T, H, E) by the tables of `rotary_tables`."""
    rotated = cosine_T1R.size(-1)
    turned, kept = x_BTHE[..., :rotated], x_BTHE[..., rotated:]
    cosine, sine = cosine_T1R.to(x_BTHE.dtype), sine_T1R.to(x_BTHE.dtype)
    turned = torch.addcmul(turned * cosine, turned.roll(rotated // 2, -1), sine)
    return torch.cat((turned, kept), -1) if kept.size(-1) else turned


def sinusoidal_positions(context: int, width: int) -> Tensor:
    """Return the table (T, D), sines on even and cosines on odd features (Vaswani et al. 2017, 3.5)."""
    angle_TF = _angles(context, width, 10_000.0)
    return torch.stack((angle_TF.sin(), angle_TF.cos()), -1).flatten(1)[:, :width]


def _angles(context: int, width: int, base: float) -> Tensor:
    frequency_F = base ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
    return torch.arange(context, dtype=torch.float32)[:, None] * frequency_F


class Attention(nn.Module):
    """Causal attention with grouped key/value heads: norm, rotation, then a gain on each query head."""

    def __init__(self, config: BackboneConfig, linear: LinearFactory, depth: int, rotary: Rotary | None) -> None:
        super().__init__()
        shapes = config.linear_shapes
        self.query = linear("query", depth, *shapes["query"])
        self.key = linear("key", depth, *shapes["key"])
        self.value = linear("value", depth, *shapes["value"])
        self.output = linear("output", depth, *shapes["output"])
        self.head_width = config.head_width
        self.head_norm = RMSNorm() if config.qk_norm else nn.Identity()
        self.rotary = rotary or nn.Identity()
        gain_H = torch.full((config.num_heads,), config.query_gain)
        self.query_gain = nn.Parameter(gain_H) if config.query_gain else None

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Attend within each row of (B, T, D)."""
        y_BTHE = attend(self.queries(x_BTD), self.keys(x_BTD), self.split_heads(self.value(x_BTD)))
        return cast(Tensor, self.output(y_BTHE.flatten(2)))

    def queries(self, x_BTD: Tensor) -> Tensor:
        """Return the queries (B, T, H, E) of (B, T, D), ready for `attend`."""
        q_BTHE = cast(Tensor, self.rotary(self.head_norm(self.split_heads(self.query(x_BTD)))))
        if self.query_gain is not None:
            q_BTHE = q_BTHE * self.query_gain[:, None].to(q_BTHE.dtype)
        return q_BTHE

    def keys(self, x_BTD: Tensor) -> Tensor:
        """Return the keys (B, T, G, E) of (B, T, D), ready for `attend`."""
        return cast(Tensor, self.rotary(self.head_norm(self.split_heads(self.key(x_BTD)))))

    def split_heads(self, x: Tensor) -> Tensor:
        """View (..., heads * E) as (..., heads, E)."""
        return x.view(*x.shape[:-1], -1, self.head_width)


class MLP(nn.Module):
    """Two linear maps around a non-linearity; SwiGLU adds a gate."""

    def __init__(self, config: BackboneConfig, linear: LinearFactory, depth: int) -> None:
        super().__init__()
        shapes = config.linear_shapes
        self.up = linear("up", depth, *shapes["up"])
        self.down = linear("down", depth, *shapes["down"])
        self.gate = linear("gate", depth, *shapes["gate"]) if "gate" in shapes else None
        self.squared = config.activation == "relu2"

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Apply the MLP to each position of (B, T, D)."""
        inner_BTM = self.up(x_BTD)
        if self.gate is not None:
            inner_BTM = F.silu(self.gate(x_BTD)) * inner_BTM
        else:
            inner_BTM = relu_squared(inner_BTM) if self.squared else inner_BTM.relu()
        return cast(Tensor, self.down(inner_BTM))


class Embedding(nn.Module):
    """Token table, times a projection where it is factorised; `unembed` is the tied head."""

    def __init__(self, config: BackboneConfig, vocab_size: int) -> None:
        super().__init__()
        rank = config.embedding_rank
        self.table = nn.Parameter(torch.empty(vocab_size, rank or config.width))
        nn.init.normal_(self.table, std=config.embedding_std)
        self.projection = Linear(rank, config.width, uniform_fan_in) if rank else None

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Embed (B, T) token ids as (B, T, D)."""
        x = F.embedding(tokens_BT, self.table)
        return x if self.projection is None else cast(Tensor, self.projection(x))

    def unembed(self, x_BTD: Tensor) -> Tensor:
        """Return the products (B, T, V) of (B, T, D) with every token's embedding."""
        if self.projection is not None:
            x_BTD = F.linear(x_BTD, self.projection.weight.T)
        return F.linear(x_BTD, self.table)
