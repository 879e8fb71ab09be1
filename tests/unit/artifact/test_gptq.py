"""GPTQ, against the published result, plain rounding, and moments that no calibration should give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.artifact.gptq import MICRO_CRAWLER, GptqSettings, micro_crawler_scale, output_errors, quantise_gptq
from harness.artifact.quantize import quantise
from harness.errors import RunError, UsageError


def make_case(num_rows: int = 24, num_columns: int = 40, num_inputs: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    mix = rng.normal(size=(num_columns, num_columns)) * rng.gamma(1.0, size=num_columns)
    inputs = rng.normal(size=(num_inputs, num_columns)) @ mix
    return rng.normal(size=(num_rows, num_columns)).astype(np.float32), inputs.T @ inputs / num_inputs


def test_symbols_equal_the_published(shared_dir: Path) -> None:
    with np.load(shared_dir / "fixtures" / "quant.npz") as archive:
        weight, moment, symbols, scale = (archive[key] for key in ("W", "H", "gptq_q", "gptq_s"))
    found = quantise_gptq(weight, moment, "frugendorff-int6", MICRO_CRAWLER, scale_O=micro_crawler_scale(weight))
    assert found.scale is not None
    assert np.array_equal(found.scale, scale)
    assert np.array_equal(found.symbols, symbols)


def test_rows_of_other_scales_are_not_mixed() -> None:
    weight, moment = make_case()
    with pytest.raises(UsageError, match="cannot replace rows of other scales"):
        quantise_gptq(weight, moment, "int6-row", scale_O=micro_crawler_scale(weight))


@pytest.mark.parametrize("scheme", ["int6-row", "int4-row-search", "ternary-row", "frugendorff-int6", "int4-tensor"])
def test_output_error_is_below_that_of_plain_rounding(scheme: str) -> None:
    weight, moment = make_case()
    plain, found = quantise(weight, scheme), quantise_gptq(weight, moment, scheme)
    assert np.array_equal(found.scale, plain.scale)
    assert found.symbols.dtype == plain.symbols.dtype
    errors, before = output_errors(weight, found, moment), output_errors(weight, plain, moment)
    assert (errors <= before).all()
    assert errors.sum() < 0.8 * before.sum()


def test_errors_are_passed_on_as_in_the_paper() -> None:
    # One row, two columns, damping 0: after column 1 the least-squares best column 2 is w2 + M12 / M22 (w1 - q1).
    weight, moment = np.array([[0.4, 1.0]], np.float32), np.array([[4.0, 1.0], [1.0, 2.0]])
    settings = GptqSettings(damping=0.0, keeps_better_rows=False)
    found = quantise_gptq(weight, moment, "step-0.25", settings)
    # q1 = round(1.6) = 2 (0.5); w2 becomes 1 + .5 * (.4 - .5) = .95, of which 3.8 steps are 4.
    assert found.symbols.tolist() == [[2, 4]]
    wide = quantise_gptq(np.array([[0.12, 1.1]], np.float32), moment, "step-0.25", settings)
    # q1 = 0; w2 becomes 1.1 + .06 = 1.16, 4.64 steps, where plain rounding has 4.4.
    assert wide.symbols.tolist() == [[0, 5]]


@pytest.mark.parametrize("settings", [GptqSettings(), GptqSettings(block=7, order="ascending"), MICRO_CRAWLER])
def test_identity_is_plain_rounding(settings: GptqSettings) -> None:
    weight, _ = make_case()
    for scheme in ("int6-row", "ternary-row", "step-0.05"):
        found = quantise_gptq(weight, 3.0 * np.eye(weight.shape[1]), scheme, settings)
        assert np.array_equal(found.symbols, quantise(weight, scheme).symbols)


def test_blocks_change_nothing() -> None:
    weight, moment = make_case()
    one, other = (quantise_gptq(weight, moment, "int4-row", GptqSettings(block=block)) for block in (1, 64))
    assert np.array_equal(one.symbols, other.symbols)


def test_features_that_never_fire_and_singular_moments() -> None:
    weight, moment = make_case(num_inputs=5)  # rank 5 of 40
    dead = moment.copy()
    dead[[0, 3]] = dead[:, [0, 3]] = 0.0
    for hostile in (moment, dead, np.ones_like(moment), moment - 1e-9 * np.eye(len(moment))):
        found = quantise_gptq(weight, hostile, "int4-row", GptqSettings(damping=0.0))
        assert (
            output_errors(weight, found, hostile) <= output_errors(weight, quantise(weight, "int4-row"), hostile)
        ).all()
    none = quantise_gptq(weight, np.zeros_like(moment), "int4-row")
    assert np.array_equal(none.symbols, quantise(weight, "int4-row").symbols)


def test_rows_of_zeros_stay_zero() -> None:
    weight, moment = make_case()
    weight[2] = 0.0
    found = quantise_gptq(weight, moment, "int6-row")
    assert not found.symbols[2].any()


def test_wrong_inputs_are_refused() -> None:
    weight, moment = make_case()
    with pytest.raises(RunError, match=r"layer: a moment of shape \(3, 3\)"):
        quantise_gptq(weight, np.eye(3), "int6-row", name="layer")
    with pytest.raises(RunError, match="NaN"):
        quantise_gptq(weight, moment * np.nan, "int6-row")
    with pytest.raises(RunError, match="not positive"):
        quantise_gptq(weight, np.where(np.eye(40) > 0, 1.0, -5.0), "int6-row")
    with pytest.raises(UsageError, match="has no scale"):
        quantise_gptq(weight, moment, "fp16")
