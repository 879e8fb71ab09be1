"""Short trainings through the real trainer, on the synthetic corpus, stopped and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from harness.training.recipe import Recipe


def make(name: str, *overrides: str) -> tuple[Method, RunSettings]:
    """Return a method at its `tiny` preset with two small micro-batches a step, some settings changed."""
    info = find_method(name)
    settings = resolve_settings(info, "tiny", ["batch_tokens=128", "micro_batch_tokens=64", *overrides])
    return info.load()(settings.model, Task(vocab_size=256, context=settings.train.context)), settings


def train(  # noqa: PLR0913  keyword-only
    folder: Path,
    method: Method,
    recipe: Recipe,
    *,
    num_steps: int = 10,
    clock: Clock | None = None,
    stop_at: int = 0,
    after_step: Callable[[int], None] = lambda step: None,
    **trainer_arguments: Any,
) -> Network:
    """Train from the checkpoint in `folder` where one exists; end as if killed after step `stop_at`."""
    folder.mkdir(exist_ok=True)
    clock = clock or Clock(parse_budget(f"{num_steps}steps"))

    def stepped(_: StepReport) -> None:
        after_step(clock.num_steps)
        if clock.num_steps == stop_at:
            raise InterruptedError

    torch.manual_seed(0)
    with LogWriter(folder) as log:
        trainer = Trainer(
            method=method,
            recipe=recipe,
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
            **trainer_arguments,
        )
        return method.train(trainer)
