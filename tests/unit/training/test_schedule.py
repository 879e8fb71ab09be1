from __future__ import annotations

import json
import math
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from harness.training.schedule import Curve, Position, constant, parse_position


def curve(*points: tuple[str, float]) -> Curve:
    return Curve(root=points)


@pytest.mark.parametrize(
    ("text", "position", "step_of_1000"),
    [
        ("0", Position("start", 0), 0),
        ("500", Position("start", 500), 500),
        ("-60", Position("end", 60), 940),
        ("-0", Position("end", 0), 1000),
        ("80%", Position("share", 0.8), 800),
        ("-20%", Position("share", 0.8), 800),
        ("12.5%", Position("share", 0.125), 125),
        (" 7 ", Position("start", 7), 7),
    ],
)
def test_positions(text: str, position: Position, step_of_1000: float) -> None:
    assert parse_position(text) == position
    assert parse_position(text).resolve(1000) == step_of_1000


@pytest.mark.parametrize("text", ["", "x", "1e3", "0.5", "101%", "--3", "5 %", "%", "nan", "inf", "+5"])
def test_what_is_no_position_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no position in a run; write \"500\""):
        parse_position(text)


def test_two_points_by_hand() -> None:
    line = curve(("100", 2.0), ("300", 6.0))
    values = [line.value(step, 1000) for step in (0, 100, 150, 299, 300, 999)]
    assert values == [2.0, 2.0, 3.0, 5.98, 6.0, 6.0]  # slope 4 / 200 = 0.02


def test_a_jump_takes_the_later_value() -> None:
    jump = curve(("0", 1.0), ("10", 1.0), ("10", 0.5))
    assert [jump.value(step, 20) for step in (9, 10, 11)] == [1.0, 0.5, 0.5]


CHALLENGE_WARMDOWN = curve(("0", 1.0), ("-1200", 1.0), ("-0", 0.0))
CHALLENGE_MOMENTUM = curve(("0", 0.85), ("500", 0.95))
LEGENDRE_MOMENTUM = curve(("0", 0.85), ("500", 0.95), ("10000", 0.95), ("100%", 0.05))
LEGENDRE_LINEAR = curve(("0", 0.2), ("100%", 0.0))
LEGENDRE_PIECEWISE = curve(("0", 0.2), ("1000", 0.1), ("5000", 0.1), ("100%", 0.0))


@pytest.mark.parametrize("total_steps", [300, 1200, 20000])
def test_warmdown_of_the_challenge(total_steps: int) -> None:
    for step in range(0, total_steps, 7):
        expected = min(1.0, (total_steps - step) / 1200)
        assert CHALLENGE_WARMDOWN.value(step, total_steps) == pytest.approx(expected)


@pytest.mark.parametrize("total_steps", [300, 500, 60000])
def test_momentum_of_the_challenge(total_steps: int) -> None:
    for step in range(0, total_steps, 13):
        expected = 0.85 + 0.1 * min(step / 500, 1)
        assert CHALLENGE_MOMENTUM.value(step, total_steps) == pytest.approx(expected)


@pytest.mark.parametrize("total_steps", [300, 9000, 10000, 10001, 60000])
def test_momentum_of_legendre(total_steps: int) -> None:
    for step in [*range(0, total_steps, 97), total_steps - 1]:
        expected = 0.85 + 0.1 * min(step / 500, 1)
        if step >= 10000:
            expected = 0.95 - 0.9 * (step - 10000) / (total_steps - 10000)
        assert LEGENDRE_MOMENTUM.value(step, total_steps) == pytest.approx(expected)


@pytest.mark.parametrize("total_steps", [300, 60000])
def test_linear_rate_of_legendre(total_steps: int) -> None:
    for step in range(0, total_steps, 11):
        expected = 0.2 * (1 - step / total_steps)
        assert LEGENDRE_LINEAR.value(step, total_steps) == pytest.approx(expected)


@pytest.mark.parametrize("total_steps", [300, 3000, 60000])
def test_piecewise_rate_of_legendre(total_steps: int) -> None:
    for step in range(0, total_steps, 11):
        progress, first, second = step / total_steps, 1000 / total_steps, 5000 / total_steps
        if progress <= first:
            expected = 0.2 - 0.1 * progress / first
        elif progress <= second:
            expected = 0.1
        else:
            expected = 0.1 * (1 - (progress - second) / (1 - second))
        assert LEGENDRE_PIECEWISE.value(step, total_steps) == pytest.approx(expected)


def test_in_a_short_run_the_warm_down_wins_over_the_warm_up() -> None:
    both = curve(("0", 0.0), ("100", 1.0), ("-60", 1.0), ("-0", 0.0))
    assert [both.value(step, 1000) for step in (50, 500, 970)] == [0.5, 1.0, 0.5]
    # 80 steps: -60 is step 20, so step 100 is left out: up to 1 at 20, down to 0 at 80
    assert [both.value(step, 80) for step in (0, 10, 20, 50, 79)] == pytest.approx([0, 0.5, 1, 0.5, 1 / 60])
    # 30 steps: -60 is step -30, the start is left out as well: half of the way down is over at step 0
    assert [both.value(step, 30) for step in (0, 15)] == pytest.approx([0.5, 0.25])


def test_while_the_end_is_unknown_only_the_start_counts() -> None:
    assert CHALLENGE_WARMDOWN.value(0, math.inf) == 1.0
    assert LEGENDRE_LINEAR.value(0, math.inf) == 0.2
    assert LEGENDRE_MOMENTUM.value(250, math.inf) == pytest.approx(0.9)


def test_a_time_budget_gives_the_same_curve_as_its_final_number_of_steps() -> None:
    # the challenge: with a wall-clock cap the warm-down takes the last 1200 mean step times
    step_seconds, cap_seconds = 0.5, 2000.0
    for step in range(1, 4000, 501):
        elapsed_seconds = step * step_seconds
        total_steps = step + (cap_seconds - elapsed_seconds) / step_seconds
        expected = min(1.0, (cap_seconds - elapsed_seconds) / (1200 * step_seconds))
        assert CHALLENGE_WARMDOWN.value(step, total_steps) == pytest.approx(expected)


POSITIONS = st.one_of(
    st.integers(0, 300).map(str),
    st.integers(0, 300).map(lambda n: f"-{n}"),
    st.integers(0, 100).map(lambda n: f"{n}%"),
)


@given(st.lists(st.tuples(POSITIONS, st.floats(-5, 5)), min_size=1, max_size=6), st.integers(1, 400))
def test_values_stay_between_the_points_in_any_run(points: list[tuple[str, float]], total_steps: int) -> None:
    try:
        any_curve = Curve(root=tuple(points))
    except ValidationError:
        return
    low, high = min(value for _, value in points), max(value for _, value in points)
    for step in range(total_steps + 1):
        assert low - 1e-9 <= any_curve.value(step, total_steps) <= high + 1e-9


class Settings(BaseModel):
    lr_curve: Curve


def test_reads_toml_and_writes_json() -> None:
    table = tomllib.loads('lr_curve = [[0, 0], ["100", 1.0], [-60, 1.0], ["100%", 0.0]]')
    settings = Settings.model_validate(table)
    assert json.loads(settings.model_dump_json()) == {
        "lr_curve": [["0", 0.0], ["100", 1.0], ["-60", 1.0], ["100%", 0.0]]
    }
    assert Settings.model_validate_json(settings.model_dump_json()) == settings
    assert settings.lr_curve.describe() == "0 at 0, 1 at 100, 1 at -60, 0 at 100%"


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "at least one point"),
        ([["soon", 1.0]], "'soon' is no position"),
        ([["0", math.nan]], "not a finite number"),
        ([["500", 1.0], ["0", 0.5]], "out of order"),
        ([["-0", 0.0], ["-60", 1.0]], "out of order"),
        ([["80%", 1.0], ["20%", 0.5]], "out of order"),
        ([["-0", 0.0], ["0", 1.0]], "out of order"),
        ([["0", 1.0, 2.0]], "at most 2 items"),
        ([[True, 1.0]], "valid string"),
    ],
)
def test_bad_curves_are_refused(points: list[list[object]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate({"lr_curve": points})


def test_constant() -> None:
    assert [constant(0.95).value(step, 10) for step in (0, 5, 10)] == [0.95] * 3
