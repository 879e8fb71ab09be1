from __future__ import annotations

from itertools import product

import pytest

from harness.artifact.models import FLAT, NUM_SHAPES, PLAIN_SHAPES, RISES, TRUSTS, Prior
from harness.artifact.payload_head import ALPHABETS, EXPLICIT, Cursor, find_alphabets, get_prior, put_prior
from harness.errors import ArtifactError


def round_trip(prior: Prior) -> int:
    head = put_prior(prior)
    cursor = Cursor(head)
    assert get_prior(cursor) == prior
    assert cursor.at == len(head)
    return len(head)


BOUNDS = [*ALPHABETS.values(), (0, 2), (0, 256), (-3, 11), (900, 7)]


@pytest.mark.parametrize(("low", "size"), BOUNDS)
def test_any_prior_comes_back(low: int, size: int) -> None:
    for shape, trust, ends, spike in product(range(NUM_SHAPES), range(len(TRUSTS)), (False, True), (0, 1, 127)):
        plain = Prior(low=low, size=size, centre=max(low, 0), left=9, right=9, shape=shape, trust=trust, ends=ends)
        extended = plain._replace(extended=True, spike=spike)
        for rise in range(len(RISES)):
            round_trip(extended._replace(gap=255, rise=rise))
        round_trip(extended)
        if shape < PLAIN_SHAPES:
            round_trip(plain._replace(spike=spike, left=FLAT, right=3 if low < 0 else FLAT))


def test_lengths() -> None:
    prior = Prior(low=-127, size=255, centre=0, left=70, right=70, shape=0, trust=7)
    assert round_trip(prior) == 2
    assert round_trip(prior._replace(low=-128, size=256)) == 4
    assert round_trip(prior._replace(spike=64, extended=True)) == 4
    assert round_trip(prior._replace(spike=64, extended=True, gap=9)) == 5


def test_alphabets_to_try() -> None:
    assert find_alphabets(-7, 7) == [(-7, 15)]
    assert find_alphabets(-8, 7) == [(-15, 31), (-8, 16)]
    assert find_alphabets(-128, 3) == [(-128, 256)]
    assert find_alphabets(-129, 3) == []


@pytest.mark.parametrize("last", [6, 14, 15, *range(9 << 4, 256, 16)])
def test_impossible_long_heads_are_refused(last: int) -> None:
    with pytest.raises(ArtifactError, match="impossible head"):
        get_prior(Cursor(bytes([6 << 5, 20, 0, last, 1])))


def test_a_gap_of_nothing_is_refused() -> None:
    with pytest.raises(ArtifactError, match="impossible gap"):
        get_prior(Cursor(bytes([6 << 5, 20, 0, 3 << 4, 0])))


def test_explicit_is_no_alphabet() -> None:
    assert EXPLICIT not in ALPHABETS
