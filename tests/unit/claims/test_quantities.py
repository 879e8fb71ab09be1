"""Printed numbers and their limits, and arithmetic that carries them along."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.claims.quantities import (
    Number,
    all_of,
    any_of,
    between,
    combine,
    divide,
    exact,
    is_less,
    may_be_equal,
    parse_printed,
    power,
)
from harness.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value", "low", "high"),
    [
        ("1.2054", 1.2054, 1.20535, 1.20545),
        ("52.8%", 0.528, 0.5275, 0.5285),
        ("51%", 0.51, 0.505, 0.515),
        ("13.0x", 13.0, 12.95, 13.05),
        ("42x", 42, 41.5, 42.5),
        ("17.6B", 17.6e9, 17.55e9, 17.65e9),
        ("417M", 417e6, 416.5e6, 417.5e6),
        ("1,020,224", 1020224, 1020224, 1020224),
        ("1.65e-3", 1.65e-3, 1.645e-3, 1.655e-3),
        ("15.7 MB", 15.7e6, 15.65e6, 15.75e6),
        ("-0.5", -0.5, -0.55, -0.45),
        (".5", 0.5, 0.45, 0.55),
    ],
)
def test_a_print_has_limits(text: str, value: float, low: float, high: float) -> None:
    found = parse_printed(text)
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high))


@pytest.mark.parametrize(
    "text", ["", "x", "1.2.3", "1,02", "nan", "inf", "1e999", "9" * 400, "0x10", "--1", "1 2", "5%%", "٣"]
)
def test_what_is_no_print_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_printed(text)


# 17.6B / 417M is 42.2, from 42.04 to 42.38.
def test_the_limits_of_a_ratio_by_hand() -> None:
    found = divide(parse_printed("17.6B"), parse_printed("417M"))
    assert (found.low, found.high) == pytest.approx((17.55e9 / 417.5e6, 17.65e9 / 416.5e6))


NUMBERS = st.floats(-1e6, 1e6)


@st.composite
def numbers(draw: st.DrawFn) -> Number:
    ends = sorted((draw(NUMBERS), draw(NUMBERS)))
    return between(*ends)


@given(numbers(), numbers(), st.floats(0, 1), st.floats(0, 1))
def test_no_number_within_the_limits_leaves_those_of_the_result(a: Number, b: Number, s: float, t: float) -> None:
    x, y = a.low + s * (a.high - a.low), b.low + t * (b.high - b.low)
    slack = 1e-6 * (1 + abs(x) * abs(y) + abs(x) + abs(y))
    for function in (lambda p, q: p + q, lambda p, q: p - q, lambda p, q: p * q, min, max):
        found = combine(function, a, b)
        assert found.low - slack <= function(x, y) <= found.high + slack
    squared = power(a, exact(2))
    assert squared.low - slack - 1 <= x * x <= squared.high + slack + abs(x * x) * 1e-9


@given(numbers(), numbers())
def test_less_is_said_only_where_all_numbers_say_so(a: Number, b: Number) -> None:
    found = is_less(a, b)
    assert (found is True) == (a.high < b.low)
    assert found is not False or a.low >= b.high
    assert may_be_equal(a, b) == may_be_equal(b, a)


def test_limits_that_touch() -> None:
    assert is_less(exact(1), exact(1)) is False
    assert is_less(exact(1), exact(1), or_equal=True) is True
    assert is_less(between(0, 1), between(1, 2)) is None
    assert is_less(between(0, 1), between(1, 2), or_equal=True) is True
    assert may_be_equal(parse_printed("1.25"), exact(1.255)) is True
    assert may_be_equal(parse_printed("1.25"), exact(1.26)) is False


def test_three_values() -> None:
    assert all_of([True, None]) is None
    assert all_of([None, False]) is False
    assert all_of([True, True]) is True
    assert any_of([False, None]) is None
    assert any_of([None, True]) is True
    assert any_of([False]) is False


@pytest.mark.parametrize(
    "make",
    [
        lambda: divide(exact(1), between(-1, 1)),
        lambda: power(exact(-2), exact(0.5)),
        lambda: power(exact(2), exact(1000)),
        lambda: combine(math.log, exact(0)),
        lambda: combine(lambda a, b: a * b, exact(1e200), exact(1e200)),
    ],
)
def test_what_is_no_finite_number_is_refused(make) -> None:
    with pytest.raises(UsageError):
        make()
