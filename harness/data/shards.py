"""Tokens for training and scoring: the front door to this package for everything above it."""

from harness.data.batches import ORDERS, Batches
from harness.data.prepare import prepare, prepare_text
from harness.data.shardfile import read_shard, write_shard
from harness.data.streams import SplitFacts, TokenData, TokenStream

__all__ = [
    "ORDERS",
    "Batches",
    "SplitFacts",
    "TokenData",
    "TokenStream",
    "prepare",
    "prepare_text",
    "read_shard",
    "write_shard",
]
