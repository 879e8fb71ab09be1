"""Paired comparison over blocks: by hand, and on drawn samples with known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.errors import UsageError
from harness.stats import compare_blocks


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
