"""The Micro Crawler's cadence through the one training loop: counted, resumed, stored, scored."""

from __future__ import annotations

from pathlib import Path

import pytest
import short_trainings
import torch

import harness.training.loop as loop
from harness.errors import RunError
from harness.job import RunRequest
from harness.method import Method, Task
from harness.progress import SilentReporter
from harness.records.logs import read_log
from harness.registry import find_method
from harness.runner import start_run
from harness.settings import resolve_settings
from harness.verify.run import verify_paths
from methods.recursive.method import Recursive

SETTINGS = resolve_settings(
    find_method("recursive"), "tiny-crawler", ["cadence=3", "batch_tokens=128", "micro_batch_tokens=128"]
)
TASK = Task(vocab_size=256, context=SETTINGS.train.context)


def train(folder: Path, method: Method, stop_at: int = 0) -> dict[str, torch.Tensor]:
    return short_trainings.train(folder, method, SETTINGS.train, num_steps=7, stop_at=stop_at).state_dict()


@pytest.mark.parametrize("stop_at", [2, 4, 5])
def test_a_resumed_run_fires_what_the_whole_run_does(
    tmp_path: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    method = Recursive(SETTINGS.model, TASK)
    whole = train(tmp_path / "whole", method)
    assert whole["body.num_steps"] == 7  # the steps that primed the run are undone
    with pytest.raises(InterruptedError):
        train(tmp_path / "cut", method, stop_at=stop_at)
    resumed = train(tmp_path / "cut", method)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_operations_are_checked_over_a_whole_cadence(tmp_path: Path) -> None:
    class OnlyTheFirst(Recursive):
        @property
        def cost_period(self) -> int:
            return 1

    # the first step fires every loop, which is more than the mean that is declared
    with pytest.raises(RunError, match="mend flops_per_step"):
        train(tmp_path, OnlyTheFirst(SETTINGS.model, TASK))


def test_the_crawler_keeps_the_contract(tmp_path: Path) -> None:
    folders = []
    for name in ("one", "two"):
        request = RunRequest(method="recursive", preset="tiny-crawler", budget="20steps", data="synthetic", seed=3)
        folder = start_run(request, reporter=SilentReporter(), out=tmp_path / name, device="cpu")
        assert folder is not None
        folders.append(folder)
    losses = [step.loss_nats for step in read_log(folders[0]).steps]
    assert sum(losses[-3:]) < sum(losses[:3]) - 0.06
    assert (folders[0] / "artifact.bin").read_bytes() == (folders[1] / "artifact.bin").read_bytes()
    report = verify_paths([folders[0]], level="decode")
    assert not [finding for finding in report.findings if finding.status == "fail"]
