"""`scores.npz`: nats, bytes, tokens and right answers per fixed block of the scored text."""

from __future__ import annotations

import io
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import RecordError
from harness.records.safeio import open_regular

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCORES_FILE = "scores.npz"
MAX_SCORES_BYTES = 64 * 2**20
MAX_ARRAYS = 32
# Largest sum of an int64 array that float64 holds exactly.
MAX_SUM = 2**53

_INTEGER_ARRAYS = ("block_bytes", "block_tokens", "block_correct")
_SCALARS = ("context", "stride")
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
    ValueError,
    KeyError,
    OverflowError,
    MemoryError,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockScores:
    """Sums over consecutive blocks of the scored text, in order.

    Attributes:
        block_nats: float64 (blocks,), summed cross entropy in nats.
        block_bytes: int64 (blocks,), bytes of original text.
        block_tokens: int64 (blocks,), scored targets.
        block_correct: int64 (blocks,), targets whose most likely token was right.
        context: input tokens of a window.
        stride: targets scored by a window after the first.
    """

    block_nats: NDArray[np.float64]
    block_bytes: NDArray[np.int64]
    block_tokens: NDArray[np.int64]
    block_correct: NDArray[np.int64]
    context: int
    stride: int

    @property
    def total_nats(self) -> float:
        """Nats of all scored targets."""
        return math.fsum(self.block_nats)

    @property
    def num_bytes(self) -> int:
        """Bytes of the scored text."""
        return int(self.block_bytes.sum())

    @property
    def num_tokens(self) -> int:
        """Scored targets."""
        return int(self.block_tokens.sum())

    @property
    def num_correct(self) -> int:
        """Targets whose most likely token was right."""
        return int(self.block_correct.sum())


def read_scores(folder: Path) -> BlockScores:
    """Read the block scores of a record folder; nothing is unpickled and inflating is bounded.

    Raises:
        RecordError: not an .npz file, too large, or arrays missing, of another type or at odds.
    """
    arrays = _read_arrays(folder)
    if missing := [name for name in ("block_nats", *_INTEGER_ARRAYS, *_SCALARS) if name not in arrays]:
        raise RecordError(f"{SCORES_FILE} has no array {', '.join(missing)}")
    _check_types(arrays)
    _check_blocks(arrays)
    return BlockScores(
        block_nats=arrays["block_nats"],
        block_bytes=arrays["block_bytes"],
        block_tokens=arrays["block_tokens"],
        block_correct=arrays["block_correct"],
        context=int(arrays["context"]),
        stride=int(arrays["stride"]),
    )


def _read_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    with open_regular(folder, SCORES_FILE) as handle:
        size_bytes = os.fstat(handle.fileno()).st_size
        if size_bytes > MAX_SCORES_BYTES:
            raise RecordError(f"{SCORES_FILE} has {size_bytes:,} bytes, more than the {MAX_SCORES_BYTES:,} read")
        try:
            with zipfile.ZipFile(handle) as archive:
                return _read_members(archive)
        except RecordError:
            raise
        except _ZIP_ERRORS as error:
            raise RecordError(f"{SCORES_FILE} is not a readable .npz file ({error!s:.80})") from error


def _read_members(archive: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    members = archive.infolist()
    if len(members) > MAX_ARRAYS or len({member.filename for member in members}) < len(members):
        raise RecordError(f"{SCORES_FILE} holds {len(members)} members, or one twice; at most {MAX_ARRAYS} are read")
    arrays: dict[str, NDArray[Any]] = {}
    left_bytes = MAX_SCORES_BYTES
    for member in members:
        with archive.open(member) as stream:
            raw = stream.read(left_bytes + 1)
        left_bytes -= len(raw)
        if left_bytes < 0:
            raise RecordError(f"{SCORES_FILE} inflates to more than {MAX_SCORES_BYTES:,} bytes")
        arrays[member.filename.removesuffix(".npy")] = _parse_npy(raw)
    return arrays


def _parse_npy(raw: bytes) -> NDArray[Any]:
    """Parse one .npy member: the declared size must be the size there is, so nothing large is allocated."""
    import numpy as np
    from numpy.lib import format as npy

    stream = io.BytesIO(raw)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(stream)]
    shape, is_fortran, dtype = read_header(stream)
    if dtype.hasobject or dtype.kind not in "iuf":
        raise RecordError(f"{SCORES_FILE} holds an array of type {dtype!s:.40}, expected numbers")
    body_bytes = len(raw) - stream.tell()
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != body_bytes or is_fortran:
        raise RecordError(f"{SCORES_FILE} declares an array of shape {shape!s:.60} but holds {body_bytes:,} bytes")
    return np.frombuffer(raw, dtype=dtype, offset=stream.tell()).reshape(shape)


def _check_types(arrays: Mapping[str, NDArray[Any]]) -> None:
    import numpy as np

    expected = {"block_nats": np.float64, **dict.fromkeys(_INTEGER_ARRAYS, np.int64)}
    for name, dtype in expected.items():
        if arrays[name].ndim != 1 or arrays[name].dtype != dtype:
            got = f"{arrays[name].dtype} of shape {arrays[name].shape}"
            raise RecordError(f"{SCORES_FILE}: {name} is {got}, expected {np.dtype(dtype)} (blocks,)")
    for name in _SCALARS:
        if arrays[name].ndim != 0 or arrays[name].dtype.kind not in "iu":
            raise RecordError(f"{SCORES_FILE}: {name} is not one whole number")


def _check_blocks(arrays: Mapping[str, NDArray[Any]]) -> None:
    import numpy as np

    num_blocks = arrays["block_nats"].size
    if num_blocks == 0 or any(arrays[name].size != num_blocks for name in _INTEGER_ARRAYS):
        raise RecordError(f"{SCORES_FILE}: the block arrays are empty or of unlike lengths")
    if not (np.isfinite(arrays["block_nats"]).all() and np.abs(arrays["block_nats"]).max() < MAX_SUM):
        raise RecordError(f"{SCORES_FILE}: block_nats holds numbers that are not finite")
    for name in _INTEGER_ARRAYS:
        if arrays[name].min() < 0 or arrays[name].max() > MAX_SUM // num_blocks:
            raise RecordError(f"{SCORES_FILE}: {name} holds negative or impossibly large counts")
    if (arrays["block_correct"] > arrays["block_tokens"]).any():
        raise RecordError(f"{SCORES_FILE}: a block has more right answers than tokens")
    if not (arrays["block_tokens"].sum() and arrays["block_bytes"].sum()):
        raise RecordError(f"{SCORES_FILE}: no token or no byte was scored")
