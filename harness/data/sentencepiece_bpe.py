"""SentencePiece byte pairs, set up so that every text comes back byte for byte.

Identity normalisation, no dummy prefix and byte fallback lose nothing but U+2581, the character that
SentencePiece itself writes for a space: it is encoded as its three bytes. Text that spells a control piece,
such as `<s>`, is never taken for one.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from harness.data.splits import Work
from harness.data.tokenizer_base import TokenArray, Tokenizer, token_dtype
from harness.errors import DataError, missing_extra

MIN_VOCAB_SIZE, MAX_VOCAB_SIZE = 320, 1 << 16
NUM_RESERVED = 260  # 256 bytes and <pad>, <s>, </s>, <unk>
SPACE_MARK = "\u2581"
# The trainer drops every sentence with this character, which it uses for unknown ones.
UNKNOWN_MARK = "\u2585"
CHUNK_CHARACTERS = 16_000
MAX_TRAINING_CHARACTERS = 50_000_000
ENCODE_CHARACTERS = 1_000_000
_PROBE = "\ufb01 \u00bd  \t\r\n<s>\u2581 \0"


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise missing_extra("the SentencePiece tokenizer", "train") from error
    return sentencepiece


def _piece_bytes(model: Any, token: int) -> bytes:
    if model.is_control(token) or model.is_unknown(token) or model.is_unused(token):
        return b""
    piece: str = model.id_to_piece(token)
    return bytes([int(piece[3:5], 16)]) if model.is_byte(token) else piece.replace(SPACE_MARK, " ").encode()


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model; one of ours is lossless, the challenge's normalises and is not.

    Args:
        blob: the serialised model.

    Raises:
        DataError: the bytes are no SentencePiece model with byte fallback and a start token.
    """

    kind = "sentencepiece"
    separator = True

    def __init__(self, blob: bytes) -> None:
        try:
            self.model = _sentencepiece().SentencePieceProcessor(model_proto=blob)
        except (RuntimeError, TypeError, ValueError) as error:
            raise DataError(f"{len(blob):,} bytes are no SentencePiece model") from error
        size = int(self.model.vocab_size())
        self.start_id = int(self.model.bos_id())
        self._mark_ids = [int(self.model.piece_to_id(f"<0x{value:02X}>")) for value in SPACE_MARK.encode()]
        if not (0 <= self.start_id < size and all(self.model.is_byte(token) for token in self._mark_ids)):
            raise DataError("the SentencePiece model has no start token or no byte fallback")
        super().__init__([_piece_bytes(self.model, token) for token in range(size)])
        self._blob = blob
        self.is_lossless = True
        self.is_lossless = self.decode(self.encode(_PROBE.encode())) == _PROBE.encode()

    def encode(self, text: bytes) -> TokenArray:
        """Give the ids of the pieces.

        Raises:
            DataError: the text is not UTF-8.
        """
        try:
            characters = text.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"not UTF-8 at byte {error.start}; use --tokenizer bytes") from error
        parts = _cut(characters) if self.is_lossless else [characters]
        dtype = token_dtype(self.vocab_size)
        return np.concatenate([np.empty(0, dtype), *(np.array(self._encode_part(part), dtype) for part in parts)])

    def _encode_part(self, part: str) -> list[int]:
        if not self.is_lossless:
            return list(self.model.encode(part))
        first, *rest = part.split(SPACE_MARK)
        ids = list(self.model.encode(first))
        for segment in rest:
            ids += self._mark_ids
            ids += self.model.encode(segment)
        return ids

    def to_blob(self) -> bytes:
        """Give the serialised model."""
        return self._blob


def _cut(text: str) -> Iterator[str]:
    """Cut a long text after newlines, so that memory does not grow with it."""
    start = 0
    while start < len(text):
        stop = text.find("\n", start + ENCODE_CHARACTERS) + 1 or len(text)
        yield text[start:stop]
        start = stop


def _training_chunks(works: Sequence[Work]) -> list[str]:
    """Cut the works in chunks; of a very long text take evenly spaced ones."""
    texts = [work.data.decode() for work in works]
    chunks = [
        text[start : start + CHUNK_CHARACTERS] for text in texts for start in range(0, len(text), CHUNK_CHARACTERS)
    ]
    return chunks[:: 1 + sum(map(len, texts)) // MAX_TRAINING_CHARACTERS]


def _without_rare(chunks: Sequence[str], num_kept: int) -> Iterator[str]:
    """Cut chunks at the characters that get no piece: the rare ones and the trainer's two marks."""
    counts: Counter[str] = Counter()
    for chunk in chunks:
        counts.update(chunk)
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    dropped = {*ranked[num_kept:], SPACE_MARK, UNKNOWN_MARK} & set(ranked)
    if not dropped:
        yield from chunks
        return
    pattern = re.compile(f"[{re.escape(''.join(sorted(dropped)))}]+")
    for chunk in chunks:
        yield from filter(None, pattern.split(chunk))


def train_sentencepiece(works: Sequence[Work], vocab_size: int) -> SentencePieceTokenizer:
    """Train byte pairs on the works; a short text may give fewer pieces than asked for.

    Args:
        works: the training split.
        vocab_size: number of tokens, 320 to 65,536.

    Raises:
        DataError: nothing to learn in the text.
        MissingExtraError: SentencePiece is not installed.
    """
    chunks = _training_chunks(works)
    written = io.BytesIO()
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(_without_rare(chunks, (vocab_size - NUM_RESERVED) // 2)),
            model_writer=written,
            model_type="bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",
            byte_fallback=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_by_unicode_script=False,
            max_sentence_length=1 << 24,
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        num_bytes = sum(len(work.data) for work in works)
        raise DataError(
            f"SentencePiece cannot learn from {num_bytes:,} bytes of training text; use --tokenizer bytes"
        ) from error
    return SentencePieceTokenizer(written.getvalue())
