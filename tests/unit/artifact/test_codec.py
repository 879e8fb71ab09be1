from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.artifact.byte_coders import COMPRESSORS, compress_zstd, decompress
from harness.artifact.codec import (
    MAX_BYTES_PER_BYTE,
    SYMBOL_CODERS,
    check_plausible,
    code_of,
    decode,
    decode_into,
    encode,
    encode_smallest,
)
from harness.artifact.quantize import quantise
from harness.errors import ArtifactError, UsageError

DTYPES = [np.int8, np.int16, np.int32, np.float16, np.float32]


def round_trip(array: np.ndarray) -> tuple[str, bytes]:
    coder, payload = encode_smallest(array)
    back = decode(coder, payload, code_of(array.dtype), array.shape)
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    return coder, payload


@pytest.mark.parametrize("coder", COMPRESSORS)
@pytest.mark.parametrize(
    "data", [b"", b"a", b"\0" * 300_000, bytes(range(256)) * 3], ids=["none", "one", "zeros", "ramp"]
)
def test_byte_coders_are_strict(coder: str, data: bytes) -> None:
    payload = COMPRESSORS[coder](data)
    assert decompress(coder, payload, len(data)) == data
    spoiled = [payload + b"x", payload[:-1], payload + payload]
    for bad in [bad for bad in spoiled if bad != payload]:
        with pytest.raises(ArtifactError):
            decompress(coder, bad, len(data))
    with pytest.raises(ArtifactError):
        decompress(coder, payload, len(data) + 1)


def test_zstd_window_is_fixed_by_the_reader() -> None:
    import zstandard

    form = zstandard.FORMAT_ZSTD1_MAGICLESS
    params = zstandard.ZstdCompressionParameters.from_level(3, window_log=27, format=form, write_content_size=0)
    coder = zstandard.ZstdCompressor(compression_params=params).compressobj()
    payload = coder.compress(b"a" * 1000) + coder.flush()
    with pytest.raises(ArtifactError, match="memory"):
        decompress("zstd", payload, 1000)
    assert decompress("zstd", compress_zstd(b"a" * 1000), 1000) == b"a" * 1000


@pytest.mark.parametrize("coder", SYMBOL_CODERS)
def test_symbol_coders_by_name(coder: str) -> None:
    rng = np.random.default_rng(0)
    # Rows of unlike scales, with one largest number each that all share.
    symbols = np.rint(rng.normal(size=(30, 40)) * np.exp(rng.normal(size=(30, 1)))).clip(-50, 50).astype(np.int8)
    symbols[np.arange(30), rng.integers(0, 40, 30)] = rng.choice([-50, 50], 30)
    payload = encode(symbols, coder)
    assert payload is not None
    assert np.array_equal(decode(coder, payload, "i1", symbols.shape), symbols)


def test_packed_bits_by_hand() -> None:
    # Offsets 0, 2, 1, 3, 3 from -1 in two bits: 00 10 01 11 | 11......
    payload = encode(np.array([-1, 1, 0, 2, 2], np.int8), "packed")
    assert payload == bytes([2, 1, 0b00100111, 0b11000000])


def test_floats_are_coded_by_planes() -> None:
    weight = np.random.default_rng(0).normal(size=20_000).astype(np.float16)
    coder, payload = round_trip(weight)
    assert len(coder.split("+")) == 2
    assert len(payload) < 0.9 * weight.nbytes


def test_smallest_is_smallest() -> None:
    rng = np.random.default_rng(1)
    row = rng.integers(-100, 100, 64).astype(np.int8)
    arrays = {
        "range": np.rint(rng.normal(size=(100, 100)) * 5).astype(np.int8),
        "range-rows": np.rint(rng.normal(size=(200, 100)) * np.geomspace(1, 40, 200)[:, None])
        .clip(-127, 127)
        .astype(np.int8),
        "range-peaks": quantise(rng.normal(size=(100, 100)), "int8-row").symbols,
        "zstd": np.tile(row, (300, 1)),
        "raw": np.array([3, -9], np.int8),
    }
    for expected, array in arrays.items():
        coder, payload = round_trip(array)
        assert coder == expected
        for other in (*SYMBOL_CODERS, *COMPRESSORS):
            coded = encode(array, other)
            assert coded is None or len(payload) <= len(coded)


def test_long_repeats_are_found_in_large_tensors() -> None:
    block = np.random.default_rng(2).integers(-127, 128, 100_000).astype(np.int8)
    coder, payload = round_trip(np.concatenate([block, block, block]).reshape(300, 1000))
    assert coder in ("zstd", "lzma")
    assert len(payload) < 0.4 * 300_000


def test_constant_tensors_obey_the_expansion_cap() -> None:
    for dtype in DTYPES:
        _, payload = round_trip(np.zeros((1000, 300), dtype))
        assert len(payload) * MAX_BYTES_PER_BYTE >= 300_000
        assert len(payload) < 200


@pytest.mark.parametrize(
    ("coder", "payload_bytes", "dtype", "count"),
    [
        ("range", 0, "i1", 1),
        ("range", 3, "i1", 100_000),
        ("zstd", 10, "i1", 10 * MAX_BYTES_PER_BYTE + 1),
        ("raw", 10, "f4", 2**40),
        ("range", 100, "i1", 10),
        ("raw", 1, "i1", 0),
        ("lz4", 10, "i1", 10),
        ("raw+raw", 10, "i1", 10),
        ("range", 10, "f2", 10),
        ("range-rows", 10, "f4", 10),
        ("range-peaks", 10, "f4", 10),
        ("raw+range-rows", 10, "f2", 10),
        ("", 10, "i1", 10),
    ],
)
def test_impossible_payloads_are_refused_before_decoding(
    coder: str, payload_bytes: int, dtype: str, count: int
) -> None:
    with pytest.raises(ArtifactError):
        check_plausible(coder, payload_bytes, dtype, count)  # type: ignore[arg-type]


def test_unknown_coder_and_type() -> None:
    with pytest.raises(UsageError, match="unknown coder 'lzmo'. Did you mean 'lzma'"):
        encode(np.zeros(3, np.int8), "lzmo")
    with pytest.raises(UsageError, match="names 1 planes, int16 has 2"):
        encode(np.zeros(3, np.int16), "zstd")
    with pytest.raises(UsageError, match="no coder stores arrays of type float64"):
        encode_smallest(np.zeros(3))


def test_decodes_whole_numbers_into_floats() -> None:
    symbols = np.arange(-600, 600, dtype=np.int16).reshape(30, 40)
    for coder in ("range", "packed", "raw", "zstd+zlib"):
        payload = encode(symbols, coder)
        assert payload is not None
        out = np.empty(symbols.shape, np.float32)
        decode_into(coder, payload, "i2", out)
        assert np.array_equal(out, symbols)


numbers = {
    "i": st.one_of(st.integers(-2, 2), st.integers(-127, 127)),
    "f": st.floats(-10, 10, width=16),
}
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=12)
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, shapes, elements=numbers[np.dtype(dtype).kind])
)


@settings(max_examples=80, deadline=None)
@given(arrays)
def test_any_array_survives(array: np.ndarray) -> None:
    coder, payload = round_trip(array)
    assert len(payload) <= array.nbytes
    assert encode_smallest(array.copy()) == (coder, payload)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([*SYMBOL_CODERS, "raw", "zlib", "zstd", "lzma", "raw+range", "zstd+lzma", "zlib+zlib"]),
    st.binary(max_size=50),
    st.sampled_from(["i1", "i2", "f2"]),
    st.sampled_from([(), (0,), (3,), (5, 7), (40, 40)]),
)
def test_any_payload_ends_in_numbers_or_one_error(
    coder: str, payload: bytes, dtype: str, shape: tuple[int, ...]
) -> None:
    try:
        back = decode(coder, payload, dtype, shape)  # type: ignore[arg-type]
    except ArtifactError:
        return
    assert back.shape == shape
