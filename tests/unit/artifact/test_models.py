from __future__ import annotations

import math

import numpy as np
import pytest

from harness.artifact.models import (
    FLAT,
    NUM_SHAPES,
    RISES,
    SPIKE_PARTS,
    TRUSTS,
    BlockModel,
    Prior,
    block_lengths,
    exp_minus,
    prior_weights,
    scale_of,
)

PINNED_PRIOR = [65717.0, 864820.0, 4059518.0, 6797107.0, 4059518.0, 864820.0, 65717.0]
PINNED_GAP = [2078380.0, 6306510.0, 3720.0, 16777217.0, 3720.0, 6306510.0, 2078380.0]
PINNED_BLEND = [178114.0, 976695.0, 4072797.0, 6723090.0, 4006581.0, 882936.0, 727028.0]
PRIOR = Prior(low=-7, size=15, centre=0, left=30, right=30, shape=0, trust=4)


def test_blocks_double_up_to_65536() -> None:
    assert list(block_lengths(1000)) == [128, 256, 512, 104]
    lengths = list(block_lengths(500_000))
    assert sum(lengths) == 500_000
    assert lengths[9:12] == [65_536, 65_536, 65_536]
    assert list(block_lengths(0)) == []


def test_exponential_needs_no_library() -> None:
    x = np.linspace(0, 64, 5001)
    np.testing.assert_allclose(exp_minus(x), [math.exp(-v) for v in x], rtol=2e-13)


def test_scales_grow_by_a_tenth_of_an_octave() -> None:
    np.testing.assert_allclose([scale_of(i) for i in range(FLAT)], [0.2 * 2 ** (i / 10) for i in range(FLAT)])


@pytest.mark.parametrize("shape", range(NUM_SHAPES))
def test_prior_is_the_discretised_density(shape: int) -> None:
    prior = PRIOR._replace(low=-60, size=121, left=50, right=50, shape=shape)
    sigma = 0.2 * 2**5
    r = np.abs(np.arange(-60, 61)) / sigma
    expected = {
        0: np.exp(-r * r / 2),
        1: np.exp(-math.sqrt(2) * r),
        2: 1 / np.cosh(math.pi / math.sqrt(12) * r) ** 2,
        **{3 + i: (1 + r * r / 2) ** (-(freedom + 1) / 2) for i, freedom in enumerate((4, 2, 3, 8, 1))},
    }[shape]
    weights = prior_weights(prior, 100)
    np.testing.assert_allclose(weights / weights.sum(), expected / expected.sum(), rtol=1e-4, atol=1.3e-7)


def test_prior_has_no_zero_and_is_whole() -> None:
    weights = prior_weights(PRIOR._replace(low=-4000, size=8001, left=0, right=0), 10)
    assert weights.min() >= 1
    assert np.array_equal(weights, np.rint(weights))


def test_ends_add_one_symbol_a_row() -> None:
    plain, ends = (prior_weights(PRIOR._replace(left=0, right=0, ends=flag), 100) for flag in (False, True))
    share = (ends - plain) / 2**24
    assert share[0] == share[-1] == pytest.approx(0.005, rel=1e-4)
    assert not share[1:-1].any()


def test_spike_adds_its_share_at_the_centre() -> None:
    # 32 of 128: a quarter of all, on top of a density of almost nothing at the centre itself.
    weights = prior_weights(Prior(low=-500, size=1001, centre=0, left=FLAT, right=FLAT, shape=0, trust=0, spike=32), 1)
    assert weights[500] / weights.sum() == pytest.approx(0.25 + 0.75 / 1001, rel=1e-3)


@pytest.mark.parametrize("rise", range(len(RISES)))
def test_gap_leaves_half_the_density_at_its_end(rise: int) -> None:
    flat = Prior(low=-40, size=81, centre=0, left=FLAT, right=FLAT, shape=0, trust=0)
    weights = prior_weights(flat._replace(extended=True, gap=4 * 20, rise=rise), 1)
    assert weights[60] / weights[80] == pytest.approx(0.5, rel=0.01)
    assert weights[41:52].max() / weights[80] < 0.01
    assert (np.diff(weights[40:]) >= 0).all()


@pytest.mark.parametrize("gap", [1, 255])
@pytest.mark.parametrize("rise", range(len(RISES)))
def test_gap_may_leave_nothing(gap: int, rise: int) -> None:
    narrow = Prior(low=0, size=2, centre=0, left=0, right=0, shape=1, trust=0, extended=True, gap=gap, rise=rise)
    weights = prior_weights(narrow, 1)
    assert np.isfinite(weights).all() and weights.min() >= 1


def test_counts_as_expected_keep_an_extended_prior() -> None:
    # Half the symbols on the spike: the counts that the prior expects are no surprise, spike or not.
    flat = Prior(low=-2, size=5, centre=0, left=FLAT, right=FLAT, shape=0, trust=4)
    prior = flat._replace(spike=SPIKE_PARTS // 2, extended=True)
    model = BlockModel(prior, 1)
    before = model.weights()
    model.update(np.repeat(np.arange(5, dtype=np.int32), [100, 100, 600, 100, 100]))
    np.testing.assert_allclose(model.weights() / model.weights().sum(), before / before.sum(), rtol=1e-3)


def test_two_sides_have_two_scales() -> None:
    weights = prior_weights(Prior(low=-9, size=19, centre=2, left=40, right=FLAT, shape=1, trust=0), 1)
    assert len(set(weights[11:].tolist())) == 1
    assert (np.diff(weights[:12]) > 0).all()


@pytest.mark.parametrize("trust", range(len(TRUSTS)))
def test_counts_win_in_the_long_run(trust: int) -> None:
    model = BlockModel(PRIOR._replace(trust=trust), 10)
    before = model.weights()
    symbols = np.random.default_rng(0).integers(0, 3, 60_000).astype(np.int32)
    model.update(symbols)
    after = model.weights()
    assert np.array_equal(after, np.rint(after)) and after.min() >= 1
    if TRUSTS[trust] == (0.0, math.inf):
        assert np.array_equal(after, before)
    else:
        assert after[:3].sum() / after.sum() > 0.97


def test_a_deviation_within_noise_keeps_the_prior() -> None:
    # 100 expected, 104 seen: surprise 16 / 100.5 = .16 beside a stiffness of 32, so half a percent of the way.
    prior = Prior(low=0, size=10, centre=0, left=FLAT, right=FLAT, shape=0, trust=5)
    model = BlockModel(prior, 1)
    model.update(np.repeat(np.arange(10, dtype=np.int32), [104, 96, *[100] * 8]))
    weights = model.weights()
    assert weights[0] / weights[2] == pytest.approx(1 + 0.04 * 0.16 / 32.16, abs=1e-3)


def test_model_is_pinned() -> None:
    """These exact numbers are part of the file format: another machine or library must make the same ones."""
    weights = prior_weights(PRIOR._replace(low=-3, size=7, left=23, right=23), 8)
    assert weights.tolist() == PINNED_PRIOR
    model = BlockModel(PRIOR._replace(low=-3, size=7, left=23, right=23), 8)
    model.update(np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 6, 6], np.int32))
    assert model.weights().tolist() == PINNED_BLEND
    gapped = PRIOR._replace(low=-3, size=7, left=23, right=23, shape=5, spike=64, extended=True, gap=7, rise=1)
    assert prior_weights(gapped, 8).tolist() == PINNED_GAP
