"""Paired comparison over blocks: by hand, and on drawn samples with known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.errors import UsageError
from harness.stats import (
    Interval,
    bootstrap_difference,
    combined_error,
    compare_blocks,
    half_width,
    holm,
    paired_interval,
    two_sided,
)


def test_by_hand() -> None:
    # two blocks of 100 bytes; A: 100, 100 bits; B: 110, 130 bits
    bytes_ = np.array([100, 100])
    nats_a, nats_b = np.array([100.0, 100.0]) * math.log(2), np.array([110.0, 130.0]) * math.log(2)
    result = compare_blocks(nats_a, bytes_, nats_b, bytes_)
    assert result.difference == pytest.approx(0.2)
    # residuals B: 110 - 1.2 * 100 = -10 and +10; A: 0; sqrt(2/1 * 200) / 200 = 0.1
    assert result.standard_error == pytest.approx(0.1)
    # t(0.975, 1) = 12.7062
    assert result.low == pytest.approx(0.2 - 12.7062 * 0.1, abs=1e-4)


def test_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        bytes_ = rng.integers(4000, 4200, 60)
        shared = rng.normal(2.0, 0.3, 60)
        nats_a = shared * bytes_ * math.log(2)
        nats_b = (shared + rng.normal(0.01, 0.02, 60)) * bytes_ * math.log(2)
        result = compare_blocks(nats_a, bytes_, nats_b, bytes_)
        covered += result.low <= 0.01 <= result.high
    assert 270 <= covered <= 297


def test_same_scores_differ_by_nothing() -> None:
    nats, bytes_ = np.array([1.0, 2.0]), np.array([3, 4])
    assert compare_blocks(nats, bytes_, nats, bytes_).p_value == 1.0


def test_other_text_is_refused() -> None:
    nats = np.array([1.0, 2.0])
    with pytest.raises(UsageError, match="same text"):
        compare_blocks(nats, np.array([3, 4]), nats, np.array([3, 5]))


def test_paired_interval_by_hand() -> None:
    # mean 2, sd 1, n 3; t(0.975, 2) = 4.3027
    found = paired_interval([1.0, 2.0, 3.0])
    assert (found.low, found.high) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4)
    assert (found.standard_error, found.degrees) == (pytest.approx(1 / math.sqrt(3)), 2)
    # t = 2 sqrt(3) = 3.4641
    assert two_sided(2.0, found.standard_error, 2) == pytest.approx(0.0742, abs=1e-4)
    assert paired_interval([0.5, 0.5]).standard_error == 0
    assert (two_sided(0.5, 0.0, 1), two_sided(0.0, 0.0, 1)) == (0.0, 1.0)
    with pytest.raises(UsageError, match="run more seeds"):
        paired_interval([1.0])


def test_bootstrap_agrees_with_the_formula_for_many_blocks() -> None:
    rng = np.random.default_rng(1)
    bytes_a = rng.integers(90, 110, 400)
    bytes_b = np.roll(bytes_a, 1)  # another tokenizer: a block's tokens begin a few bytes apart
    a, b = (rng.uniform(0.8, 1.2, 400) * sizes * math.log(2) for sizes in (bytes_a, bytes_b))
    formula = compare_blocks(b, bytes_b, a, bytes_a)
    found = bootstrap_difference(a, bytes_a, b, bytes_b)
    assert found.standard_error == pytest.approx(formula.standard_error, rel=0.05)
    assert (found.low, found.high) == pytest.approx((formula.low, formula.high), abs=0.1 * (formula.high - formula.low))
    assert bootstrap_difference(a, bytes_a, b, bytes_b) == found


def test_bootstrap_refuses_other_text() -> None:
    nats, sizes = np.ones(3), np.ones(3, np.int64)
    with pytest.raises(UsageError, match="not scored on the same text"):
        bootstrap_difference(nats, sizes, np.ones(4), np.ones(4, np.int64))
    for wrong in (np.ones(1, np.int64), np.array([2, 1, 0])):
        with pytest.raises(UsageError, match="two blocks of text or more, none of them empty"):
            bootstrap_difference(nats[: wrong.size], wrong, nats[: wrong.size], wrong)


def test_errors_add_up_in_squares() -> None:
    three, four = (Interval(low=0, high=0, standard_error=error, degrees=n) for error, n in ((3.0, 2), (4.0, 50)))
    error, degrees = combined_error((three, four))
    assert error == 5
    assert degrees == pytest.approx(25**2 / (9**2 / 2 + 16**2 / 50))
    # t(1 - 0.025 / 5, 10) = 3.1693
    assert half_width(2.0, 10, num_tests=5) == pytest.approx(6.3386, abs=1e-3)


def test_a_true_null_is_seldom_rejected() -> None:
    # seeds and text err alike; neither alone may decide
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        text = rng.normal(0, 1)
        seeds = text + rng.normal(0, math.sqrt(5), 5)
        over_text = Interval(low=0, high=0, standard_error=1.0, degrees=200)
        wrong += two_sided(float(seeds.mean()), *combined_error((paired_interval(list(seeds)), over_text))) < 0.05
    assert wrong <= 32  # 20 expected; 32 or more has a chance of half a per cent


def test_holm_by_hand() -> None:
    # sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2 = 0.06, 0.5 x 1
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
