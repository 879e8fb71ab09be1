"""Perplexity of a pretrained model over windows that do not see each other."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def window_nats(model: Any, tokens_BT: Tensor, *, batch_size: int = 16) -> Tensor:
    """Return the mean surprise of each window (B,), in nats a token, float64; its first token is not scored.

    Args:
        model: maps `input_ids` to an object with `logits` (B, T, V).
        tokens_BT: token ids, of at least two tokens a window.
        batch_size: windows of one pass.
    """
    found = []
    for batch in torch.split(tokens_BT, batch_size):
        logits_BVT = model(input_ids=batch).logits[:, :-1].float().transpose(1, 2)
        found.append(F.cross_entropy(logits_BVT, batch[:, 1:], reduction="none").double().mean(1))
    return torch.cat(found)


def window_perplexity(model: Any, tokens_BT: Tensor, *, batch_size: int = 16) -> float:
    """Return exp of the mean surprise of each token but the first of its window; arguments as in `window_nats`."""
    return math.exp(window_nats(model, tokens_BT, batch_size=batch_size).mean().item())
