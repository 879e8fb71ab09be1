from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import RunError, UsageError
from harness.training.budget import ACCEPTED_FORMS, parse_budget


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("27h", "seconds", 97_200),
        ("90m", "seconds", 5_400),
        ("90min", "seconds", 5_400),
        ("600s", "seconds", 600),
        ("1.5h", "seconds", 5_400),
        ("2d", "seconds", 172_800),
        (".5m", "seconds", 30),
        ("27gpuh", "gpu_seconds", 97_200),
        ("30gpum", "gpu_seconds", 1_800),
        ("2000steps", "steps", 2_000),
        ("1step", "steps", 1),
        ("1.5ksteps", "steps", 1_500),
        ("50Mtok", "tokens", 50_000_000),
        ("23.6Gtok", "tokens", 23_600_000_000),
        ("23.6Btokens", "tokens", 23_600_000_000),
        ("1e15flop", "flops", 1e15),
        ("1Pflop", "flops", 1e15),
        ("2.5Tflops", "flops", 2.5e12),
        (" 600 s ", "seconds", 600),
    ],
)
def test_accepted_forms(text: str, kind: str, amount: float) -> None:
    budget = parse_budget(text)
    assert (budget.kind, budget.amount, budget.text) == (kind, amount, text.strip())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("27x", "unknown unit 'x'"),
        ("1h30m", "two units (write 90m)"),
        ("1h 30min 30s", "two units (write 90.5m)"),
        ("-3m", "not a positive number and a unit"),
        ("0", "no unit"),
        ("0s", "not above zero"),
        ("nan", "not a positive number and a unit"),
        ("nans", "not a positive number and a unit"),
        ("inf", "not a positive number and a unit"),
        ("1e999h", "beyond any machine"),
        ("", "not a positive number and a unit"),
        ("27", "did you mean 27m"),
        ("h", "not a positive number and a unit"),
        ("50mtok", "unknown unit 'mtok'"),
        ("0.5steps", "not a whole number"),
        ("1e-3flop", "not a positive number and a unit"),
        ("27h30m", "two units (write 1650m)"),
        ("５s", "not a positive number and a unit"),
    ],
)
def test_refused_forms_get_one_line_that_names_the_accepted_ones(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_budget(text)
    message = str(caught.value)
    assert reason in message
    assert ACCEPTED_FORMS in message
    assert "\n" not in message


@given(st.text(max_size=12))
def test_any_text_is_a_budget_or_a_usage_error(text: str) -> None:
    try:
        budget = parse_budget(text)
    except UsageError:
        return
    assert 0 < budget.amount < float("inf")


def test_max_steps_counts_whole_steps() -> None:
    assert parse_budget("2000steps").max_steps(2048, 1e9) == 2000
    assert parse_budget("10ktok").max_steps(2048, 1e9) == 4  # 4 * 2,048 = 8,192; a fifth would end at 10,240
    assert parse_budget("1e15flop").max_steps(2048, 1e12) == 1000
    assert parse_budget("0.3flop").max_steps(1, 0.1) == 3  # 0.3 / 0.1 = 2.9999999999999996
    assert parse_budget("27h").max_steps(2048, 1e9) is None
    assert parse_budget("27gpuh").max_steps(2048, 1e9) is None


def test_max_steps_says_what_a_step_costs_when_none_fits() -> None:
    with pytest.raises(RunError, match=r"budget 100tok is too small for one step, which costs 2,048 tokens"):
        parse_budget("100tok").max_steps(2048, 1e9)
