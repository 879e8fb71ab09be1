"""Parameters and operations of the backbone by formula (torch-free)."""

from __future__ import annotations

from harness.nn.config import BackboneConfig


def effective_params(config: BackboneConfig, *, vocab_size: int, context: int) -> int:
    """Count dense-equivalent parameters of what runs: every block at every depth, a tied head once."""
    return (
        config.num_layers * _block_params(config)
        + _table_params(config, vocab_size)
        + _projection_params(config)
        + (context * config.width if config.positions == "learned" else 0)
        + _head_params(config, vocab_size)
        + _norm_params(config) * (1 + config.embedding_norm)
        + config.num_skips * config.width
    )


def active_params(config: BackboneConfig, *, vocab_size: int, context: int) -> int:
    """Count the parameters that are multiplied for each token: of a table that is only looked up, one row."""
    unread = 0
    if not config.tied:
        unread += _table_params(config, vocab_size) - _table_params(config, 1)
    if config.positions == "learned":
        unread += (context - 1) * config.width
    return effective_params(config, vocab_size=vocab_size, context=context) - unread


def training_flops(config: BackboneConfig, *, vocab_size: int, context: int, num_tokens: int) -> float:
    """Estimate the floating-point operations of forward and backward: three times the forward pass."""
    return 3.0 * forward_flops(config, vocab_size=vocab_size, context=context, num_tokens=num_tokens)


def forward_flops(config: BackboneConfig, *, vocab_size: int, context: int, num_tokens: int) -> float:
    """Count the operations (a multiply-add is two) of the matrix products of one forward pass.

    Args:
        config: shape and parts of the backbone.
        vocab_size: number of token ids.
        context: tokens of a window; attention counts all pairs in it, also the masked ones.
        num_tokens: tokens of the pass.
    """
    linear = sum(inside * outside for inside, outside in config.linear_shapes.values())
    attention = 2 * context * config.width
    head = _projection_params(config) + _table_params(config, vocab_size)
    if not config.tied:
        head = config.width * vocab_size
    per_token = config.num_layers * (linear + attention) + _projection_params(config) + head
    return 2.0 * per_token * num_tokens


def _block_params(config: BackboneConfig) -> int:
    shapes = config.linear_shapes
    return (
        sum(inside * outside for inside, outside in shapes.values())
        + sum(outside for role, (_, outside) in shapes.items() if role in config.biases)
        + 2 * _norm_params(config)
        + (config.num_heads if config.query_gain else 0)
        + 2 * config.width * (config.sublayer_scales + config.residual_mix)
    )


def _norm_params(config: BackboneConfig) -> int:
    return {"rms": 0, "rms_gain": 1, "layer": 2}[config.norm] * config.width


def _table_params(config: BackboneConfig, vocab_size: int) -> int:
    return vocab_size * (config.embedding_rank or config.width)


def _projection_params(config: BackboneConfig) -> int:
    return config.embedding_rank * config.width


def _head_params(config: BackboneConfig, vocab_size: int) -> int:
    if config.tied:
        return 0
    return vocab_size * (config.width + ("head" in config.biases))
