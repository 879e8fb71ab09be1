from __future__ import annotations

import hashlib
import math
from collections import Counter

import numpy as np
import pytest

from harness.data.synthetic import ALPHABET, MarkovSource


def test_no_text_costs_nothing() -> None:
    source = MarkovSource()
    assert source.generate(0, "train") == b""
    assert source.total_nats(b"") == 0


def test_text_is_the_same_everywhere() -> None:
    # Pinned: the raw output of PCG64 is stable, so another hash means another corpus under the same name.
    text = MarkovSource().generate(10_000, "test")
    assert hashlib.sha256(text).hexdigest() == "f7b5e9df9f01bcfce1cc31ff889d1770f965894ba506726502fb01a1727ffbab"
    assert set(text) <= set(ALPHABET)


def test_parts_and_seeds_are_independent_draws() -> None:
    texts = {MarkovSource(seed).generate(100, part) for seed in (0, 1) for part in ("train", "test")}
    assert len(texts) == 4


def test_code_length_by_the_laws_counted_from_another_sample() -> None:
    """The law estimated by counting a long text must give nearly the length the source states, never less."""
    source = MarkovSource()
    seen = source.generate(400_000, "train")
    pairs = Counter(zip(seen, seen[1:], strict=False))
    triples = Counter(zip(seen, seen[1:], seen[2:], strict=False))
    text = source.generate(20_000, "test")
    counted = sum(
        -math.log((triples[context] + 1) / (pairs[context[:2]] + len(ALPHABET)))
        for context in zip(text, text[1:], text[2:], strict=False)
    )
    stated = source.nats_per_byte(text)[2:].sum()
    assert 0 < (counted - stated) / stated < 0.02


def test_probabilities_of_every_state_add_up_to_one() -> None:
    source = MarkovSource(7)
    for pair in (b"\n\n", b"a ", b"yx"):
        lengths = [source.nats_per_byte(pair + bytes([byte]))[-1] for byte in ALPHABET]
        assert np.exp(-np.array(lengths)).sum() == pytest.approx(1, abs=1e-12)
        assert np.isfinite(lengths).all(), "every symbol can follow every pair"


def test_first_byte_follows_two_newlines() -> None:
    source = MarkovSource()
    assert source.nats_per_byte(b"abc")[0] == source.nats_per_byte(b"\n\nabc")[2]


def test_foreign_byte_has_no_code() -> None:
    assert source_is_infinite(b"aZ")


def source_is_infinite(text: bytes) -> bool:
    return math.isinf(MarkovSource().total_nats(text))
