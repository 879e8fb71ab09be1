"""Curves over the steps of a run: learning-rate factors, momenta.

A curve is a list of points, joined by straight lines, constant before the first and after the last:

    lr_curve = [["0", 0.0], ["100", 1.0], ["-600", 1.0], ["-0", 0.0]]

A position is "500" (steps from the start), "80%" (share of the run) or "-60" (steps before the end; "-0" is
the end). In a short run the points of a curve can come out of order. Then steps before the end win over steps
from the start, and those win over shares: a point out of order with one that won is left out. So a warm-up
yields to a warm-down, and a cool-down "from step 10000 to 100%" does not begin in a run of 300 steps.
"""

from __future__ import annotations

import math
import re
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, ConfigDict, RootModel, model_validator

Anchor = Literal["start", "share", "end"]

_FORM = re.compile(r"(?P<minus>-?)(?P<number>[0-9]+(?:\.[0-9]+(?=%))?)(?P<percent>%?)")
_LONG_RUN = 1e12  # steps; in a run this long no points cross that are in order
_RANK: dict[Anchor, int] = {"share": 0, "start": 1, "end": 2}


class Position(NamedTuple):
    """A place in a run, known in steps once the number of steps is known.

    Attributes:
        anchor: what `amount` counts from.
        amount: steps from the start, a share in [0, 1], or steps before the end.
    """

    anchor: Anchor
    amount: float

    def resolve(self, total_steps: float) -> float:
        """Return the place in steps from the start; negative where the run is shorter than "-60" asks for."""
        match self.anchor:
            case "start":
                return self.amount
            case "share":
                return self.amount * total_steps if self.amount else 0.0
            case "end":
                return total_steps - self.amount


def parse_position(text: str) -> Position:
    """Read a position: "500", "80%", "-60" or "-20%" (the same as "80%").

    Raises:
        ValueError: the text is no position, or a share above 100%.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None or (match["percent"] and float(match["number"]) > 100):
        raise ValueError(
            f"'{text}' is no position in a run; write \"500\" (steps from the start), "
            f'"80%" (share of the run) or "-60" (steps before the end)'
        )
    number = float(match["number"])
    if match["percent"]:
        return Position("share", (100 - number) / 100 if match["minus"] else number / 100)
    return Position("end" if match["minus"] else "start", number)


def are_in_order(first: str, second: str) -> bool:
    """Say whether one position is before another in a run that is long enough for both."""
    return parse_position(first).resolve(_LONG_RUN) < parse_position(second).resolve(_LONG_RUN)


def _number_to_text(position: object) -> object:
    """Accept 500 and -60 for "500" and "-60", as people write them in TOML."""
    return str(position) if isinstance(position, int) and not isinstance(position, bool) else position


PositionText = Annotated[str, BeforeValidator(_number_to_text)]


class _Place(NamedTuple):
    step: float
    value: float
    rank: int


class Curve(RootModel[tuple[tuple[PositionText, float], ...]]):
    """A piecewise linear function of the step; in TOML and JSON a list of [position, value]."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _check_points(self) -> Curve:
        if not self.root:
            raise ValueError('a curve needs at least one point, for example [["0", 1.0]]')
        for text, value in self.root:
            if not math.isfinite(value):
                raise ValueError(f"the value at '{text}' is {value}, not a finite number")
        places = [position.resolve(_LONG_RUN) for position, _ in self._points]
        if places != sorted(places):
            raise ValueError(f"the points of a curve are out of order: {self.describe()}")
        return self

    @cached_property
    def _points(self) -> tuple[tuple[Position, float], ...]:
        return tuple((parse_position(text), value) for text, value in self.root)

    def value(self, step: float, total_steps: float) -> float:
        """Return the value at `step`.

        Args:
            step: optimiser steps finished so far; 0 for the first step.
            total_steps: steps of the whole run, may be an estimate or infinite.
        """
        places = _drop_crossing(
            [_Place(position.resolve(total_steps), value, _RANK[position.anchor]) for position, value in self._points]
        )
        if step < places[0].step:
            return places[0].value
        for left, right in pairwise(places):
            if left.step <= step < right.step:
                return left.value + (right.value - left.value) * ((step - left.step) / (right.step - left.step))
        return places[-1].value

    def describe(self) -> str:
        """Return the points on one line, for a printed plan."""
        return ", ".join(f"{value:g} at {text}" for text, value in self.root)


def constant(value: float) -> Curve:
    """Return the curve that is `value` everywhere."""
    return Curve(root=(("0", value),))


def _drop_crossing(places: list[_Place]) -> list[_Place]:
    """Leave out every place that is out of order with a kept one of higher rank."""
    kept: list[tuple[int, _Place]] = []
    for rank in sorted(_RANK.values(), reverse=True):
        kept += [
            (index, place)
            for index, place in enumerate(places)
            if place.rank == rank
            and not any((index - i) * (place.step - other.step) < 0 for i, other in kept if other.rank > rank)
        ]
    return [place for _, place in sorted(kept)]
