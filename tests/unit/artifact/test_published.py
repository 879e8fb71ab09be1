"""The published quantisers, against values made by the published code.

The `randn` numbers were made by that code (fixtures/bpb_and_basis_facts.json of the reference data, `quant_*`) from
`torch.manual_seed(0)`-like draws that are not repeated here; the matrix of `quant.npz` is compared symbol for symbol.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.artifact.quantize import dequantise, quantise, squared_error


@pytest.fixture(scope="module")
def published(shared_dir: Path) -> dict[str, np.ndarray]:
    with np.load(shared_dir / "fixtures" / "quant.npz") as archive:
        return {name: archive[name] for name in archive.files}


@pytest.mark.parametrize(
    ("scheme", "key"),
    [("challenge-int8", "8"), ("legendre-int8", "8"), ("legendre-int7", "7"), ("frugendorff-int6", "6")],
)
def test_symbols_and_scales_equal_the_published(scheme: str, key: str, published: dict[str, np.ndarray]) -> None:
    q = quantise(published["W"], scheme)
    assert q.scale is not None and q.scale.dtype == np.float16
    assert np.array_equal(q.symbols, published[f"q{key}"])
    assert np.array_equal(q.scale, published[f"s{key}"])


def test_floor_makes_small_rows_coarse() -> None:
    # |w| < 1 in every row, so the scale is 1/63 and the largest symbol round(63 * .22) = 14, of 63.
    weight = np.full((2, 5), 0.22, np.float32)
    q = quantise(weight, "legendre-int7")
    assert q.symbols.tolist() == [[14] * 5] * 2
    assert q.scale is not None and q.scale.tolist() == [np.float16(1 / 63)] * 2
    free = quantise(weight, "legendre-int7-nofloor")
    assert free.symbols.tolist() == [[63] * 5] * 2


@pytest.mark.parametrize(("scheme", "top"), [("challenge-int8", 127), ("legendre-int7", 63), ("frugendorff-int6", 31)])
def test_scale_of_randn_is_the_floor(scheme: str, top: int) -> None:
    # quant_int8/int7/int6_frug_randn0.05: scale_min = scale_max = .00787353515625, .015869140625, .032257080078125.
    weight = np.random.default_rng(0).normal(scale=0.05, size=(512, 512)).astype(np.float32)
    q = quantise(weight, scheme)
    assert q.scale is not None
    expected = {127: 0.00787353515625, 63: 0.015869140625, 31: 0.032257080078125}[top]
    assert set(q.scale.tolist()) == {expected}
    # rel_rmse of the same entries, from other draws of the same distribution: .04529, .09153, .18588.
    rel_rmse = np.sqrt(squared_error(weight, q) / (weight.astype(np.float64) ** 2).sum())
    assert rel_rmse == pytest.approx({127: 0.04529, 63: 0.09153, 31: 0.18588}[top], rel=0.01)


def test_clip_quantile_by_hand() -> None:
    # 11 numbers: rank .9999984 * 10 = 9.999984, between 1.9 and 2.0; clip 1.9999984, a scale of that / 127.
    weight = np.array([*np.linspace(1.0, 1.9, 10), 2.0], np.float32).reshape(1, -1)
    q = quantise(weight, "challenge-int8")
    assert q.scale is not None
    assert q.scale[0] == np.float16(1.9999984 / 127)
    assert q.symbols[0, -1] == 127


def test_frugendorff_picks_the_clip_of_least_error() -> None:
    rng = np.random.default_rng(4)
    weight = rng.normal(scale=2, size=(30, 1000)).astype(np.float32)
    weight[:, 0] *= 12
    q = quantise(weight, "frugendorff-int6-nofloor")
    errors = []
    for quantile in (0.999, 0.9995, 0.9999, 0.99999, 1.0):
        scale = (np.quantile(np.abs(weight), quantile, axis=1) / 31).astype(np.float16).astype(np.float64)[:, None]
        errors.append(((weight - np.clip(np.rint(weight / scale), -31, 31) * scale) ** 2).sum())
    assert squared_error(weight, q) == pytest.approx(min(errors), rel=1e-3)
    assert min(errors) < 0.9 * max(errors)


def test_vectors_are_one_row() -> None:
    vector = np.linspace(-3, 3, 50).astype(np.float32)
    q = quantise(vector, "challenge-int8")
    assert q.scale is not None and q.scale.shape == (1,)
    np.testing.assert_allclose(dequantise(q), vector, atol=3 / 127)
