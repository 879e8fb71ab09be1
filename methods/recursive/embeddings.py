"""What tokens bring besides their embedding: hashed n-grams, the token before, a value for attention.

Shape letters: B batch, T positions, D width, K features of all value heads.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.nn.inits import Init
from harness.nn.layers import Linear

# Of the token itself, the one before, the one before that.
_MULTIPLIERS = (36313, 27191, 51647)
_HASH_SCALE = 0.05
_VALUE_SCALE = 0.1
_VALUE_STD = 0.01


def hash_ngrams(tokens_BT: Tensor, grams: Literal[2, 3], num_buckets: int) -> Tensor:
    """Return the bucket of the n-gram that ends at each position.

    The sum of products is an XOR in int32 arithmetic, modulo num_buckets - 1; the first position has the last bucket
    to itself, and a trigram at the second position is the bigram.

    Args:
        tokens_BT: token ids of shape (B, T).
        grams: 2 or 3.
        num_buckets: rows of the table.

    Returns:
        int64 buckets of shape (B, T).

    Source: train_gpt.py of the Frugendorff record (bigrams) and of the Micro Crawler (trigrams).
    """
    tokens_BT = tokens_BT.to(torch.int32)
    hashed_BT = tokens_BT * _MULTIPLIERS[0]
    for back in range(1, grams):
        earlier_BT = F.pad(tokens_BT, (back, 0))[:, : tokens_BT.size(1)]
        hashed_BT = hashed_BT ^ (earlier_BT * _MULTIPLIERS[back])
    bucket_BT = hashed_BT.remainder(num_buckets - 1).long()
    first_B1 = torch.full_like(bucket_BT[:, :1], num_buckets - 1)
    return torch.cat((first_B1, bucket_BT[:, 1:]), 1)


class HashEmbedding(nn.Module):
    """Adds a projected embedding of the hashed n-gram at each position; the table starts at zero."""

    def __init__(self, grams: Literal[2, 3], num_buckets: int, features: int, width: int, init: Init) -> None:
        super().__init__()
        self.grams: Literal[2, 3] = grams
        self.table = nn.Parameter(torch.zeros(num_buckets, features))
        self.projection = Linear(features, width, init)
        self.scale = nn.Parameter(torch.tensor(_HASH_SCALE))

    def forward(self, tokens_BT: Tensor, x_BTD: Tensor) -> Tensor:
        """Return the embedded tokens (B, T, D) with their n-grams added."""
        bucket_BT = hash_ngrams(tokens_BT, self.grams, len(self.table))
        y_BTD = self.projection(F.embedding(bucket_BT, self.table))
        return x_BTD + y_BTD * self.scale.to(y_BTD.dtype)


class SmearGate(nn.Module):
    """x_t <- (1 - g) x_t + g x_{t-1}, with a share g = sigmoid(gate) for each feature, at first 1/2; x_{-1} = 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Mix each position of (B, T, D) with the one before."""
        share_D = self.gate.sigmoid().to(x_BTD.dtype)
        before_BTD = F.pad(x_BTD, (0, 0, 1, 0))[:, :-1]
        return (1 - share_D) * x_BTD + share_D * before_BTD


class ValueEmbedding(nn.Module):
    """A token table of its own, projected to what blocks add to the values of their attention."""

    def __init__(self, vocab_size: int, features: int, value_features: int, init: Init) -> None:
        super().__init__()
        self.table = nn.Parameter(nn.init.normal_(torch.empty(vocab_size, features), std=_VALUE_STD))
        self.projection = Linear(features, value_features, init)
        self.scale = nn.Parameter(torch.tensor(_VALUE_SCALE))

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Return the values (B, T, K) of (B, T) token ids."""
        value_BTK = cast(Tensor, self.projection(F.embedding(tokens_BT, self.table)))
        return value_BTK * self.scale.to(value_BTK.dtype)
