"""The tokens of a split, memory-mapped, and the data of a run: three splits, the test one locked away."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.splits import SPLITS, Split
from harness.data.tokenizer_base import TokenArray, Tokenizer

_CHUNK_TOKENS = 1 << 22
# (previous tokens, targets) -> bytes of each target
ByteCount = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.int32]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitFacts:
    """What a record says of one split.

    Attributes:
        sha256: hash of the tokens, little-endian, in the width of their vocabulary.
        num_tokens: number of tokens.
        num_bytes: bytes of text that the tokens stand for, the first one given the start token.
        num_works: number of works, None where the tokens came without them.
        text_sha256: hash of the text, None where there is none.
    """

    sha256: str
    num_tokens: int
    num_bytes: int
    num_works: int | None = None
    text_sha256: str | None = None


def chunks_of(segments: Sequence[TokenArray]) -> Iterator[TokenArray]:
    """Go through tokens in pieces that fit in memory."""
    for segment in segments:
        for start in range(0, len(segment), _CHUNK_TOKENS):
            yield segment[start : start + _CHUNK_TOKENS]


def measure_tokens(segments: Sequence[TokenArray], count_bytes: ByteCount, start_id: int) -> tuple[str, int, int]:
    """Hash and count the tokens of a split.

    Returns:
        sha256 of the tokens, number of tokens, bytes of text they stand for, the first after `start_id`.
    """
    digest, num_tokens, num_bytes, previous = hashlib.sha256(), 0, 0, start_id
    for chunk in chunks_of(segments):
        digest.update(chunk.tobytes())
        before = np.concatenate([np.array([previous], dtype=chunk.dtype), chunk[:-1]])
        num_bytes += int(count_bytes(before, chunk).sum())
        num_tokens += len(chunk)
        previous = int(chunk[-1])
    return digest.hexdigest(), num_tokens, num_bytes


class TokenStream:
    """The tokens of one split; may lie in several mapped files, read as one row.

    Args:
        split: which split this is.
        segments: the tokens, in order, one array a file.
        facts: hashes and counts.
    """

    def __init__(self, split: Split, segments: Sequence[TokenArray], facts: SplitFacts) -> None:
        self.split = split
        self.facts = facts
        self._segments = tuple(segments)
        self._starts = np.cumsum([0, *(len(segment) for segment in segments)])
        assert self._starts[-1] == facts.num_tokens

    @property
    def num_tokens(self) -> int:
        """Number of tokens."""
        return self.facts.num_tokens

    @property
    def num_bytes(self) -> int:
        """Bytes of text that all tokens stand for."""
        return self.facts.num_bytes

    @property
    def sha256(self) -> str:
        """Hash of the tokens."""
        return self.facts.sha256

    @property
    def tokens(self) -> TokenArray:
        """All tokens; mapped where they lie in one file, a copy in memory where they lie in several."""
        return self._segments[0] if len(self._segments) == 1 else np.concatenate(self._segments)

    def read(self, start: int, stop: int) -> TokenArray:
        """Give the tokens from `start` up to `stop`, both within the stream."""
        assert 0 <= start <= stop <= self.num_tokens, (start, stop, self.num_tokens)
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        parts: list[TokenArray] = []
        for index in range(first, len(self._segments)):
            offset = int(self._starts[index])
            if offset >= stop and parts:
                break
            parts.append(self._segments[index][max(start - offset, 0) : stop - offset])
        return parts[0] if len(parts) == 1 else np.concatenate(parts or [self._segments[0][:0]])

    def read_around(self, start: int, count: int) -> TokenArray:
        """Give `count` tokens from `start`, going on at the beginning after the end, as often as needed."""
        place, parts = start % self.num_tokens, []
        while count > 0:
            part = self.read(place, min(place + count, self.num_tokens))
            parts.append(part)
            place, count = 0, count - len(part)
        return np.concatenate(parts)


class TokenData:
    """Everything a run needs of its data: two open splits, a locked one, the tokenizer, and what to record.

    Args:
        name: the --data value.
        tokenizer: made from the training split, or shipped with the shards.
        streams: opens each split.
        facts: what a record says of each split.
        count_bytes: bytes of targets given the tokens before them.
        provenance: entries of the manifest that describe the corpus.
        source_nats: code length of each split under the source that wrote it, where that is known.

    Attributes:
        train: tokens to train on.
        tune: tokens for every choice: search, learning rates, early stopping, averaging.
        test_openings: the purpose of each opening of the test split, in order.
    """

    def __init__(
        self,
        *,
        name: str,
        tokenizer: Tokenizer,
        streams: Callable[[Split], TokenStream],
        facts: Mapping[Split, SplitFacts],
        count_bytes: ByteCount,
        provenance: Mapping[str, Any],
        source_nats: Mapping[Split, float] | None = None,
    ) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.train = streams("train")
        self.tune = streams("tune")
        self.source_nats = source_nats
        self.test_openings: list[str] = []
        self._streams = streams
        self._facts = facts
        self._count_bytes = count_bytes
        self._provenance = provenance

    def open_test(self, purpose: str) -> TokenStream:
        """Open the test split; the purpose is kept in `test_openings`.

        Args:
            purpose: why, for the record's log.
        """
        self.test_openings.append(purpose)
        return self._streams("test")

    def target_bytes(self, stream: TokenStream, start: int, stop: int) -> NDArray[np.int32]:
        """Give the bytes of text that the targets `stream[start:stop]` stand for.

        Where that depends on the token before, the first of the stream follows the start token.

        Returns:
            Bytes, shape (stop - start,), int32.
        """
        targets = stream.read(start, stop)
        before = stream.read(start - 1, stop - 1) if start else stream.read(0, max(stop - 1, 0))
        first = np.full(0 if start else min(stop, 1), self.tokenizer.start_id, dtype=targets.dtype)
        return self._count_bytes(np.concatenate([first, before]), targets)

    def manifest(self) -> dict[str, Any]:
        """Give what the record says of the data: hashes and counts, JSON values only."""
        tokenizer = self.tokenizer
        return {
            "name": self.name,
            **self._provenance,
            "splits": {split: asdict(self._facts[split]) for split in SPLITS},
            "tokenizer": {
                "kind": tokenizer.kind,
                "vocab_size": tokenizer.vocab_size,
                "start_id": tokenizer.start_id,
                "separator": tokenizer.separator,
                "is_lossless": tokenizer.is_lossless,
                **({"begins_texts": True} if tokenizer.begins_texts else {}),
                "sha256": tokenizer.sha256,
            },
            "source_nats": dict(self.source_nats) if self.source_nats else None,
        }
