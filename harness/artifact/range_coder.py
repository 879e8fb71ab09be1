"""The range coder: symbols to a payload of close to their entropy, whole or by classes of rows.

Payload: the prior (see `payload_head`), then the words of the coder, big-endian, without the trailing bytes that a
reader can fill with zeros. `range-rows` sorts rows into classes by magnitude (0.3 octaves each) and gives each class
its own scale and counts; the class of each row comes first. `range-peaks` first says where in each row the largest
magnitude stands, in log2(2 * columns) bits: that each row scaled by its maximum has one saves log2(e) bits a row.
All of it is one stream of `constriction`'s range coder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from harness.artifact.byte_coders import Buffer
from harness.artifact.fitting import fit_prior
from harness.artifact.models import ADD_8, FLAT, SCALES_PER_OCTAVE, BlockModel, Prior, block_lengths
from harness.artifact.payload_head import (
    MAX_ALPHABET,
    Cursor,
    find_alphabets,
    get_prior,
    put_prior,
    put_varint,
)
from harness.errors import ArtifactError

Ints = NDArray[np.int32]
Encode = Callable[[Ints], bytes | None]
Decode = Callable[[Buffer, NDArray[np.generic]], None]

MAX_CLASSES = 64
CLASS_STEP = 3
# Rows below it are nearly all zeros, where a scale says nothing; they share the first class.
_SMALLEST_RMS = 0.25
# Trimming the last words needs trial decoding; their few bytes matter only for small tensors.
_TRIM_SYMBOLS = 16_384
# A bit and a half a row matter only for small tensors, and the rows are rebuilt from two arrays.
_PEAK_SYMBOLS = 131_072


class _Writer:
    def __init__(self) -> None:
        import constriction

        self._categorical = constriction.stream.model.Categorical
        self._uniform = constriction.stream.model.Uniform
        self._coder = constriction.stream.queue.RangeEncoder()

    def put_uniform(self, symbols: Ints, size: int) -> None:
        self._coder.encode(symbols, self._uniform(size))

    def put(self, symbols: Ints, prior: Prior, num_columns: int) -> None:
        model, at = BlockModel(prior, num_columns), 0
        for length in block_lengths(symbols.size):
            offsets = symbols[at : at + length] - np.int32(prior.low)
            self._coder.encode(offsets, self._categorical(model.weights(), perfect=False))
            model.update(offsets)
            at += length

    def words(self) -> bytes:
        packed: bytes = self._coder.get_compressed().astype(">u4").tobytes()
        return packed


def _decoded(decode: Callable[[], Ints]) -> Ints:
    try:
        return decode()
    except (AssertionError, ValueError, KeyError) as error:
        raise ArtifactError("range-coded payload does not decode under its model") from error


class _Reader:
    def __init__(self, data: Buffer) -> None:
        import constriction

        self._categorical = constriction.stream.model.Categorical
        self._uniform = constriction.stream.model.Uniform
        whole_bytes = len(data) // 4 * 4
        words = np.empty(-(-len(data) // 4), np.uint32)
        words[: whole_bytes // 4] = np.frombuffer(memoryview(data)[:whole_bytes], ">u4")
        if whole_bytes < len(data):
            words[-1] = int.from_bytes(bytes(data[whole_bytes:]).ljust(4, b"\0"), "big")
        self._coder = constriction.stream.queue.RangeDecoder(words)

    def uniform(self, num_symbols: int, size: int) -> Ints:
        return _decoded(partial(self._coder.decode, self._uniform(size), num_symbols))

    def blocks(self, num_symbols: int, prior: Prior, num_columns: int) -> Iterator[Ints]:
        model = BlockModel(prior, num_columns)
        for length in block_lengths(num_symbols):
            categorical = self._categorical(model.weights(), perfect=False)
            offsets = _decoded(partial(self._coder.decode, categorical, length))
            model.update(offsets)
            yield offsets + np.int32(prior.low)

    def check_end(self) -> None:
        if not self._coder.maybe_exhausted():
            raise ArtifactError("range-coded payload is longer than its symbols need")


def _shorten(words: bytes, dropped: int) -> bytes | None:
    """Drop trailing bytes, rounding up: the words are the low end of the interval that decodes alike."""
    kept = len(words) - dropped
    short = -(-int.from_bytes(words, "big") >> 8 * dropped)
    return short.to_bytes(kept, "big") if kept >= 0 and short.bit_length() <= 8 * kept else None


def _decodes_to(decode: Decode, payload: bytes, rows_RC: NDArray[np.generic]) -> bool:
    out_RC = np.empty_like(rows_RC)
    try:
        decode(payload, out_RC)
    except ArtifactError:
        return False
    return np.array_equal(out_RC, rows_RC)


def _trim(decode: Decode, head: bytes, words: bytes, rows_RC: Ints) -> bytes:
    """Drop as many trailing bytes as a reader can fill with zeros."""
    if rows_RC.size <= _TRIM_SYMBOLS:
        for dropped in range(min(len(words), 8), 0, -1):
            short = _shorten(words, dropped)
            if short is not None and _decodes_to(decode, head + short, rows_RC):
                return head + short
    return head + words


def _fit(rows_RC: Ints) -> Prior | None:
    symbols = rows_RC.reshape(-1)
    low, high = int(symbols.min()), int(symbols.max())
    columns = rows_RC.shape[1]
    alphabets = find_alphabets(low, high)
    fits = [fit_prior(symbols, first, size, columns, centre=0, tied=True) for first, size in alphabets]
    if high - low < MAX_ALPHABET and (not alphabets or low >= 0):
        mode, mean = int(np.bincount(symbols - low).argmax()) + low, round(float(symbols.mean()))
        size = max(high - low + 1, 2)
        for centre in sorted({mode, mean}):
            bits, prior = fit_prior(symbols, low, size, columns, centre=centre, tied=centre == low)
            if prior.left == prior.right == FLAT:
                prior = prior._replace(centre=low)
            fits.append((bits, prior))
    return min(fits, key=lambda fit: fit[0])[1] if fits else None


def encode_whole(rows_RC: Ints) -> bytes | None:
    """Encode symbols as one stream.

    Args:
        rows_RC: int32, at least one symbol.

    Returns:
        The payload; None where the alphabet is too wide.
    """
    prior = _fit(rows_RC)
    if prior is None:
        return None
    writer = _Writer()
    writer.put(rows_RC.reshape(-1), prior, rows_RC.shape[1])
    return _trim(decode_whole, put_prior(prior), writer.words(), rows_RC)


def iterate_whole(payload: Buffer, num_symbols: int, num_columns: int) -> Iterator[Ints]:
    """Decode a payload of `encode_whole` block by block.

    Raises:
        ArtifactError: the payload is not one of that many symbols.
    """
    cursor = Cursor(payload)
    prior = get_prior(cursor)
    reader = _Reader(memoryview(payload)[cursor.at :])
    yield from reader.blocks(num_symbols, prior, num_columns)
    if num_symbols > _TRIM_SYMBOLS:
        reader.check_end()


def decode_whole(payload: Buffer, out_RC: NDArray[np.generic]) -> None:
    """Decode a payload of `encode_whole` into a contiguous array of any number type.

    Raises:
        ArtifactError: the payload is not one of that many symbols.
    """
    out, at = out_RC.reshape(-1), 0
    for block in iterate_whole(payload, out.size, out_RC.shape[1]):
        out[at : at + block.size] = block
        at += block.size


def _classes_of(rows_RC: Ints) -> NDArray[np.int32]:
    rms_R = np.sqrt(np.mean(np.square(rows_RC, dtype=np.float64), axis=1))
    smallest = max(_SMALLEST_RMS, float(rms_R.min()))
    octaves_R = np.log2(np.maximum(rms_R, smallest) / smallest)
    steps_R = np.rint(octaves_R * (SCALES_PER_OCTAVE / CLASS_STEP))
    class_R: Ints = np.minimum(steps_R, MAX_CLASSES - 1).astype(np.int32)
    return class_R


def _class_prior(num_classes: int) -> Prior:
    return Prior(low=0, size=num_classes, centre=0, left=FLAT, right=FLAT, shape=0, trust=ADD_8)


def encode_by_rows(rows_RC: Ints) -> bytes | None:
    """Encode symbols by classes of rows.

    Args:
        rows_RC: int32, at least one symbol.

    Returns:
        The payload; None where the rows are alike or the alphabet is too wide.
    """
    class_R = _classes_of(rows_RC)
    num_classes = int(class_R.max()) + 1
    if num_classes < 2:
        return None
    largest = int(np.bincount(class_R).argmax())
    low, high = int(rows_RC.min()), int(rows_RC.max())
    if high - low >= MAX_ALPHABET:
        return None
    low, size = (*find_alphabets(low, high), (low, high - low + 1))[0]
    sample = rows_RC[class_R == largest].reshape(-1)
    centre = min(max(0, low), low + size - 1)
    _, prior = fit_prior(sample, low, size, rows_RC.shape[1], centre=centre, tied=True)
    if prior.left == FLAT:
        return None
    prior = prior.with_scale(prior.left - CLASS_STEP * largest)
    writer = _Writer()
    writer.put(class_R, _class_prior(num_classes), 1)
    for kind in range(num_classes):
        chosen = rows_RC[class_R == kind].reshape(-1)
        writer.put(chosen, prior.with_scale(min(prior.left + CLASS_STEP * kind, FLAT - 1)), rows_RC.shape[1])
    head = put_prior(prior) + bytes([num_classes])
    return _trim(decode_by_rows, head, writer.words(), rows_RC)


def decode_by_rows(payload: Buffer, out_RC: NDArray[np.generic]) -> None:
    """Decode a payload of `encode_by_rows` into a contiguous array of any number type.

    Raises:
        ArtifactError: the payload is not one of that many rows.
    """
    cursor = Cursor(payload)
    prior, num_classes = get_prior(cursor), cursor.byte()
    if not 2 <= num_classes <= MAX_CLASSES:
        raise ArtifactError(f"range-coded payload declares {num_classes} classes of rows")
    reader = _Reader(memoryview(payload)[cursor.at :])
    blocks = list(reader.blocks(len(out_RC), _class_prior(num_classes), 1))
    class_R = np.concatenate(blocks) if blocks else np.zeros(0, np.int32)
    for kind in range(num_classes):
        rows = np.flatnonzero(class_R == kind)
        _decode_class(reader, prior.with_scale(min(prior.left + CLASS_STEP * kind, FLAT - 1)), rows, out_RC)
    if out_RC.size > _TRIM_SYMBOLS:
        reader.check_end()


def _decode_class(reader: _Reader, prior: Prior, rows: NDArray[np.intp], out_RC: NDArray[np.generic]) -> None:
    columns = out_RC.shape[1]
    narrow = np.int16 if prior.low + prior.size <= 32768 and prior.low >= -32768 else np.int32
    symbols, at = np.empty(rows.size * columns, narrow), 0
    for block in reader.blocks(symbols.size, prior, columns):
        symbols[at : at + block.size] = block
        at += block.size
    out_RC[rows] = symbols.reshape(rows.size, columns)


def encode_by_peaks(rows_RC: Ints) -> bytes | None:
    """Encode the place and sign of the largest magnitude of each row, then all other symbols as one stream.

    Args:
        rows_RC: int32, at least one symbol.

    Returns:
        The payload; None where rows differ in their largest magnitude, or the tensor or its alphabet is too large.
    """
    if rows_RC.size > _PEAK_SYMBOLS or rows_RC.shape[1] < 2:
        return None
    magnitude_RC, rows = np.abs(rows_RC), np.arange(len(rows_RC))
    column_R = magnitude_RC.argmax(axis=1).astype(np.int32)
    peak_R = magnitude_RC[rows, column_R]
    if peak_R.min() != peak_R.max():
        return None
    rest_RC = rows_RC[_others(column_R, rows_RC.shape[1])].reshape(len(rows_RC), -1)
    if (prior := _fit(rest_RC)) is None:
        return None
    writer = _Writer()
    writer.put_uniform(2 * column_R + (rows_RC[rows, column_R] < 0), 2 * rows_RC.shape[1])
    writer.put(rest_RC.reshape(-1), prior, rest_RC.shape[1])
    return _trim(decode_by_peaks, put_prior(prior) + put_varint(int(peak_R[0])), writer.words(), rows_RC)


def _others(column_R: Ints, num_columns: int) -> NDArray[np.bool_]:
    """Which symbols are not the chosen one of their row, (rows, columns)."""
    return np.not_equal(np.arange(num_columns), column_R[:, None])


def decode_by_peaks(payload: Buffer, out_RC: NDArray[np.generic]) -> None:
    """Decode a payload of `encode_by_peaks` into a contiguous array of any number type.

    Raises:
        ArtifactError: the payload is not one of that many symbols.
    """
    rows, columns = out_RC.shape
    cursor = Cursor(payload)
    prior, peak = get_prior(cursor), cursor.varint()
    if out_RC.size > _PEAK_SYMBOLS or columns < 2 or peak > 1 << 24:
        raise ArtifactError(f"range-peaks payload cannot hold {rows} rows of {columns} symbols up to {peak}")
    reader = _Reader(memoryview(payload)[cursor.at :])
    place_R = reader.uniform(rows, 2 * columns)
    others_RC = _others(place_R >> 1, columns)
    out_RC[~others_RC] = np.where(place_R & 1, -peak, peak)
    out_RC[others_RC] = np.concatenate(list(reader.blocks(rows * (columns - 1), prior, columns - 1)))
    if out_RC.size > _TRIM_SYMBOLS:
        reader.check_end()
