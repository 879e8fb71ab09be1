"""Tokenizers that lose nothing: bytes, characters, and SentencePiece trained on the training text."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.data.corpora import Corpus
from harness.data.model_tokenizer import ModelTokenizer
from harness.data.sentencepiece_bpe import (
    MAX_VOCAB_SIZE,
    MIN_VOCAB_SIZE,
    SentencePieceTokenizer,
    train_sentencepiece,
)
from harness.data.splits import Work
from harness.data.tokenizer_base import TokenArray, Tokenizer, token_dtype
from harness.errors import ArtifactError, DataError, UsageError, suggest

__all__ = [
    "ByteTokenizer",
    "CharacterTokenizer",
    "ModelTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
    "tokenizer_from_blob",
    "train_tokenizer",
]

KNOWN_TOKENIZERS = ("bytes", "characters", "sp1024", "sp4096")
NEWLINE = 10


class ByteTokenizer(Tokenizer):
    """One token a byte; texts start after a newline."""

    kind = "bytes"
    start_id = NEWLINE
    separator = False

    def __init__(self) -> None:
        super().__init__([bytes([value]) for value in range(256)])

    def encode(self, text: bytes) -> TokenArray:
        """Give the bytes as ids."""
        return np.frombuffer(text, dtype=np.uint8).astype("<u2")

    def to_blob(self) -> bytes:
        """Give nothing: there is nothing to know."""
        return b""


def _code_points(text: bytes) -> NDArray[np.uint32]:
    try:
        return np.frombuffer(text.decode().encode("utf-32-le"), dtype="<u4")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}; use --tokenizer bytes") from error


class CharacterTokenizer(Tokenizer):
    """One token a character of the training text; texts start after a newline, or after token 0."""

    kind = "characters"
    separator = False

    def __init__(self, characters: str) -> None:
        super().__init__([character.encode() for character in characters])
        self._code_points = np.array([ord(character) for character in characters], dtype=np.uint32)
        self.start_id = max(characters.find("\n"), 0)

    @classmethod
    def train(cls, works: Sequence[Work]) -> CharacterTokenizer:
        """Collect the characters of the works, in the order of their code points."""
        points = np.unique(np.concatenate([np.unique(_code_points(work.data)) for work in works]))
        return cls("".join(map(chr, points.tolist())))

    def encode(self, text: bytes) -> TokenArray:
        """Give the ids of the characters.

        Raises:
            DataError: a character that the training text does not have.
        """
        points = _code_points(text)
        ids = np.searchsorted(self._code_points, points).clip(max=self.vocab_size - 1)
        if (unknown := np.flatnonzero(self._code_points[ids] != points)).size:
            place, character = int(unknown[0]), chr(points[unknown[0]])
            offset = len(points[:place].tobytes().decode("utf-32-le").encode())
            raise DataError(
                f"character {character!r} (U+{ord(character):04X}) at byte {offset} does not occur in the "
                "training text; use --tokenizer bytes or sp1024"
            )
        return ids.astype(token_dtype(self.vocab_size))

    def to_blob(self) -> bytes:
        """Give the characters in the order of their ids, UTF-8."""
        return b"".join(self._pieces.tolist())


def tokenizer_from_blob(kind: str, blob: bytes) -> Tokenizer:
    """Rebuild a tokenizer from what an artifact stores.

    Args:
        kind: "bytes", "characters", "sentencepiece" or "tokenizers" (of a pretrained model).
        blob: what `Tokenizer.to_blob` gave.

    Raises:
        ArtifactError: unknown kind, or a blob that is none of that kind.
        MissingExtraError: SentencePiece or tokenizers is needed and not installed.
    """
    if kind == "bytes" and not blob:
        return ByteTokenizer()
    if kind == "characters":
        try:
            characters = blob.decode()
        except UnicodeDecodeError:
            characters = ""
        if characters and characters == "".join(sorted(set(characters))):
            return CharacterTokenizer(characters)
    if kind in ("sentencepiece", "tokenizers"):
        try:
            return SentencePieceTokenizer(blob) if kind == "sentencepiece" else ModelTokenizer(blob)
        except DataError as error:
            raise ArtifactError(f"tokenizer: {error}") from error
    raise ArtifactError(f"tokenizer: {len(blob)} bytes are no tokenizer of kind '{kind}'")


def train_tokenizer(spec: str, corpus: Corpus) -> Tokenizer:
    """Make a tokenizer from the training split of a corpus, and from nothing else.

    Args:
        spec: "bytes", "characters", or "sp" and a vocabulary size ("sp1024").
        corpus: the text.

    Raises:
        UsageError: unknown tokenizer or a vocabulary size out of bounds.
        DataError: SentencePiece finds nothing to learn in the text.
        MissingExtraError: SentencePiece is needed and not installed.
    """
    if spec == "bytes":
        return ByteTokenizer()
    if spec == "characters":
        return CharacterTokenizer.train(corpus.works["train"])
    if (match := re.fullmatch(r"sp([0-9]{1,9})", spec)) is None:
        raise UsageError(f"unknown tokenizer '{spec}'. {suggest(spec, KNOWN_TOKENIZERS)}")
    if not MIN_VOCAB_SIZE <= (vocab_size := int(match[1])) <= MAX_VOCAB_SIZE:
        raise UsageError(f"--tokenizer {spec}: the vocabulary must be {MIN_VOCAB_SIZE} to {MAX_VOCAB_SIZE} tokens")
    return train_sentencepiece(corpus.works["train"], vocab_size)
