"""The backbone with the parts of recursive sharing in it. Shape letters as in `methods.recursive.body`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.method import Task
from harness.nn.config import BackboneConfig
from harness.nn.layers import LinearFactory, Rotary, dense_factory
from harness.nn.transformer import Transformer
from methods.recursive.blocks import LengthRotary, RecursiveBlock
from methods.recursive.body import RecursiveBody
from methods.recursive.embeddings import HashEmbedding, SmearGate, ValueEmbedding
from methods.recursive.inits import orthogonal_if_large, orthogonal_projection
from methods.recursive.settings import RecursiveSettings


class RecursiveTransformer(Transformer):
    """Embeds tokens and n-grams, smears them, and runs stored blocks as `RecursiveBody` says."""

    body: RecursiveBody

    def __init__(self, settings: RecursiveSettings, task: Task) -> None:
        super().__init__(
            settings,
            vocab_size=task.vocab_size,
            context=task.context,
            linear=dense_factory(settings, orthogonal_if_large),
            body=RecursiveBody(settings),
            condition=_make_hash_embedding(settings),
        )
        self.smear = SmearGate(settings.width) if settings.smear else None
        self.value_embedding = _make_value_embedding(settings, task.vocab_size)

    def make_rotary(self, config: BackboneConfig, context: int) -> Rotary:
        """Make the rotation that all blocks share."""
        assert isinstance(config, RecursiveSettings)
        rotated = config.rope_width or config.head_width
        return LengthRotary(context, rotated, config.rope_base, config.rope_trained_length)

    def make_block(self, config: BackboneConfig, linear: LinearFactory, depth: int, rotary: Rotary | None) -> nn.Module:
        """Make the stored block `depth`."""
        assert isinstance(config, RecursiveSettings)
        return RecursiveBlock(config, linear, depth, rotary)

    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Return the stream (B, T, D) that enters the first block."""
        x_BTD = super().embed(tokens_BT)
        return x_BTD if self.smear is None else self.smear(x_BTD)

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        """Return the stream (B, T, D) that leaves the last block."""
        x0_BTD = self.embed(tokens_BT)
        token_value_BTK = None if self.value_embedding is None else self.value_embedding(tokens_BT)
        output_BTD: Tensor = self.body(self.blocks, x0_BTD, x0_BTD, token_value_BTK)
        return output_BTD

    def begin_step(self) -> list[torch.Tensor]:
        """Return the leaves of an optimiser step, and tell the body that one begins."""
        self.body.begin_step()
        return super().begin_step()


def _make_hash_embedding(settings: RecursiveSettings) -> HashEmbedding | None:
    if not settings.hash_grams:
        return None
    init = orthogonal_projection(settings.num_blocks)
    return HashEmbedding(settings.hash_grams, settings.hash_buckets, settings.hash_width, settings.width, init)


def _make_value_embedding(settings: RecursiveSettings, vocab_size: int) -> ValueEmbedding | None:
    if not any(settings.adds_value):
        return None
    _, value_features = settings.linear_shapes["value"]
    return ValueEmbedding(vocab_size, settings.value_width, value_features, orthogonal_projection(settings.num_blocks))
