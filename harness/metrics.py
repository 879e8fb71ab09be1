"""The formulas of the scores, one place for each."""

from __future__ import annotations

import math


def bits_per_byte(total_nats: float, num_bytes: int) -> float:
    """Return the score in bits a byte: total nats / ln 2 / bytes of the scored text.

    Args:
        total_nats: summed cross entropy of the scored targets.
        num_bytes: bytes of original text that the same targets stand for.
    """
    return total_nats / math.log(2) / num_bytes


def perplexity(loss_nats: float) -> float:
    """Return exp of a loss in nats a token, held below the end of float64."""
    return math.exp(min(loss_nats, 700.0))


def leaked_bits(model_nats: float, source_nats: float) -> float:
    """Return by how many bits a model's code of a text is shorter than the true source's; negative if longer."""
    return (source_nats - model_nats) / math.log(2)
