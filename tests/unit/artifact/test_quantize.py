from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.artifact.quantize import dequantise, known_schemes, num_rows, quantise, squared_error
from harness.errors import RunError, UsageError

LOSSY = [name for name in known_schemes() if name not in ("fp32", "integers")]
SHAPES = [(), (1,), (7,), (1, 1), (5, 3), (2, 3, 4), (2, 1, 3, 5)]
EMPTY_SHAPES = [(0,), (0, 4), (4, 0), (2, 0, 3)]


def weights(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).normal(size=shape), dtype=np.float32)


def test_int8_row_by_hand() -> None:
    # Row maxima 1.27 and 0.5; scales .01 and .5/127, rounded to float16.
    weight = np.array([[1.27, -0.5, 0.004], [0.5, -0.5, 0.0]], np.float32)
    q = quantise(weight, "int8-row")
    assert q.symbols.tolist() == [[127, -50, 0], [127, -127, 0]]
    assert q.scale is not None
    assert q.scale.tolist() == [np.float16(0.01), np.float16(0.5 / 127)]
    assert dequantise(q)[0, 0] == np.float32(127) * np.float32(np.float16(0.01))


def test_int4_tensor_by_hand() -> None:
    # One scale, 7 / 7 = 1; 0.5 rounds to even.
    q = quantise(np.array([[7.0, -3.4], [0.5, 1.5]], np.float32), "int4-tensor")
    assert q.scale is not None and q.scale.tolist() == [1.0]
    assert q.symbols.tolist() == [[7, -3], [0, 2]]


def test_ternary_by_hand() -> None:
    # |w| sorted 3, 3, 1: sums 3, 6, 7; sum^2/k = 9, 18, 16.3, so k = 2 and the scale is 6 / 2.
    q = quantise(np.array([3.0, -1.0, -3.0], np.float32), "ternary-row")
    assert q.scale is not None and q.scale.tolist() == [3.0]
    assert q.symbols.tolist() == [1, 0, -1]


def test_given_step_by_hand() -> None:
    q = quantise(np.array([0.1, -0.26, 100.0], np.float32), "step-0.25")
    assert q.symbols.tolist() == [0, -1, 400]
    assert q.symbols.dtype == np.int16
    assert dequantise(q).tolist() == [0.0, -0.25, 100.0]


@pytest.mark.parametrize("row", [0, 3])
def test_ternary_scale_is_the_best_of_all(row: int) -> None:
    weight = weights((4, 60), seed=5)[row]
    found = squared_error(weight, quantise(weight, "ternary-row"))
    scales = np.linspace(0.01, 3, 3000)[:, None]
    rounded = np.clip(np.rint(weight / scales), -1, 1) * scales
    assert found <= ((weight - rounded) ** 2).sum(axis=1).min() * 1.001


@pytest.mark.parametrize("scheme", known_schemes())
@pytest.mark.parametrize("shape", SHAPES + EMPTY_SHAPES)
def test_shapes_survive(scheme: str, shape: tuple[int, ...]) -> None:
    weight = np.rint(weights(shape) * 10) if scheme == "integers" else weights(shape)
    q = quantise(weight, scheme)
    back = dequantise(q)
    assert back.shape == q.shape == shape
    assert back.dtype == np.float32
    if q.scale is not None:
        expected = num_rows(shape) if "row" in scheme or "-int" in scheme else min(num_rows(shape), 1)
        assert q.scale.shape == (expected,)


@pytest.mark.parametrize(
    ("shape", "rows"), [((), 1), ((5,), 1), ((2, 3), 2), ((2, 3, 4), 6), ((0,), 0), ((4, 0), 0), ((0, 4), 0)]
)
def test_rows_are_leading_axes(shape: tuple[int, ...], rows: int) -> None:
    assert num_rows(shape) == rows


@pytest.mark.parametrize("scheme", [name for name in LOSSY if "-row" in name or "-int" in name])
def test_stack_equals_its_matrices(scheme: str) -> None:
    stack = weights((3, 8, 50), seed=2) * np.array([0.1, 1, 3], np.float32)[:, None, None]
    whole = dequantise(quantise(stack, scheme))
    assert np.array_equal(whole, np.stack([dequantise(quantise(matrix, scheme)) for matrix in stack]))


@pytest.mark.parametrize("scheme", LOSSY)
def test_zero_rows_stay_zero(scheme: str) -> None:
    weight = weights((6, 40))
    weight[[0, 3]] = 0
    assert not dequantise(quantise(weight, scheme))[[0, 3]].any()
    assert not dequantise(quantise(np.zeros((3, 4), np.float32), scheme)).any()


@pytest.mark.parametrize("bits", [8, 6, 4])
@pytest.mark.parametrize("group", ["row", "tensor"])
def test_search_never_loses(bits: int, group: str) -> None:
    weight = np.random.default_rng(bits).standard_t(3, size=(20, 200)).astype(np.float32)
    plain = squared_error(weight, quantise(weight, f"int{bits}-{group}"))
    searched = squared_error(weight, quantise(weight, f"int{bits}-{group}-search"))
    assert searched <= plain
    if bits == 4:
        assert searched < 0.8 * plain


def test_search_finds_the_best_of_a_fine_grid() -> None:
    weight = np.random.default_rng(1).standard_t(3, size=300).astype(np.float32)
    found = squared_error(weight, quantise(weight, "int4-row-search"))
    scales = np.abs(weight).max() / 7 * np.linspace(0.1, 1, 2000)[:, None]
    best = ((weight - np.clip(np.rint(weight / scales), -7, 7) * scales) ** 2).sum(axis=1).min()
    assert found <= 1.01 * best


@pytest.mark.parametrize("search", ["", "-search"])
@pytest.mark.parametrize("bits", [8, 6, 4])
def test_step_matches_the_error_of_rows(bits: int, search: str) -> None:
    rng = np.random.default_rng(3)
    weight = (rng.normal(size=(50, 200)) * np.exp(rng.normal(size=(50, 1)))).astype(np.float32)
    by_row = squared_error(weight, quantise(weight, f"int{bits}-row{search}"))
    by_step = squared_error(weight, quantise(weight, f"int{bits}-step{search}"))
    assert by_step == pytest.approx(by_row, rel=0.005)


def test_error_is_at_most_half_a_step() -> None:
    weight = weights((30, 70))
    q = quantise(weight, "int8-row")
    assert q.scale is not None
    assert (np.abs(weight - dequantise(q)) <= q.scale.astype(np.float32)[:, None] * 0.51).all()


@pytest.mark.parametrize("factor", [1e-30, 1e-5, 1e7, 1e30])
def test_scales_beyond_float16_are_kept_as_float32(factor: float) -> None:
    weight = weights((4, 100)) * np.float32(factor)
    q = quantise(weight, "int8-row")
    assert q.scale is not None and q.scale.dtype == np.float32
    np.testing.assert_allclose(dequantise(q) / factor, weight / factor, atol=0.02)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "scheme", ["fp32", "fp16", "int8-row", "int6-step", "ternary-row", "legendre-int7", "integers"]
)
def test_not_finite_is_refused_by_name(bad: float, scheme: str) -> None:
    weight = weights((3, 4))
    weight[1, 2] = bad
    with pytest.raises(RunError, match=r"blocks\.0\.q: 1 of 12 numbers are NaN or infinite"):
        quantise(weight, scheme, name="blocks.0.q")


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RunError, match="does not fit in fp16"):
        quantise(np.array([1e5]), "fp16")
    with pytest.raises(RunError, match="whole numbers"):
        quantise(np.array([0.5]), "integers")
    with pytest.raises(RunError, match="at most 16777216"):
        quantise(np.array([1e9, 1.0]), "step-1")
    with pytest.raises(UsageError):
        quantise(np.array([1.0]), "int8")


finite = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
arrays = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6), elements=finite)


@settings(max_examples=60, deadline=None)
@given(weight=arrays, scheme=st.sampled_from(LOSSY))
def test_quantising_what_was_decoded_is_bounded_and_deterministic(weight: np.ndarray, scheme: str) -> None:
    first, second = quantise(weight, scheme), quantise(weight.copy(), scheme)
    assert first.symbols.tobytes() == second.symbols.tobytes()
    back = dequantise(first)
    assert back.shape == weight.shape and np.isfinite(back).all()
    if weight.size:
        # No scheme is worse than storing zeros, up to the rounding of its scale.
        assert squared_error(weight, first) <= float((weight.astype(np.float64) ** 2).sum()) * 1.01 + 1e-6


@settings(max_examples=30, deadline=None)
@given(weight=arrays)
def test_floats_are_exact(weight: np.ndarray) -> None:
    assert np.array_equal(dequantise(quantise(weight, "fp32")), weight)
    assert np.array_equal(dequantise(quantise(weight, "fp16")), weight.astype(np.float16).astype(np.float32))


@given(hnp.arrays(np.int32, hnp.array_shapes(min_side=0, max_side=5), elements=st.integers(-(2**24), 2**24)))
def test_integers_are_exact(values: np.ndarray) -> None:
    assert np.array_equal(dequantise(quantise(values, "integers")), values)
