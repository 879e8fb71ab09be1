"""The token shards of the 16 MB challenge: a header of 256 int32, then uint16 tokens, all little-endian."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import DataError
from harness.files import write_atomic

MAGIC, VERSION = 20240520, 1
HEADER_INTS = 256
HEADER_BYTES = 4 * HEADER_INTS
TOKEN_DTYPE = np.dtype("<u2")


def read_shard(path: Path) -> NDArray[np.uint16]:
    """Map the tokens of a shard into memory, read-only.

    Returns:
        The tokens, shape (num_tokens,), uint16.

    Raises:
        DataError: not a shard, another version, or a size other than the header says.
    """
    try:
        header = np.fromfile(path, dtype="<i4", count=HEADER_INTS)
        file_bytes = path.stat().st_size
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if len(header) < HEADER_INTS or int(header[0]) != MAGIC:
        raise DataError(f"{path}: not a token shard (its header would start with {MAGIC})")
    if int(header[1]) != VERSION:
        raise DataError(f"{path}: shard version {header[1]}, expected {VERSION}")
    num_tokens = int(header[2])
    if num_tokens < 0 or file_bytes != HEADER_BYTES + 2 * num_tokens:
        expected = HEADER_BYTES + 2 * num_tokens
        raise DataError(
            f"{path}: {file_bytes:,} bytes, but {num_tokens:,} tokens (its header) are {expected:,} bytes. "
            "Was the download cut off?"
        )
    if not num_tokens:
        raise DataError(f"{path}: the shard has no tokens")
    return np.memmap(path, dtype=TOKEN_DTYPE, mode="r", offset=HEADER_BYTES, shape=(num_tokens,))


def write_shard(path: Path, tokens: ArrayLike) -> None:
    """Write tokens as one shard, whole or not at all.

    Args:
        path: the file.
        tokens: shape (num_tokens,), every one below 65,536.

    Raises:
        DataError: a token that uint16 cannot hold, or another shape.
    """
    array = np.asarray(tokens)
    if array.ndim != 1 or (array.size and not 0 <= int(array.min()) <= int(array.max()) < 1 << 16):
        raise DataError(f"{path}: a shard holds one row of tokens from 0 to 65,535, got shape {array.shape}")
    header = np.zeros(HEADER_INTS, dtype="<i4")
    header[:3] = MAGIC, VERSION, array.size
    write_atomic(path, header.tobytes(), array.astype(TOKEN_DTYPE).tobytes())
