"""The loop itself: stages, replayed schedules, declared operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import short_trainings
import torch

import harness.training.loop as loop
from harness.data.shards import prepare
from harness.errors import RecordError, RunError
from harness.method import Method, Task, TrainingRun
from harness.nn.network import Network
from harness.records.logs import LogWriter, read_log
from harness.registry import find_method
from harness.settings import resolve_settings
from harness.training.budget import parse_budget
from harness.training.clock import Clock
from harness.training.recipe import Recipe
from harness.training.repetition import LoggedFit, LoggedStep, read_fits

INFO = find_method("dense")
SETTINGS = resolve_settings(INFO, "tiny", ["num_layers=1", "batch_tokens=128", "micro_batch_tokens=128"])
TASK = Task(vocab_size=256, context=SETTINGS.train.context)


class TwoStages(INFO.load()):  # type: ignore[misc]
    """Trains, changes a weight by hand, trains on: as a method that projects between two fits."""

    def train(self, run: TrainingRun) -> Network:
        network = run.fit(self.build(), share=0.5)
        with torch.no_grad():
            network.get_parameter("blocks.0.mlp.up.weight").mul_(0.5)
        return run.fit(network, share=0.5)


def train(folder: Path, method: Method, **arguments: Any) -> dict[str, torch.Tensor]:
    return short_trainings.train(folder, method, SETTINGS.train, num_steps=10, **arguments).state_dict()


@pytest.fixture
def two_stages() -> Method:
    return TwoStages(SETTINGS.model, TASK)


def test_stages_share_the_budget(tmp_path: Path, two_stages: Method) -> None:
    train(tmp_path, two_stages)
    assert [step.step for step in read_log(tmp_path).steps] == list(range(1, 11))


@pytest.mark.parametrize("stop_at", [2, 5, 6, 9])
def test_a_stopped_run_of_two_stages_goes_on_where_it_was(
    tmp_path: Path, two_stages: Method, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    whole = train(tmp_path / "whole", two_stages)
    with pytest.raises(InterruptedError):
        train(tmp_path / "cut", two_stages, stop_at=stop_at)
    resumed = train(tmp_path / "cut", two_stages)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert [step.step for step in read_log(tmp_path / "cut").steps] == list(range(1, 11))


def test_what_was_logged_after_the_checkpoint_stays_spent(
    tmp_path: Path, two_stages: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(InterruptedError):
        train(tmp_path, two_stages, stop_at=3)
    with LogWriter(tmp_path) as log:
        log.write("step", step=4, loss_nats=1.0, seconds=3600.0)
    train(tmp_path, two_stages)
    steps = read_log(tmp_path).steps
    assert steps[1].seconds < 3600 < steps[2].seconds


class Watched(INFO.load()):  # type: ignore[misc]
    """Two fits of unlike speed under one clock; hears how far each is."""

    def train(self, run: TrainingRun) -> Network:
        self.heard: list[list[float]] = [[], []]
        network = run.fit(self.build(), share=0.6, before_step=self.heard[0].append)
        return run.fit(network, share=0.4, before_step=self.heard[1].append)


def test_a_timed_run_of_two_fits_is_repeated_step_by_step(tmp_path: Path) -> None:
    seconds = [0.0]

    def pass_time(step: int) -> None:
        seconds[0] += 2.0 if step <= 5 else 0.5

    def run(name: str, recipe: Recipe, **arguments: Any) -> tuple[Method, dict[str, torch.Tensor]]:
        method = Watched(SETTINGS.model, TASK)
        return method, short_trainings.train(tmp_path / name, method, recipe, **arguments).state_dict()

    recipe = SETTINGS.train.model_copy(update={"swa_start": "-3", "qat_start": "50%"})
    clock = Clock(parse_budget("20s"), now=lambda: seconds[0])
    first, network = run("timed", recipe, clock=clock, after_step=pass_time)
    fits = read_fits(tmp_path / "timed")
    assert [len(fit.steps) for fit in fits] == [5, 19]
    assert all(fit.phases.keys() == {"swa", "qat"} for fit in fits)
    again, repeated = run("again", recipe, num_steps=24, repeated=fits)
    assert all(torch.equal(value, network[name]) for name, value in repeated.items())
    assert [heard[1:] for heard in again.heard] == [heard[1:] for heard in first.heard]  # the first primes


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"event": "step", "step": 1, "loss_nats": 1.0, "lr_scale": 1.0, "momentum": 0.9}, "misses rate, momentum or"),
        ({"event": "fit", "step": "one"}, "without a whole step"),
        ({"event": "fit", "step": 0}, "fit without steps"),
        ({"event": "end"}, "where fits begin"),
    ],
)
def test_a_log_that_does_not_hold_a_repetition_is_refused(tmp_path: Path, event: dict[str, Any], said: str) -> None:
    with LogWriter(tmp_path) as log:
        if event["event"] == "step":
            log.write("fit", step=0)
        log.write(event.pop("event"), **event)
    with pytest.raises(RecordError, match=said):
        read_fits(tmp_path)


def test_a_method_that_now_has_more_fits_is_not_repeated(tmp_path: Path, two_stages: Method) -> None:
    fit = LoggedFit(steps=(LoggedStep(lr_scale=1.0, momentum=0.9, progress=0.0),) * 2, phases={})
    with pytest.raises(RecordError, match="had 1 fits by its log"):
        train(tmp_path, two_stages, repeated=[fit])


def test_operations_that_are_declared_too_low_are_refused(tmp_path: Path) -> None:
    class Flattering(INFO.load()):  # type: ignore[misc]
        def flops_per_step(self, num_tokens: int) -> float:
            return 0.5 * super().flops_per_step(num_tokens)

    with pytest.raises(RunError, match="mend flops_per_step"):
        train(tmp_path, Flattering(SETTINGS.model, TASK))


class Halving(INFO.load()):  # type: ignore[misc]
    """Changes the network before each step, by how far the fit is."""

    def train(self, run: TrainingRun) -> Network:
        network = self.build()
        self.seen: list[float] = []

        def halve(progress: float) -> None:
            self.seen.append(progress)
            with torch.no_grad():
                network.get_parameter("blocks.0.mlp.up.weight").mul_(1 - progress)

        return run.fit(network, before_step=halve)


def test_before_each_step_the_method_hears_how_far_the_fit_is(tmp_path: Path) -> None:
    method = Halving(SETTINGS.model, TASK)
    train(tmp_path, method)
    assert method.seen == [0.0, *(step / 10 for step in range(10))]  # first a warm-up step, which is undone


@pytest.mark.parametrize("stop_at", [1, 6])
def test_what_is_changed_before_steps_survives_a_stop(
    tmp_path: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    whole = train(tmp_path / "whole", Halving(SETTINGS.model, TASK))
    with pytest.raises(InterruptedError):
        train(tmp_path / "cut", Halving(SETTINGS.model, TASK), stop_at=stop_at)
    resumed = train(tmp_path / "cut", Halving(SETTINGS.model, TASK))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


class OtherFirst(INFO.load()):  # type: ignore[misc]
    """Trains a network with more operations than its own before it."""

    def train(self, run: TrainingRun) -> Network:
        larger = INFO.load()(SETTINGS.model.model_copy(update={"num_layers": 3}), self.task)
        run.fit(larger.build(), share=0.5, flops_per_step=larger.flops_per_step)
        return run.fit(self.build(), share=0.5)


def test_a_stage_of_another_kind_is_counted_with_its_own_operations(tmp_path: Path) -> None:
    train(tmp_path / "steps", OtherFirst(SETTINGS.model, TASK))  # refused if its operations were those of the method
    clock = Clock(parse_budget("10steps"))
    train(tmp_path / "counted", OtherFirst(SETTINGS.model, TASK), clock=clock)
    own, larger = (
        INFO.load()(SETTINGS.model.model_copy(update={"num_layers": layers}), TASK).flops_per_step(128)
        for layers in (1, 3)
    )
    # Five steps of 1 FLOP, as this file declares to the trainer, and five of the larger network and its optimiser.
    assert clock.num_flops > 5 + 5 * larger > 5 * own


def test_calibration_sees_the_first_tokens_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Calibrating(INFO.load()):  # type: ignore[misc]
        def train(self, run: TrainingRun) -> Network:
            network = run.fit(self.build(), share=0.5)
            self.moments = run.calibrate(network, num_tokens=129)
            return run.fit(network, share=0.5)

    seen: list[torch.Tensor] = []
    real = loop.input_moments

    def listen(network: Network, batches) -> dict[str, torch.Tensor]:
        seen.extend(batches)
        return real(network, seen)

    monkeypatch.setattr(loop, "input_moments", listen)
    method = Calibrating(SETTINGS.model, TASK)
    clock = Clock(parse_budget("10steps"))
    train(tmp_path, method, clock=clock)
    data = prepare("synthetic")
    windows = {bytes(data.train.read(at, at + 64)) for at in range(data.train.num_tokens - 64)}
    assert [batch.shape for batch in seen] == [(2, 64), (2, 64)]  # 129 tokens, rounded up to micro-batches of 128
    assert all(row.numpy().astype(data.train.read(0, 1).dtype).tobytes() in windows for batch in seen for row in batch)
    assert method.moments["blocks.0.mlp.up"].shape == (64, 64)
    # Ten steps of one operation, as this file declares, and forward passes over 256 tokens with their moments.
    assert clock.num_flops - 10 >= 2 * INFO.load()(SETTINGS.model, TASK).flops_per_step(128) / 3 * 0.95
