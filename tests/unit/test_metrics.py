"""The formulas of the scores, by hand."""

from __future__ import annotations

import math

import pytest

from harness.metrics import bits_per_byte, leaked_bits, perplexity


def test_bits_per_byte_by_hand() -> None:
    # three targets of 2 bits each over 4 bytes
    assert bits_per_byte(3 * 2 * math.log(2), 4) == pytest.approx(1.5)


def test_perplexity_of_an_even_choice_and_of_a_hopeless_model() -> None:
    assert perplexity(math.log(4)) == pytest.approx(4)
    assert math.isfinite(perplexity(1e6))


def test_leak_is_counted_in_bits() -> None:
    assert leaked_bits(model_nats=100.0, source_nats=100.0 + 21 * math.log(2)) == pytest.approx(21)
    assert leaked_bits(model_nats=100.0 + math.log(2), source_nats=100.0) == pytest.approx(-1)
