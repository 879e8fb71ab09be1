"""The loop itself: stages, replayed schedules, declared operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import short_trainings
import torch

import harness.training.loop as loop
from harness.data.shards import prepare
from harness.errors import RunError
from harness.method import Method, Task, TrainingRun
from harness.nn.network import Network
from harness.records.logs import LogWriter, read_log
from harness.registry import find_method
from harness.settings import resolve_settings
from harness.training.budget import parse_budget
from harness.training.clock import Clock

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


def test_a_replayed_schedule_is_followed_over_stages(tmp_path: Path, two_stages: Method) -> None:
    schedule = [(0.1 * step, 0.9) for step in range(10)]
    train(tmp_path, two_stages, replayed_schedule=schedule)
    assert [step.lr_scale for step in read_log(tmp_path).steps] == pytest.approx([lr for lr, _ in schedule])


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
    train(tmp_path, method)
    data = prepare("synthetic")
    windows = {bytes(data.train.read(at, at + 64)) for at in range(data.train.num_tokens - 64)}
    assert [batch.shape for batch in seen] == [(2, 64), (2, 64)]  # 129 tokens, rounded up to micro-batches of 128
    assert all(row.numpy().astype(data.train.read(0, 1).dtype).tobytes() in windows for batch in seen for row in batch)
    assert method.moments["blocks.0.mlp.up"].shape == (64, 64)
