"""Numbers as people print them: "15,154,098", "15.15 MB", "~1.2", "<0.001", "**1.0894**", "525.7s"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Prefix = Literal["", "~", "<", ">"]

MAX_NUMBER_CHARACTERS = 64
# Nothing that a record states is larger; beyond it sums overflow and whole numbers lose their digits.
MAX_VALUE = 1e18
_MARKS = str.maketrans(
    {"−": "-", "–": "-", "\N{NON-BREAKING HYPHEN}": "-", "×": "x", "≈": "~", "≤": "<", "≥": ">"}
    | dict.fromkeys("\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}", " ")
)
_NUMBER = r"(?:\d{1,3}(?:[,_ ]\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?"
_UNIT = (
    r"(?:(?:[Bb]ytes?|[KMG]i?B|[kmg]i?b|[kKM]B?|B|ms|milliseconds|seconds|secs|sec|s|minutes|mins|min|m|hours|hrs|h"
    r"|nats|bpb|bpp|BPB|BPP|params|parameters|steps)(?![A-Za-z])|%)"
)
_FORM = re.compile(
    rf"(?P<prefix>~|<+|>+|±|\+/-)?\s*(?:(?P<sign>[-+])\s*)?(?P<number>{_NUMBER})(?![\d.]|,\d)\s*(?P<unit>{_UNIT})?"
    r"(?P<rest>.*)"
)
_PREFIXES: dict[str, Prefix] = {"~": "~", "<": "<", ">": ">"}
_DECORATION = re.compile(r"\*\*|__|[*`~]{2}|[`*]|</?[a-zA-Z]{1,6}>|\\")

# Factors on the basic unit: bytes, seconds, or one.
UNIT_FACTORS = {
    "": 1.0, "b": 1.0, "byte": 1.0, "bytes": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9,
    "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30, "k": 1e3, "ms": 1e-3, "milliseconds": 1e-3,
    "s": 1.0, "sec": 1.0, "secs": 1.0, "seconds": 1.0, "m": 60.0, "min": 60.0, "mins": 60.0, "minutes": 60.0,
    "h": 3600.0, "hrs": 3600.0, "hours": 3600.0, "%": 0.01,
    "nats": 1.0, "bpb": 1.0, "bpp": 1.0, "params": 1.0, "parameters": 1.0, "steps": 1.0,
}  # fmt: skip
BINARY_FACTORS = {"kb": 2.0**10, "mb": 2.0**20, "gb": 2.0**30}


@dataclass(frozen=True, kw_only=True, slots=True)
class Printed:
    """A number with what its print says of its precision.

    Attributes:
        text: as printed, without decoration.
        value: in the unit that is printed.
        unit: as printed; empty where none is.
        last_place: one unit of the last printed digit, in the printed unit.
        prefix: "~" about, "<" or ">" a bound.
        rest: what stands behind the number.
    """

    text: str
    value: float
    unit: str = ""
    last_place: float
    prefix: Prefix = ""
    rest: str = ""

    @property
    def factor(self) -> float:
        """Factor from the printed unit to bytes, seconds or one; a capital M means million."""
        return 1e6 if self.unit == "M" else UNIT_FACTORS[self.unit.lower()]

    @property
    def binary_factor(self) -> float | None:
        """The other factor that a decimal byte unit is often used for; None where there is none."""
        return BINARY_FACTORS.get(self.unit.lower())


def parse_number(text: str, *, whole: bool = True) -> Printed | None:
    """Read the number at the start of a text.

    Args:
        text: a cell, a JSON string or the text behind a label; Markdown decoration is ignored.
        whole: whether nothing but a remark in brackets may follow the number and its unit.

    Returns:
        The number, or None where the text does not start with one, or with one beyond `MAX_VALUE`.
    """
    plain = _DECORATION.sub("", text[: 4 * MAX_NUMBER_CHARACTERS]).translate(_MARKS).strip()
    match = _FORM.match(plain)
    if match is None or len(match["number"]) > MAX_NUMBER_CHARACTERS:
        return None
    rest = match["rest"].strip()
    if whole and rest and not rest.startswith(("(", "[", "|", "±", ",", "✓", "✅")):
        return None
    digits = match["number"].replace(",", "").replace("_", "").replace(" ", "")
    prefix = _PREFIXES.get((match["prefix"] or "")[:1], "")
    value = float(digits) * (-1 if match["sign"] == "-" else 1)
    if not is_sane(value):
        return None
    return Printed(
        text=plain[: match.end("unit") if match["unit"] else match.end("number")],
        value=value,
        unit=match["unit"] or "",
        last_place=last_place(digits),
        prefix=prefix,
        rest=rest,
    )


def last_place(digits: str) -> float:
    """Return one unit of the last printed digit: "1.0894" gives 0.0001, "5180" gives 1, "1e-3" gives 0.001."""
    mantissa, _, exponent = digits.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    # by way of text: a power overflows with an error
    return min(MAX_VALUE, float(f"1e{int(exponent or 0) - decimals}"))


def is_sane(value: float) -> bool:
    """Whether a value is a number that can be reckoned with: finite, and not beyond what any record states."""
    return abs(value) <= MAX_VALUE
