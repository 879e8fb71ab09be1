"""Perplexity of a pretrained model over windows that do not see each other."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def window_perplexity(model: Any, tokens_BT: Tensor, *, batch_size: int = 16) -> float:
    """Return exp of the mean surprise of each token but the first of its window.

    Args:
        model: maps `input_ids` to an object with `logits` (B, T, V).
        tokens_BT: token ids, of at least two tokens a window.
        batch_size: windows of one pass.
    """
    nats = 0.0
    for batch in torch.split(tokens_BT, batch_size):
        logits = model(input_ids=batch).logits[:, :-1].flatten(0, 1).float()
        nats += F.cross_entropy(logits, batch[:, 1:].flatten(), reduction="sum").item()
    return math.exp(nats / tokens_BT[:, 1:].numel())
