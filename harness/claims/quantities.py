"""Numbers that are known within limits, and what can be said of them: yes, no, or not with these limits.

A published "52.8%" is anything that prints so, from 52.75% to 52.85%. A mean of three runs is known within an interval
at some level of confidence. Arithmetic carries the limits along, worst case; a comparison is answered only where every
number within the limits gives the same answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from harness.errors import UsageError

# Yes, no, or not decided by the evidence.
Truth = bool | None

_PREFIXES = {"": 0, "k": 3, "K": 3, "M": 6, "B": 9, "G": 9, "T": 12}
_PRINTED = re.compile(
    r"([-+]?)((?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.(\d+))?)(?:[eE]([-+]?\d+))?\s*([kKMBGT]?)\s*(%|x|B)?", re.ASCII
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """A number between two limits.

    Attributes:
        value: the number as printed or measured, between the limits.
        low: the least that it may be.
        high: the most that it may be.
    """

    value: float
    low: float
    high: float

    @property
    def is_exact(self) -> bool:
        """Whether the limits leave nothing open."""
        return self.low == self.high

    @property
    def shown(self) -> str:
        """The number as a person reads it, with its limits where they are wider than a rounding of the machine."""
        text = _plain(self.value)
        if self.high - self.low <= 1e-9 * max(abs(self.low), abs(self.high)):
            return text
        return f"{text} ({_plain(self.low)} to {_plain(self.high)})"


def exact(value: float) -> Number:
    """Return a number that is known exactly."""
    return Number(value=value, low=value, high=value)


def between(low: float, high: float, value: float | None = None) -> Number:
    """Return a number with limits; `value` is their middle unless given."""
    return Number(value=(low + high) / 2 if value is None else value, low=low, high=high)


def parse_printed(text: str) -> Number:
    """Read a number as it was printed: 1.2054, 52.8%, 13.0x, 17.6B, 1,020,224, 1.65e-3, 15.7 MB.

    The last printed digit is taken to be rounded, half a unit either way; whole numbers without prefix and unit are
    exact, as counts are. `%` divides by 100; prefixes are decimal; `x` for a factor and `B` for bytes are left out.

    Raises:
        UsageError: it is none.
    """
    match = _PRINTED.fullmatch(text.strip())
    if match is None or not match[2]:
        raise UsageError(f"{text!r} is no number as printed, such as 1.2054, 52.8%, 13.0x, 17.6B or 1,020,224")
    sign, digits, decimals, exponent, prefix, unit = match.groups()
    try:
        number = Decimal(digits.replace(",", ""))
    except InvalidOperation:
        raise UsageError(f"{text!r} is no number as printed") from None
    power = int(exponent or 0) + _PREFIXES[prefix] - (2 if unit == "%" else 0)
    if abs(power) > 300:
        raise UsageError(f"{text!r}: the exponent is out of range")
    is_count = not (decimals or exponent or prefix or unit in ("%", "x"))
    half = Decimal(0) if is_count else Decimal(5).scaleb(-len(decimals or "") - 1)
    value, low, high = (
        float((part if sign != "-" else -part).scaleb(power)) for part in (number, number - half, number + half)
    )
    if not math.isfinite(value):
        raise UsageError(f"{text[:40]!r}: the number is out of range")
    return Number(value=value, low=min(low, high), high=max(low, high))


def combine(function: Callable[..., float], *numbers: Number) -> Number:
    """Apply a function that is monotone in each argument within the limits: its extremes lie at the corners.

    Raises:
        UsageError: the result is not finite.
    """
    corners = [[]] if not numbers else _corners(numbers)
    try:
        values = [function(*corner) for corner in corners]
        value = function(*(number.value for number in numbers))
    except (ZeroDivisionError, ValueError, OverflowError) as error:
        raise UsageError(f"not a number: {error}") from error
    if not all(isinstance(each, (int, float)) and math.isfinite(each) for each in (value, *values)):
        raise UsageError("not a finite number")
    return Number(value=value, low=min(values), high=max(values))


def _corners(numbers: Sequence[Number]) -> list[list[float]]:
    corners: list[list[float]] = [[]]
    for number in numbers:
        ends = {number.low, number.high}
        corners = [[*corner, end] for corner in corners for end in sorted(ends)]
    return corners


def divide(first: Number, second: Number) -> Number:
    """Divide, unless the divisor may be zero.

    Raises:
        UsageError: it may.
    """
    if second.low <= 0 <= second.high:
        raise UsageError("division by a number that may be zero")
    return combine(lambda a, b: a / b, first, second)


def power(base: Number, exponent: Number) -> Number:
    """Raise a positive number, or any number to a small whole exponent.

    Raises:
        UsageError: neither, or the exponent is beyond 64.
    """
    if abs(exponent.low) > 64 or abs(exponent.high) > 64:
        raise UsageError("an exponent is beyond 64")
    if base.low > 0:
        return combine(lambda a, b: a**b, base, exponent)
    if not exponent.is_exact or exponent.value != int(exponent.value):
        raise UsageError("a number that may be negative takes a whole exponent only")
    found = combine(lambda a: a ** int(exponent.value), base)
    # an even power is least at zero, which is no corner
    touches_zero = base.low <= 0 <= base.high and exponent.value > 0 and exponent.value % 2 == 0
    return Number(value=found.value, low=min(found.low, 0.0) if touches_zero else found.low, high=found.high)


def is_less(first: Number, second: Number, *, or_equal: bool = False) -> Truth:
    """Whether the first is below the second, for all numbers within the limits."""
    if first.high < second.low or (or_equal and first.high == second.low):
        return True
    if first.low > second.high or (not or_equal and first.low == second.high):
        return False
    return None


def may_be_equal(first: Number, second: Number) -> bool:
    """Whether both can be one number within their limits: what `==` asks of printed numbers."""
    slack = 1e-12 * max(abs(first.value), abs(second.value))
    return first.low <= second.high + slack and second.low <= first.high + slack


def all_of(parts: Sequence[Truth]) -> Truth:
    """And of three values: false if one is, else undecided if one is."""
    return False if False in parts else None if None in parts else True


def any_of(parts: Sequence[Truth]) -> Truth:
    """Or of three values: true if one is, else undecided if one is."""
    return True if True in parts else None if None in parts else False


def _plain(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.6g}"
