"""Printed numbers: value, unit, last digit, bound; every print reads back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.records.numbers import MAX_VALUE, Printed, last_place, parse_number

# print: (value in the printed unit, unit, one unit of the last digit, prefix)
PRINTS = {
    "1.0894": (1.0894, "", 1e-4, ""),
    "1.08940000": (1.0894, "", 1e-8, ""),
    "5180": (5180, "", 1, ""),
    "15,154,098": (15154098, "", 1, ""),
    "15 154 098": (15154098, "", 1, ""),
    "16_000_000": (16000000, "", 1, ""),
    "1,234.5": (1234.5, "", 0.1, ""),
    ".5": (0.5, "", 0.1, ""),
    "5.": (5, "", 1, ""),
    "1e-5": (1e-5, "", 1e-5, ""),
    "1.5e+3 nats": (1500, "nats", 100, ""),
    "15.15 MB": (15.15, "MB", 0.01, ""),
    "15.15MiB": (15.15, "MiB", 0.01, ""),
    "15.9 mb": (15.9, "mb", 0.1, ""),
    "512 bytes": (512, "bytes", 1, ""),
    "512 Bytes": (512, "Bytes", 1, ""),
    "15.8M": (15.8, "M", 0.1, ""),
    "100k": (100, "k", 1, ""),
    "525.7s": (525.7, "s", 0.1, ""),
    "12ms": (12, "ms", 1, ""),
    "0.8m": (0.8, "m", 0.1, ""),
    "10 minutes": (10, "minutes", 1, ""),
    "1h": (1, "h", 1, ""),
    "12.5%": (12.5, "%", 0.1, ""),
    "1.0894 BPB": (1.0894, "BPB", 1e-4, ""),
    "1.0894 bpb": (1.0894, "bpb", 1e-4, ""),
    "~1.2": (1.2, "", 0.1, "~"),
    "≈ 15.8M": (15.8, "M", 0.1, "~"),
    "<0.001": (0.001, "", 1e-3, "<"),
    "<<0.01": (0.01, "", 0.01, "<"),
    "≤ .05": (0.05, "", 0.01, "<"),
    "> 3": (3, "", 1, ">"),
    "±0.0003": (0.0003, "", 1e-4, ""),
    "+0.5": (0.5, "", 0.1, ""),
    "-0.0021": (-0.0021, "", 1e-4, ""),
    "−0.00214": (-0.00214, "", 1e-5, ""),
    "–1": (-1, "", 1, ""),
    "**1.0894**": (1.0894, "", 1e-4, ""),
    "`0.00016`": (0.00016, "", 1e-5, ""),
    "~~1.1~~": (1.1, "", 0.1, ""),
    "\\~15.9 MB": (15.9, "MB", 0.1, "~"),
    "1.1<br>": (1.1, "", 0.1, ""),
    "1.08 ± 0.01": (1.08, "", 0.01, ""),
    "15.9 MB (max)": (15.9, "MB", 0.1, ""),
    "1.0894 BPB ✓": (1.0894, "BPB", 1e-4, ""),
}
NO_NUMBERS = [
    "", "-", "N/A", "abc", "$5", "inf", "nan", "NaN", "1.2.3", "2026-04-01", "8xH100", "0x10", "5180/20000", "1:30",
    "1.0894 vs 1.09", "1.0894 / 2", "2 x", "1,2", "1,0894", "1,2345", "1,23,456", "1e400", "-1e999", "p < 0.01", "1" * 70,
]  # fmt: skip


@pytest.mark.parametrize("text", PRINTS)
def test_a_print_is_read(text: str) -> None:
    printed = read(text)
    value, unit, place, prefix = PRINTS[text]
    assert (printed.value, printed.unit, printed.prefix) == (pytest.approx(value), unit, prefix)
    assert printed.last_place == pytest.approx(place)


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_single_number_is_not_read(text: str) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("text", "factor", "other"),
    [
        ("1 MB", 1e6, 2**20), ("1 MiB", 2**20, None), ("1 KB", 1e3, 2**10), ("1 kB", 1e3, 2**10), ("1 GB", 1e9, 2**30),
        ("1 M", 1e6, None), ("1 m", 60, None), ("1 ms", 1e-3, None), ("1 h", 3600, None), ("1 bytes", 1, None),
        ("1 Bytes", 1, None), ("1 %", 0.01, None), ("1 nats", 1, None), ("1", 1, None),
    ],
)  # fmt: skip
def test_a_unit_has_a_factor_and_a_decimal_one_perhaps_another(text: str, factor: float, other: float | None) -> None:
    printed = read(text)
    assert (printed.factor, printed.binary_factor) == (factor, other)


def test_what_follows_is_kept_where_it_is_asked_for() -> None:
    printed = parse_number("5180 steps of 20000", whole=False)
    assert printed is not None
    assert (printed.value, printed.unit, printed.rest, printed.text) == (5180, "steps", "of 20000", "5180 steps")


@given(st.integers(-(10**15), 10**15), st.sampled_from([",", "_", " ", "\N{NO-BREAK SPACE}", "\N{THIN SPACE}", ""]))
def test_a_whole_number_reads_back_with_any_separator(value: int, mark: str) -> None:
    printed = read(f"{value:,}".replace(",", mark))
    assert (printed.value, printed.last_place) == (value, 1)


@given(
    st.floats(0, 1e9), st.integers(0, 10), st.sampled_from(["", "**{}**", "`{}`", " {} ", "~{}", "{} MB", "{}s (mean)"])
)
def test_a_fraction_reads_back_to_its_last_digit(value: float, digits: int, form: str) -> None:
    text = f"{value:,.{digits}f}"
    printed = read((form or "{}").format(text))
    assert printed.value == float(text.replace(",", ""))
    assert printed.last_place == pytest.approx(10.0**-digits)
    assert abs(printed.value - value) <= printed.last_place


@given(st.floats(1e-300, 1e17), st.integers(0, 12))
def test_a_power_of_ten_reads_back(value: float, digits: int) -> None:
    text = f"{value:.{digits}e}"
    printed = read(text)
    assert printed.value == float(text)
    assert abs(printed.value - value) <= printed.last_place


@given(st.text(max_size=400), st.booleans())
def test_any_text_is_read_or_not_without_an_error(text: str, whole: bool) -> None:
    printed = parse_number(text, whole=whole)
    assert printed is None or printed.factor > 0


def test_an_exponent_beyond_floats_has_a_finite_last_place() -> None:
    assert last_place("1e9999") == MAX_VALUE
    assert last_place("1.25e-3") == pytest.approx(1e-5)


def read(text: str) -> Printed:
    printed = parse_number(text)
    assert printed is not None
    return printed
