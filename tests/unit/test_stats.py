"""Paired comparison over blocks: by hand, and on drawn samples with known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.errors import UsageError
from harness.stats import bootstrap_difference, compare_blocks, holm, paired_interval


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
    # mean 2, sd 1, n 3: t = 2 / (1 / sqrt(3)) = 3.4641; t(0.975, 2) = 4.3027
    found = paired_interval([1.0, 2.0, 3.0], level=0.95)
    assert (found.low, found.high) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4)
    assert found.p_value == pytest.approx(0.0742, abs=1e-4)
    assert paired_interval([0.5, 0.5], level=0.95).p_value == 0.0
    assert paired_interval([0.0, 0.0], level=0.95).p_value == 1.0
    with pytest.raises(UsageError, match="run more seeds"):
        paired_interval([1.0], level=0.95)


def test_bootstrap_agrees_with_the_formula_for_many_blocks() -> None:
    rng = np.random.default_rng(1)
    block_bytes = rng.integers(90, 110, 400)
    a, b = (rng.uniform(0.8, 1.2, 400) * block_bytes * math.log(2) for _ in "ab")
    formula = compare_blocks(b, block_bytes, a, block_bytes)
    found = bootstrap_difference([(a, b)], block_bytes, level=0.95)
    assert (found.low, found.high) == pytest.approx((formula.low, formula.high), abs=0.1 * (formula.high - formula.low))
    assert bootstrap_difference([(a, b)], block_bytes, level=0.95) == found
    twice = bootstrap_difference([(a, b), (a, b)], block_bytes, level=0.95)
    assert (twice.low, twice.high) == pytest.approx((found.low, found.high))  # seeds are paired, not more text


def test_bootstrap_refuses_other_text() -> None:
    nats = np.ones(3)
    with pytest.raises(UsageError, match="not scored on the same text"):
        bootstrap_difference([(nats, np.ones(4))], np.ones(3, np.int64), level=0.95)
    with pytest.raises(UsageError, match="one block"):
        bootstrap_difference([(np.ones(1), np.ones(1))], np.ones(1, np.int64), level=0.95)


def test_holm_by_hand() -> None:
    # sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2 = 0.06, 0.5 x 1
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
