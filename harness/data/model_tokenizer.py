"""The tokenizer of a pretrained model: its `tokenizer.json`, run by the library `tokenizers`, losing no byte.

Three things are set so that the pieces of a text spell the text: Unicode is not normalised, control tokens that a text
happens to spell are read as text, and the space that some tokenizers put before a text is left out again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.data.tokenizer_base import TokenArray, Tokenizer, token_dtype
from harness.errors import DataError, missing_extra

ENCODE_CHARACTERS = 1_000_000
MAX_VOCAB_SIZE = 1 << 20
SPACE_MARK = "\u2581"
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
# What is put before a text and cut off again, so that a space before the text is, too: a token of its own everywhere.
_LEAD = "\n"


def byte_alphabet() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for (GPT-2's printable alphabet)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [value for value in range(256) if value not in printable]
    return {chr(value): value for value in printable} | {chr(256 + index): value for index, value in enumerate(others)}


class ModelTokenizer(Tokenizer):
    """A `tokenizer.json` with the id that a text starts after.

    Args:
        blob: one line of JSON, {"start_id": ID}, and the bytes of a `tokenizer.json`.

    Attributes:
        begins_texts: whether the tokenizer itself puts the start token before a text.

    Raises:
        DataError: it is none of the kinds whose pieces spell their text, byte-level or with byte fallback.
        MissingExtraError: tokenizers is not installed.
    """

    kind = "tokenizers"
    separator = False

    def __init__(self, blob: bytes) -> None:
        try:
            from tokenizers import Tokenizer as Backend
        except ImportError as error:
            raise missing_extra("the tokenizer of a pretrained model", "hf") from error
        self._blob = blob
        head, _, self.json = blob.partition(b"\n")
        try:
            self.start_id = int(json.loads(head)["start_id"])
            described: Mapping[str, Any] = json.loads(self.json)
            backend: Any = Backend.from_str(self.json.decode())
        except Exception as error:  # tokenizers raises plain Exception
            raise DataError(f"{len(blob):,} bytes are no tokenizer.json that can be read") from error
        backend.no_truncation()
        backend.no_padding()
        opening = backend.encode("", add_special_tokens=True).ids
        self.begins_texts = opening == [self.start_id]
        self._is_byte_level = _mentions(described.get("decoder"), "ByteLevel")
        if self._is_byte_level:
            backend.normalizer = None  # if any, it is a Unicode form, in which texts would not come back
        elif not _mentions(described.get("decoder"), "ByteFallback"):
            raise DataError("the tokenizer is neither byte-level nor has byte fallback, so pieces do not spell a text")
        backend.encode_special_tokens = True
        self._backend = backend
        super().__init__(self._read_pieces())
        if not 0 <= self.start_id < self.vocab_size:
            raise DataError(f"the start token {self.start_id} is none of the {self.vocab_size:,} of the tokenizer")
        self._lead = [] if self.decode(self._encode_plain("a")) == b"a" else self._encode_plain(_LEAD)

    def vocabulary(self) -> dict[str, int]:
        """Return the ids by their pieces, as the `tokenizer.json` writes them, special tokens included."""
        found: dict[str, int] = self._backend.get_vocab(with_added_tokens=True)
        return found

    def _read_pieces(self) -> list[bytes]:
        vocabulary = self.vocabulary()
        size = max(vocabulary.values(), default=-1) + 1
        if not 0 < size <= MAX_VOCAB_SIZE:
            raise DataError(f"the tokenizer has {size:,} tokens, expected 1 to {MAX_VOCAB_SIZE:,}")
        added = self._backend.get_added_tokens_decoder()
        alphabet = byte_alphabet()
        pieces = [b""] * size  # an id without a token stands for nothing, as a control token does
        for piece, token in vocabulary.items():
            if token in added:
                pieces[token] = b"" if added[token].special else piece.encode()
            elif self._is_byte_level:
                pieces[token] = bytes(alphabet[mark] for mark in piece if mark in alphabet)
            elif match := _BYTE_PIECE.fullmatch(piece):
                pieces[token] = bytes([int(match[1], 16)])
            else:
                pieces[token] = piece.replace(SPACE_MARK, " ").encode()
        return pieces

    def encode(self, text: bytes) -> TokenArray:
        """Give the ids of the pieces, without a start token.

        Raises:
            DataError: the text is not UTF-8.
        """
        try:
            characters = text.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"not UTF-8 at byte {error.start}; a pretrained model reads UTF-8 only") from error
        dtype = token_dtype(self.vocab_size)
        parts = [np.array(self._encode_part(part), dtype) for part in _cut(characters)]
        return np.concatenate([np.empty(0, dtype), *parts])

    def _encode_part(self, part: str) -> list[int]:
        if not self._lead:
            return self._encode_plain(part)
        ids = self._encode_plain(_LEAD + part)
        return ids[len(self._lead) :] if ids[: len(self._lead)] == self._lead else self._encode_plain(part)

    def _encode_plain(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def to_blob(self) -> bytes:
        """Give the line of JSON and the `tokenizer.json`."""
        return self._blob


def make_blob(tokenizer_json: bytes, start_id: int | None) -> bytes:
    """Return what an artifact stores of a tokenizer.

    Args:
        tokenizer_json: bytes of a `tokenizer.json`.
        start_id: token that a text starts after; None takes what the tokenizer puts before a text.

    Raises:
        DataError: there is none.
    """
    if start_id is None:
        from tokenizers import Tokenizer as Backend

        opening = Backend.from_str(tokenizer_json.decode()).encode("", add_special_tokens=True).ids
        if not opening:
            raise DataError("neither the configuration nor the tokenizer says what a text starts after (bos_token_id)")
        start_id = int(opening[0])
    return json.dumps({"start_id": start_id}).encode() + b"\n" + tokenizer_json


def _mentions(part: Any, kind: str) -> bool:
    """Whether a part of a `tokenizer.json` is of a kind, or a sequence with one of the kind."""
    if not isinstance(part, dict):
        return False
    return part.get("type") == kind or any(_mentions(each, kind) for each in part.get("decoders", ()))


def _cut(text: str) -> list[str]:
    """Cut a long text after newlines, so that memory does not grow with it."""
    parts, start = [], 0
    while start < len(text):
        stop = text.find("\n", start + ENCODE_CHARACTERS) + 1 or len(text)
        parts.append(text[start:stop])
        start = stop
    return parts
