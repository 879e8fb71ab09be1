"""Rate against distortion: monotone in lambda, better than rounding at equal bytes, storable."""

from __future__ import annotations

import numpy as np
import pytest

from harness.artifact.codec import encode_smallest
from harness.artifact.gptq import output_errors, quantise_gptq
from harness.artifact.quantize import quantise, squared_error
from harness.artifact.rate_distortion import RateDistortion
from harness.artifact.writer import PlannedTensor
from harness.errors import RunError


@pytest.fixture(scope="module")
def case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(96, 96)) * rng.gamma(1.0, size=96)
    inputs = rng.normal(size=(500, 96)) @ mix
    return rng.normal(scale=0.05, size=(160, 96)).astype(np.float32), inputs.T @ inputs / 500


def test_fewer_bytes_and_more_error_with_lambda(case: tuple[np.ndarray, np.ndarray]) -> None:
    weight, moment = case
    problem = RateDistortion(weight, moment, name="w")
    base = problem.lambda_of("int6-row")
    choices = [problem.choose(base * factor) for factor in (0.1, 1.0, 10.0, 1e6)]
    sizes, errors = [c.payload_bytes for c in choices], [c.distortion for c in choices]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0] / 20
    assert errors == sorted(errors)
    assert not choices[-1].quantised.symbols.any()
    for choice in choices:
        assert choice.distortion == pytest.approx(output_errors(weight, choice.quantised, moment).sum(), rel=1e-5)


def test_beats_gptq_on_a_grid_at_its_bytes(case: tuple[np.ndarray, np.ndarray]) -> None:
    weight, moment = case
    grid = quantise_gptq(weight, moment, "int4-row")
    grid_bytes = len(encode_smallest(grid.symbols)[1])
    problem = RateDistortion(weight, moment, name="w")
    base = problem.lambda_of("int4-row")
    choices = [problem.choose(base * factor) for factor in (1.6, 0.6)]
    sizes = [choice.payload_bytes for choice in choices]
    assert sizes[0] < grid_bytes < sizes[1]
    # Errors fall exponentially with bytes, so their logarithm is interpolated.
    at_grid = np.exp(np.interp(grid_bytes, sizes, [np.log(choice.distortion) for choice in choices]))
    assert at_grid < 0.97 * output_errors(weight, grid, moment).sum()


def test_plain_error_without_a_moment(case: tuple[np.ndarray, np.ndarray]) -> None:
    stack = case[0].reshape(4, 40, 96)
    problem = RateDistortion(stack, None, name="w")
    choice = problem.choose(problem.lambda_of("int6-row"))
    assert choice.quantised.shape == stack.shape
    assert choice.distortion == pytest.approx(squared_error(stack, choice.quantised), rel=1e-5)


def test_fine_steps_are_near_plain_rounding(case: tuple[np.ndarray, np.ndarray]) -> None:
    problem = RateDistortion(case[0], None, name="w")
    choice = problem.choose(problem.lambda_of("int8-row"))
    rounded = quantise(case[0], choice.quantised.scheme)
    assert squared_error(case[0], rounded) <= choice.distortion < 1.2 * squared_error(case[0], rounded)


def test_choices_can_be_stored_under_their_scheme(case: tuple[np.ndarray, np.ndarray]) -> None:
    for lagrangian in (1e-12, 1e-5, 1e3):
        quantised = RateDistortion(case[0], None, name="w").choose(lagrangian).quantised
        planned = PlannedTensor(name="w", value=quantised, scheme=quantised.scheme, part="p")
        assert planned.quantise() is quantised
        assert np.array_equal(quantise(case[0], quantised.scheme).scale, quantised.scale)


def test_zeros_and_wrong_inputs() -> None:
    choice = RateDistortion(np.zeros((3, 4), np.float32), np.zeros((4, 4)), name="w").choose(1e-3)
    assert not choice.quantised.symbols.any()
    with pytest.raises(RunError, match="w: holds NaN"):
        RateDistortion(np.full((3, 4), np.nan), None, name="w")
    with pytest.raises(RunError, match="does not fit"):
        RateDistortion(np.zeros((3, 4)), np.eye(3), name="w")
