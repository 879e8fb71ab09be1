"""Short trainings of a plugin at its `tiny` preset, as a run does them, stopped and resumed."""

from __future__ import annotations

from pathlib import Path

import torch

from harness.data.shards import prepare
from harness.method import Method, Task
from harness.nn.network import Network
from harness.records.logs import LogWriter
from harness.registry import find_method
from harness.settings import RunSettings, resolve_settings
from harness.training.budget import parse_budget
from harness.training.clock import Clock
from harness.training.loop import StepReport, Trainer
from harness.training.ranks import Ranks

NUM_STEPS = 12


def make(name: str, *overrides: str) -> tuple[Method, RunSettings]:
    """Return a method at its `tiny` preset, with two layers and small steps, some settings changed."""
    info = find_method(name)
    sizes = ("num_layers=2", "batch_tokens=128", "micro_batch_tokens=64")
    settings = resolve_settings(info, "tiny", [*sizes, *overrides])
    return info.load()(settings.model, Task(vocab_size=256, context=settings.train.context)), settings


def train(
    folder: Path,
    method: Method,
    settings: RunSettings,
    *,
    num_steps: int = NUM_STEPS,
    stop_at: int = 0,
    check=lambda step: None,
) -> Network:
    """Train from the checkpoint where one exists; stop without a trace after step `stop_at`."""
    folder.mkdir(exist_ok=True)

    def stepped(_: StepReport) -> None:
        check(clock.num_steps)
        if clock.num_steps == stop_at:
            raise InterruptedError

    torch.manual_seed(0)
    clock = Clock(parse_budget(f"{num_steps}steps"))
    with LogWriter(folder) as log:
        trainer = Trainer(
            method=method,
            recipe=settings.train,
            clock=clock,
            data=prepare("synthetic"),
            seed=0,
            ranks=Ranks(),
            log=log,
            checkpoint_path=folder / "checkpoint.pt",
            flops_per_step=1.0,
            probe_export=lambda network: 0.0,
            validate=lambda network, step: None,
            on_step=stepped,
        )
        return method.train(trainer)
