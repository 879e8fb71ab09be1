"""How the 16 MB challenge counts the bytes of a target, given the token before it.

The bytes are those of the text as its tokenizer normalised it, not of the raw file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPACE_MARK = "\u2581"
IntArray = NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ByteTables:
    """What is known of each token id.

    Attributes:
        base_bytes: bytes of the piece without its leading space, shape (vocab_size,), int32.
        has_leading_space: whether the piece starts with a space, shape (vocab_size,), bool.
        is_boundary: control, unknown, unused, or beyond the model's vocabulary, shape (vocab_size,), bool.
    """

    base_bytes: NDArray[np.int32]
    has_leading_space: NDArray[np.bool_]
    is_boundary: NDArray[np.bool_]

    def count_bytes(self, previous: IntArray, targets: IntArray) -> NDArray[np.int32]:
        """Give the bytes of each target.

        Args:
            previous: the token before each target, shape (num_targets,).
            targets: shape (num_targets,).

        Returns:
            Bytes, int32; a leading space is not counted after a boundary token.
        """
        spaces = self.has_leading_space[targets] & ~self.is_boundary[previous]
        return np.asarray(self.base_bytes[targets] + spaces, dtype=np.int32)


def byte_tables(model: Any, vocab_size: int = 0) -> ByteTables:
    """Read the tables off a SentencePiece model.

    Args:
        model: a SentencePieceProcessor.
        vocab_size: number of token ids of the network, if larger than the model's.
    """
    num_pieces = int(model.vocab_size())
    size = max(num_pieces, vocab_size)
    base_bytes = np.zeros(size, dtype=np.int32)
    has_leading_space = np.zeros(size, dtype=np.bool_)
    is_boundary = np.ones(size, dtype=np.bool_)
    for token in range(num_pieces):
        if model.is_control(token) or model.is_unknown(token) or model.is_unused(token):
            continue
        is_boundary[token] = False
        piece: str = model.id_to_piece(token)
        has_leading_space[token] = piece.startswith(SPACE_MARK)
        base_bytes[token] = 1 if model.is_byte(token) else len(piece.removeprefix(SPACE_MARK).encode())
    return ByteTables(base_bytes=base_bytes, has_leading_space=has_leading_space, is_boundary=is_boundary)
