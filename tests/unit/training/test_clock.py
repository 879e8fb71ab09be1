from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import RunError, UsageError
from harness.training.budget import parse_budget
from harness.training.clock import Clock


@dataclass
class FakeTime:
    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def pass_(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def make_clock(text: str, time: FakeTime, num_devices: int = 1) -> Clock:
    return Clock(parse_budget(text), num_devices=num_devices, now=time)


def begin(clock: Clock, share: float = 1.0, tokens: int = 100, flops: float = 1e6) -> None:
    clock.begin_segment(share, tokens_per_step=tokens, flops_per_step=flops)


def test_stages_add_up_to_the_spent_seconds_and_pauses_do_not(time: FakeTime) -> None:
    clock = make_clock("100s", time)
    time.pass_(1)  # the plugin builds its network: the clock already runs
    with clock.stage("train"):
        time.pass_(10)
        with clock.pause("validation"):
            time.pass_(5)
            with clock.stage("train"):  # nothing inside a pause counts
                time.pass_(2)
        with clock.stage("checkpoint"):
            time.pass_(0.5)
        time.pass_(4)
    with clock.pause("compilation"):
        time.pass_(30)
    with clock.stage("export"):
        time.pass_(3)
    clock.finish()
    time.pass_(1000)
    assert clock.stage_seconds == {"other": 1, "train": 14, "checkpoint": 0.5, "export": 3}
    assert clock.outside_seconds == {"validation": 7, "compilation": 30}
    assert clock.spent_seconds == 18.5


def test_a_stage_is_closed_when_its_body_raises(time: FakeTime) -> None:
    clock = make_clock("100s", time)
    with pytest.raises(KeyError), clock.stage("train"):
        time.pass_(1)
        raise KeyError
    time.pass_(2)
    assert clock.spent_seconds == 3
    assert clock.stage_seconds == {"train": 1, "other": 2}


@pytest.mark.parametrize(
    ("text", "num_steps"), [("7steps", 7), ("750tok", 7), ("7.9Mflop", 7), ("700tok", 7), ("7Mflop", 7)]
)
def test_counted_budgets_stop_after_whole_steps_whatever_the_time(time: FakeTime, text: str, num_steps: int) -> None:
    clock = make_clock(text, time)
    clock.reserve_export(1e9)
    begin(clock)
    totals, progress = [], []
    while not clock.should_stop():
        totals.append(clock.total_steps)
        progress.append(clock.progress())
        time.pass_(17)
        clock.count_step()
    assert clock.num_steps == num_steps
    assert clock.stopped_by == parse_budget(text).kind
    assert totals == [num_steps] * num_steps
    assert progress == pytest.approx([i / num_steps for i in range(num_steps)])
    assert clock.progress() == 1.0
    assert (clock.num_tokens, clock.num_flops) == (100 * num_steps, 1e6 * num_steps)


def test_a_timed_budget_keeps_time_for_the_export(time: FakeTime) -> None:
    clock = make_clock("60s", time)
    time.pass_(2)  # setup
    clock.reserve_export(5)
    begin(clock)
    with clock.stage("train"):
        while not clock.should_stop():
            time.pass_(3)
            clock.count_step()
    assert clock.export_seconds == 7.75  # half as much again and a quarter of a second
    # 60 - 7.75 for the export - 2 of setup = 50.25 s of training = 16 steps of 3 s (48 s)
    assert clock.num_steps == 16
    assert clock.stopped_by == "seconds"
    with clock.stage("export"):
        time.pass_(8)
    clock.finish()
    assert clock.spent_seconds == 58
    assert (clock.overrun, clock.is_within_tolerance) == (0, True)


def test_device_seconds_are_wall_seconds_times_devices(time: FakeTime) -> None:
    clock = make_clock("60gpus", time, num_devices=4)
    clock.reserve_export(0.5)  # with the margin 4 device seconds
    begin(clock)
    while not clock.should_stop():
        time.pass_(2)  # 8 device seconds
        clock.count_step()
    assert clock.num_steps == 7
    assert clock.device_seconds == 56
    assert clock.spent_seconds == 14
    assert clock.stopped_by == "gpu_seconds"


def test_an_expected_step_time_is_used_before_any_was_measured(time: FakeTime) -> None:
    clock = make_clock("10s", time)
    begin(clock)
    assert not clock.should_stop(next_step_seconds=10)
    assert clock.total_steps == math.inf
    assert clock.should_stop(next_step_seconds=10.5)


def test_estimated_total_follows_the_elapsed_share_and_the_step_time_forgets_the_first(time: FakeTime) -> None:
    clock = make_clock("100s", time)
    begin(clock)
    time.pass_(10)
    clock.count_step()
    assert clock.total_steps == pytest.approx(1 / 0.1)
    time.pass_(2)
    clock.count_step()
    assert clock.step_seconds == 2
    assert clock.progress() == pytest.approx(0.12)  # elapsed / total
    assert clock.total_steps == pytest.approx(2 / 0.12)  # one slow step does not move the schedule


def test_the_step_time_leaves_other_stages_out(time: FakeTime) -> None:
    clock = make_clock("100s", time)
    begin(clock)
    with clock.stage("train"):
        for _ in range(3):
            time.pass_(1)
            with clock.pause("validation"):
                time.pass_(7)
            with clock.stage("checkpoint"):
                time.pass_(5)
            clock.count_step()
    assert clock.step_seconds == 1


def test_segments_share_a_counted_budget_without_loss(time: FakeTime) -> None:
    clock = make_clock("10steps", time)
    steps = []
    for share in (1 / 3, 1 / 3, 1 / 3):
        begin(clock, share)
        assert clock.stopped_by is None
        while not clock.should_stop():
            clock.count_step()
        steps.append(clock.segment_steps)
    assert steps == [3, 3, 4]
    assert (clock.num_steps, clock.num_segments) == (10, 3)


def test_segments_share_a_timed_budget(time: FakeTime) -> None:
    clock = make_clock("110s", time)
    clock.reserve_export(6.5)  # with the margin 10
    begin(clock, 0.5)
    while not clock.should_stop():
        time.pass_(4)
        clock.count_step()
    assert clock.spent_seconds == 48  # 12 steps of 4 s in 50 s
    with clock.stage("compression"):
        time.pass_(20)
    begin(clock, 0.5)
    assert clock.segment_steps == 0
    while not clock.should_stop():
        time.pass_(4)
        clock.count_step()
    assert clock.spent_seconds == 100
    assert clock.segment_steps == 8


@pytest.mark.parametrize("shares", [(0.5, 0.6), (0.0,), (-1.0,), (math.nan,)])
def test_shares_beyond_the_budget_are_refused(time: FakeTime, shares: tuple[float, ...]) -> None:
    clock = make_clock("10steps", time)
    with pytest.raises(UsageError, match="shares of this method"):
        for share in shares:
            begin(clock, share)


def test_other_reasons_stop_too(time: FakeTime) -> None:
    clock = make_clock("10steps", time)
    begin(clock)
    assert not clock.should_stop()
    clock.stop("max_artifact_bytes")
    assert clock.should_stop()
    assert clock.stopped_by == "max_artifact_bytes"


def test_too_small_a_timed_budget_says_what_was_measured(time: FakeTime) -> None:
    clock = make_clock("2s", time)
    time.pass_(0.5)
    clock.reserve_export(0.5)  # with the margin 1
    begin(clock)
    clock.require_one_step(0.5)
    with pytest.raises(RunError) as caught:
        clock.require_one_step(0.75)
    assert str(caught.value) == (
        "budget 2s is too small for one step and an export: 0.5 seconds are spent, one step takes 0.75, "
        "the export with a margin 1. Give --budget more than 2.25 seconds."
    )


def test_too_small_a_counted_stage_is_refused(time: FakeTime) -> None:
    clock = make_clock("10steps", time)
    begin(clock, 0.05)
    with pytest.raises(RunError, match="this stage may use 5% of it"):
        clock.require_one_step()
    assert clock.should_stop()


@pytest.mark.parametrize(("text", "late_seconds", "kept"), [("100s", 4.9, True), ("100s", 5.1, False)])
def test_tolerance_is_one_step(time: FakeTime, text: str, late_seconds: float, kept: bool) -> None:
    clock = make_clock(text, time)
    begin(clock)
    time.pass_(5)
    clock.count_step()
    with clock.stage("export"):
        time.pass_(95 + late_seconds)
    assert clock.overrun == pytest.approx(late_seconds)
    assert clock.is_within_tolerance is kept


@pytest.mark.parametrize("text", ["40s", "90gpus", "40steps", "4ktok"])
def test_a_resumed_clock_goes_on_as_if_it_had_never_stopped(time: FakeTime, text: str) -> None:
    straight = make_clock(text, time, num_devices=2)
    time.pass_(1)
    straight.reserve_export(2)
    begin(straight)
    for _ in range(5):
        time.pass_(1.25)
        straight.count_step()
    straight.stop("interrupt")
    state = json.loads(json.dumps(straight.state_dict()))

    later = FakeTime(7.0)  # another process, another monotonic clock
    resumed = make_clock(text, later, num_devices=2)
    later.pass_(9)
    resumed.load_state_dict(state)
    assert resumed.outside_seconds == {"resume": 9}
    assert resumed.state_dict() == {**state, "outside_seconds": {"resume": 9}}
    straight.stopped_by = None
    for clock, clock_time in ((straight, time), (resumed, later)):
        while not clock.should_stop():
            clock_time.pass_(1.25)
            clock.count_step()
    assert resumed.num_steps == straight.num_steps
    assert resumed.spent == straight.spent
    assert resumed.total_steps == straight.total_steps


@given(
    amount=st.floats(1, 500),
    setup_seconds=st.floats(0, 20),
    export_seconds=st.floats(0, 20),
    steps_seconds=st.lists(st.floats(0.01, 30), min_size=1, max_size=30),
    num_devices=st.integers(1, 3),
    kind=st.sampled_from(["s", "gpus"]),
)
def test_a_timed_budget_is_never_exceeded_by_more_than_one_step(
    amount: float,
    setup_seconds: float,
    export_seconds: float,
    steps_seconds: list[float],
    num_devices: int,
    kind: str,
) -> None:
    time = FakeTime(0.0)
    clock = make_clock(f"{amount:.6f}{kind}", time, num_devices)
    time.pass_(setup_seconds)
    clock.reserve_export(export_seconds)
    begin(clock)
    try:
        clock.require_one_step(steps_seconds[0])
    except RunError:
        return
    while not clock.should_stop():
        assert clock.total_steps >= clock.segment_steps
        assert 0 <= clock.progress() <= 1
        time.pass_(steps_seconds[clock.num_steps % len(steps_seconds)])
        clock.count_step()
    with clock.stage("export"):
        time.pass_(export_seconds)
    clock.finish()
    devices = num_devices if kind == "gpus" else 1
    assert clock.overrun <= max(steps_seconds) * devices + 1e-6


@given(st.integers(1, 10**6), st.integers(1, 5000), st.sampled_from(["steps", "tok", "flop"]))
def test_a_counted_budget_is_never_exceeded(amount: int, cost: int, unit: str) -> None:
    amount = min(amount, 200 * cost)
    clock = make_clock(f"{min(amount, 200)}steps" if unit == "steps" else f"{amount}{unit}", FakeTime())
    begin(clock, tokens=cost, flops=float(cost))
    while not clock.should_stop():
        clock.count_step()
    assert clock.overrun <= 1e-6 * clock.budget.amount
    step_cost = 1 if unit == "steps" else cost
    assert clock.spent > clock.budget.amount - step_cost
