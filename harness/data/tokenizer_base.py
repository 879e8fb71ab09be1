"""What every tokenizer is: ids for texts, texts for ids, and something to store."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError

TokenArray = NDArray[np.unsignedinteger[Any]]


def token_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Give the little-endian type in which tokens of a vocabulary are kept."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


class Tokenizer(ABC):
    """Turns text into token ids and back.

    Attributes:
        kind: "bytes", "characters", "sentencepiece" or "tokenizers".
        vocab_size: number of token ids.
        start_id: the token that is given before the first one of a text.
        separator: whether `start_id` stands before each work; it stands for no bytes.
        is_lossless: whether `decode(encode(text)) == text` for every text it accepts.
        begins_texts: whether whoever uses the tokenizer gets `start_id` before a text, as its first token.
    """

    kind: str
    start_id: int
    separator: bool
    is_lossless: bool = True
    begins_texts: bool = False

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = np.empty(len(pieces), dtype=object)
        self._pieces[:] = pieces
        self.vocab_size = len(pieces)

    @abstractmethod
    def encode(self, text: bytes) -> TokenArray:
        """Give the token ids of a text (UTF-8), shape (num_tokens,), uint16 or uint32."""

    @abstractmethod
    def to_blob(self) -> bytes:
        """Give what the artifact stores, enough to rebuild the tokenizer."""

    def decode(self, ids: Sequence[int] | TokenArray) -> bytes:
        """Give the text that the ids stand for.

        Raises:
            DataError: an id outside the vocabulary.
        """
        array = np.asarray(ids, dtype=np.int64)
        if array.size and not 0 <= int(array.min()) <= int(array.max()) < self.vocab_size:
            raise DataError(f"token id outside the vocabulary of {self.vocab_size}: {array.min()}..{array.max()}")
        return b"".join(self._pieces[array].tolist())

    def token_bytes(self) -> NDArray[np.int32]:
        """Give the bytes of text that each token stands for, shape (vocab_size,)."""
        return np.array([len(piece) for piece in self._pieces], dtype=np.int32)

    @property
    def sha256(self) -> str:
        """Hash over the kind and the blob."""
        return hashlib.sha256(self.kind.encode() + b"\0" + self.to_blob()).hexdigest()
