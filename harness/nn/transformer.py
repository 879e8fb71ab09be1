"""The one transformer that the methods of this project share; its linear maps come from a factory.

Shape letters as in `harness.nn.layers`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from harness.errors import UsageError
from harness.nn.config import BackboneConfig
from harness.nn.cross_entropy import capped_cross_entropy, capped_logits
from harness.nn.fused import scaled_sum
from harness.nn.layers import (
    MLP,
    Attention,
    Embedding,
    LinearFactory,
    Rotary,
    make_norm,
    sinusoidal_positions,
)
from harness.nn.network import Network


class Block(nn.Module):
    """Pre-norm block: mix in the embedded tokens, then add attention and MLP."""

    def __init__(self, config: BackboneConfig, linear: LinearFactory, depth: int, rotary: Rotary | None) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = make_norm(config), make_norm(config)
        self.attention = self.make_attention(config, linear, depth, rotary)
        self.mlp = MLP(config, linear, depth)
        scale = torch.ones(config.width)
        self.attention_scale = nn.Parameter(scale) if config.sublayer_scales else None
        self.mlp_scale = nn.Parameter(scale.clone()) if config.sublayer_scales else None
        mix_2D = torch.stack((scale, torch.zeros_like(scale)))
        self.residual_mix = nn.Parameter(mix_2D) if config.residual_mix else None

    def make_attention(
        self, config: BackboneConfig, linear: LinearFactory, depth: int, rotary: Rotary | None
    ) -> Attention:
        """Make the attention of the stored block `depth`; override it for attention of another kind."""
        return Attention(config, linear, depth, rotary)

    def forward(self, x_BTD: Tensor, x0_BTD: Tensor) -> Tensor:
        """Transform the stream (B, T, D), given the embedded tokens of the same shape."""
        x_BTD = self.mix_in(x_BTD, x0_BTD)
        x_BTD = add_scaled(x_BTD, self.attention_scale, self.attention(self.attention_norm(x_BTD)))
        return add_scaled(x_BTD, self.mlp_scale, self.mlp(self.mlp_norm(x_BTD)))

    def mix_in(self, x_BTD: Tensor, x0_BTD: Tensor) -> Tensor:
        """Return the learned mix of the stream and the embedded tokens, (B, T, D); the stream where there is none."""
        if self.residual_mix is None:
            return x_BTD
        keep_D, embed_D = self.residual_mix.to(x_BTD.dtype)
        return scaled_sum(keep_D * x_BTD, embed_D, x0_BTD)


def add_scaled(x_BTD: Tensor, scale_D: Tensor | None, y_BTD: Tensor) -> Tensor:
    """Return x + scale * y, all (B, T, D); the scale (D,) is 1 where there is none."""
    return x_BTD + y_BTD if scale_D is None else scaled_sum(x_BTD, scale_D.to(y_BTD.dtype), y_BTD)


class ScheduledBody(nn.Module):
    """Runs stored blocks in the order of the schedule, with U-Net skips where asked for.

    The first half of the depths push their output; each later depth pops one and adds it, scaled per feature.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.schedule = config.block_schedule
        skips = torch.ones(config.num_skips, config.width)
        self.skip_weights = nn.Parameter(skips) if config.num_skips else None

    def forward(self, blocks: nn.ModuleList, x_BTD: Tensor, x0_BTD: Tensor) -> Tensor:
        """Run the stream (B, T, D) through the blocks, given the embedded tokens of the same shape."""
        weights = [] if self.skip_weights is None else list(self.skip_weights.to(x_BTD.dtype))
        pushed: list[Tensor] = []
        first_half = len(weights)
        for depth, block in enumerate(self.schedule):
            if depth >= first_half and pushed:
                x_BTD = scaled_sum(x_BTD, weights[depth - first_half], pushed.pop())
            x_BTD = blocks[block](x_BTD, x0_BTD)
            if depth < first_half:
                pushed.append(x_BTD)
        return x_BTD


class Transformer(Network):
    """The shared backbone.

    Args:
        config: shape and parts.
        vocab_size: number of token ids.
        context: longest input, in tokens.
        linear: makes every linear map but the embedding.
        body: runs the blocks as `body(blocks, x, x0)`; by default `ScheduledBody`.
        condition: what a plugin does to embedded tokens before their norm, as `condition(tokens_BT, x_BTD)`.
    """

    def __init__(
        self,
        config: BackboneConfig,
        *,
        vocab_size: int,
        context: int,
        linear: LinearFactory,
        body: nn.Module | None = None,
        condition: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.config, self.vocab_size, self.context = config, vocab_size, context
        self.embedding = Embedding(config, vocab_size)
        self.condition = condition
        self._add_positions(config, context)
        self.embedding_norm = make_norm(config) if config.embedding_norm else nn.Identity()
        rotary = self.make_rotary(config, context) if config.positions == "rope" else None
        self.blocks = nn.ModuleList(
            self.make_block(config, linear, depth, rotary) for depth in range(config.num_blocks)
        )
        self.body = body or ScheduledBody(config)
        self.final_norm = make_norm(config)
        self.head = None if config.tied else linear("head", config.num_blocks, config.width, vocab_size)

    def make_rotary(self, config: BackboneConfig, context: int) -> Rotary:
        """Make the rotation that all blocks share; override it for frequencies of another kind."""
        return Rotary(context, config.rope_width or config.head_width, config.rope_base)

    def make_block(self, config: BackboneConfig, linear: LinearFactory, depth: int, rotary: Rotary | None) -> nn.Module:
        """Make the stored block `depth`, called as `block(x, x0)`; override it for blocks of another kind."""
        return Block(config, linear, depth, rotary)

    def forward(self, tokens_BT: Tensor, last: int | None = None) -> Tensor:
        """Return float32 logits of shape (B, T, V), or (B, last, V) for the last positions only."""
        x_BTD = self.hidden(tokens_BT)
        return self.logits(x_BTD if last is None else x_BTD[:, -last:])

    def loss(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Return the mean cross entropy in nats a token, float32 or wider, shape ()."""
        z_BTV = self.products(self.hidden(tokens_BT))
        return capped_cross_entropy(z_BTV.flatten(0, 1), targets_BT.flatten(), self.config.softcap)

    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Return the stream (B, T, D) that enters the first block."""
        if tokens_BT.size(1) > self.context:
            raise UsageError(f"input of {tokens_BT.size(1)} tokens, but the model was built for {self.context}")
        x_BTD = self.embedding(tokens_BT)
        if self.positions is not None:
            x_BTD = x_BTD + self.positions[: tokens_BT.size(1)]
        if self.condition is not None:
            x_BTD = self.condition(tokens_BT, x_BTD)
        return _to_autocast_dtype(self.embedding_norm(x_BTD))

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        """Return the stream (B, T, D) that leaves the last block."""
        x0_BTD = self.embed(tokens_BT)
        return cast(Tensor, self.body(self.blocks, x0_BTD, x0_BTD))

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Return the logits (B, T, V) of the stream that leaves the last block, float32 or wider."""
        return capped_logits(self.products(x_BTD), self.config.softcap)

    def products(self, x_BTD: Tensor) -> Tensor:
        """Return the products of the head (B, T, V), before the cap; subclasses change the head here."""
        x_BTD = self.final_norm(x_BTD)
        return self.embedding.unembed(x_BTD) if self.head is None else cast(Tensor, self.head(x_BTD))

    def _add_positions(self, config: BackboneConfig, context: int) -> None:
        if config.positions == "learned":
            table_TD = nn.init.normal_(torch.empty(context, config.width), std=config.embedding_std)
            self.positions: Tensor | None = nn.Parameter(table_TD)
        elif config.positions == "sinusoidal":
            self.register_buffer("positions", sinusoidal_positions(context, config.width), persistent=False)
        else:
            self.positions = None


def _to_autocast_dtype(x: Tensor) -> Tensor:
    # Else the stream would stay float32, and each linear map would cast it again.
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
