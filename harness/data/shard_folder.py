"""A folder of the 16 MB challenge's token shards as the data of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from harness.data.challenge import ByteTables, byte_tables
from harness.data.sentencepiece_bpe import SentencePieceTokenizer
from harness.data.shardfile import read_shard
from harness.data.splits import SPLITS, Split
from harness.data.streams import SplitFacts, TokenData, TokenStream, chunks_of, measure_tokens
from harness.data.tokenizer_base import TokenArray, Tokenizer
from harness.errors import DataError, UsageError

# The first 0.5% of the training tokens, at most a million. The published scripts train on all of them, in one stream:
# on a text of a few hundred steps, 2% less at either end moved the score by 0.02 to 0.03 bits a byte.
TUNE_DIVISOR, MAX_TUNE_TOKENS = 200, 1_000_000


def prepare_shards(folder: Path, *, name: str, tokenizer: str | Tokenizer | None = None) -> TokenData:
    """Map the shards of a folder: `*_train_*.bin`, `*_val_*.bin` (the test split) and one `*.model`.

    Args:
        folder: where they lie.
        name: the --data value, for the record.
        tokenizer: the tokenizer of an artifact, which must be the folder's; a name is refused.

    Raises:
        UsageError: no such folder, or a tokenizer asked for by name.
        DataError: a file missing, not a shard, or with a token outside the vocabulary.
    """
    if isinstance(tokenizer, str):
        raise UsageError(f"--tokenizer {tokenizer}: shards come with their tokenizer, leave the option out")
    if not folder.is_dir():
        raise UsageError(f"--data {name}: no such folder")
    model = _shard_tokenizer(folder, tokenizer)
    train_shards = _read_shards(folder, "train", model.vocab_size)
    test_shards = _read_shards(folder, "val", model.vocab_size)
    num_train = sum(map(len, train_shards))
    if not (num_tune := min(num_train // TUNE_DIVISOR, MAX_TUNE_TOKENS)):
        raise DataError(f"{folder}: {num_train} training tokens are too few, at least {TUNE_DIVISOR} are needed")
    segments: dict[Split, list[TokenArray]] = {
        "train": _slice(train_shards, num_tune, num_train),
        "tune": _slice(train_shards, 0, num_tune),
        "test": test_shards,
    }
    tables = byte_tables(model.model)
    facts = {split: _facts(segments[split], tables, model.start_id) for split in SPLITS}
    all_hashes = "".join(facts[split].sha256 for split in SPLITS)
    return TokenData(
        name=name,
        tokenizer=model,
        streams=lambda split: TokenStream(split, segments[split], facts[split]),
        facts=facts,
        count_bytes=tables.count_bytes,
        provenance={
            "corpus_sha256": hashlib.sha256(all_hashes.encode()).hexdigest(),
            "encoding_errors": "strict",
            "num_replaced": 0,
        },
    )


def _shard_tokenizer(folder: Path, given: Tokenizer | None) -> SentencePieceTokenizer:
    models = sorted(folder.glob("*.model"))
    if len(models) == 1:
        found = SentencePieceTokenizer(models[0].read_bytes())
        if given is not None and given.sha256 != found.sha256:
            raise DataError(f"{models[0]}: sha256 {found.sha256}, the tokenizer in use has {given.sha256}")
        return found
    if isinstance(given, SentencePieceTokenizer) and not models:
        return given
    names = ", ".join(path.name for path in models) or "none"
    raise DataError(f"{folder}: one SentencePiece *.model must lie beside the shards to count bytes, found {names}")


def _read_shards(folder: Path, kind: str, vocab_size: int) -> list[TokenArray]:
    paths = sorted(folder.glob(f"*_{kind}_*.bin"))
    if not paths:
        raise DataError(f"{folder}: no *_{kind}_*.bin; shards are *_train_*.bin, *_val_*.bin and one *.model")
    shards = [read_shard(path) for path in paths]
    for path, shard in zip(paths, shards, strict=True):
        largest = max(int(chunk.max()) for chunk in chunks_of([shard]))
        if largest >= vocab_size:
            raise DataError(f"{path}: token {largest} is outside the tokenizer's vocabulary of {vocab_size}")
    return shards


def _slice(segments: Sequence[TokenArray], start: int, stop: int) -> list[TokenArray]:
    """Take the tokens from `start` up to `stop` of a row that lies in several arrays, without copying."""
    taken: list[TokenArray] = []
    offset = 0
    for segment in segments:
        part = segment[max(start - offset, 0) : max(stop - offset, 0)]
        if len(part):
            taken.append(part)
        offset += len(segment)
    return taken


def _facts(segments: Sequence[TokenArray], tables: ByteTables, start_id: int) -> SplitFacts:
    sha256, num_tokens, num_bytes = measure_tokens(segments, tables.count_bytes, start_id)
    return SplitFacts(sha256=sha256, num_tokens=num_tokens, num_bytes=num_bytes)
