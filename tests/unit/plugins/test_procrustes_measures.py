"""What the claims are judged by: identities of the measures."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from methods.procrustes.measures import centring_error, projection_gain, rotation_error, stored_share

pytest.importorskip("transformers", reason="needs the extra hf")


def test_rotating_changes_nothing_and_centring_a_llama_model_does() -> None:
    assert rotation_error("llama") < 1e-4 < 1e-2 < centring_error("llama")


def test_low_rank_matrices_gain_nothing_by_a_rotation_and_blocks_of_them_do() -> None:
    assert projection_gain("low_rank") == pytest.approx(1, abs=1e-6)
    assert projection_gain("block_low_rank") < 0.95
    with pytest.raises(UsageError, match="no class 'monarchs'. Did you mean 'monarch'"):
        projection_gain("monarchs")


@pytest.mark.parametrize(("terms", "parts"), [(3, 4), (5, 8), (1, 2)])
def test_what_published_shapes_store_is_counted_by_hand(terms: int, parts: int) -> None:
    # Llama2-7b: tables 2 V d, a block 4 d^2 + 3 d f and two gains, a last gain; `value` stays, each other map has
    # r/k of its numbers and r k of its left factor; the gains are folded away
    width, inner, layers, vocabulary = 4096, 11008, 32, 32000
    maps = layers * (3 * width**2 + 3 * width * inner)
    dense = 2 * vocabulary * width + maps + layers * (width**2 + 2 * width) + width
    assert dense == 6_738_415_616
    stored = 2 * vocabulary * width + layers * (width**2 + 6 * terms * parts) + maps * terms // parts
    for skips, each in (("none", 0), ("dense", width**2), ("cayley", width * (width - 1) // 2 + 2 * width)):
        expected = (stored + 2 * layers * each) / dense
        assert stored_share("llama2-7b", terms, parts, skips) == pytest.approx(expected, rel=1e-12)


def test_a_head_of_its_own_makes_a_small_model_larger() -> None:
    tied, own = (stored_share("opt-125m", 3, 4, "cayley", head) for head in ("as it is", "own"))
    # the table, and the bias that takes the last norm's; without the matrix between the bases of table and head, the
    # gain, the bias, and what keeps the means of the table
    extra = 50272 * 768 + 50272 - 768**2 - 768 - 50272 - 768
    assert own - tied == pytest.approx(extra / 125_239_296, rel=1e-9)
    assert tied < 1 < own
    with pytest.raises(UsageError, match="no 'llama2' here. Did you mean 'llama2-7b'"):
        stored_share("llama2", 3, 4, "cayley")
