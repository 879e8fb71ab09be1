"""The formulas of the scores, by hand."""

from __future__ import annotations

import math

import pytest

from harness.metrics import bits_per_byte, perplexity


def test_bits_per_byte_by_hand() -> None:
    # three targets of 2 bits each over 4 bytes
    assert bits_per_byte(3 * 2 * math.log(2), 4) == pytest.approx(1.5)


def test_perplexity_of_an_even_choice_and_of_a_hopeless_model() -> None:
    assert perplexity(math.log(4)) == pytest.approx(4)
    assert math.isfinite(perplexity(1e6))
