"""Parameters and operations of recursive sharing by formula (torch-free), beyond those of the backbone."""

from __future__ import annotations

from harness.nn import counting
from methods.recursive.settings import RecursiveSettings


def effective_params(settings: RecursiveSettings, *, vocab_size: int, context: int) -> int:
    """Count dense-equivalent parameters at evaluation: blocks, skips, gate as often as they run, tables once."""
    d, repeats = settings.width, 1 if settings.flat_blocks else settings.loops
    return (
        counting.effective_params(settings, vocab_size=vocab_size, context=context)
        + (repeats - 1) * settings.num_skips * d
        + (settings.loops * d if settings.loop_vectors != "none" else 0)
        + (settings.loops * 2 * d * d + 1 + d if settings.gate else 0)
        + (d if settings.smear else 0)
        + (settings.hash_buckets * settings.hash_width + 1 if settings.hash_grams else 0)
        + (vocab_size * settings.value_width + 1 if any(settings.adds_value) else 0)
        + sum(settings.repeats(block) for block, adds in enumerate(settings.adds_value) if adds)
        + _projections(settings)
    )


def active_params(settings: RecursiveSettings, *, vocab_size: int, context: int) -> int:
    """Count the parameters that are multiplied for each token: of a table that is looked up, one row."""
    sizes = {"vocab_size": vocab_size, "context": context}
    unread = counting.effective_params(settings, **sizes) - counting.active_params(settings, **sizes)
    if settings.hash_grams:
        unread += (settings.hash_buckets - 1) * settings.hash_width
    if any(settings.adds_value):
        unread += (vocab_size - 1) * settings.value_width
    return effective_params(settings, **sizes) - unread


def forward_flops(
    settings: RecursiveSettings, *, vocab_size: int, context: int, num_tokens: int, num_firings: int
) -> float:
    """Count the operations (a multiply-add is two) of the matrix products of one forward pass.

    Args:
        settings: of the model.
        vocab_size: number of token ids.
        context: tokens of a window.
        num_tokens: tokens of the pass.
        num_firings: loops that run, `settings.loops` or 1.
    """
    depth = settings.flat_blocks + num_firings * settings.blocks
    plain = settings.model_copy(update={"num_layers": depth})
    gates = num_firings * 2 * settings.width**2 if settings.gate else 0
    backbone = counting.forward_flops(plain, vocab_size=vocab_size, context=context, num_tokens=num_tokens)
    return backbone + 2.0 * (gates + _projections(settings)) * num_tokens


def training_flops(settings: RecursiveSettings, *, vocab_size: int, context: int, num_tokens: int) -> float:
    """Count forward and backward, the mean over steps that fire every loop and steps that fire the first."""
    share = 1 / settings.cadence if settings.cadence else 0.0
    every, first = (
        forward_flops(settings, vocab_size=vocab_size, context=context, num_tokens=num_tokens, num_firings=n)
        for n in (settings.loops, 1)
    )
    return 3.0 * (share * every + (1 - share) * first)


def _projections(settings: RecursiveSettings) -> int:
    from_hash = settings.hash_width * settings.width if settings.hash_grams else 0
    _, value_features = settings.linear_shapes["value"]
    return from_hash + (settings.value_width * value_features if any(settings.adds_value) else 0)
