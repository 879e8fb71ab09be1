"""A run that was stopped at any step ends as one that was not, whatever the baseline does along the way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from short_trainings import make, train

import harness.training.loop as loop

CASES = [
    ("low_rank", "init=svd"),
    ("low_rank", "init=whitened"),
    ("pruning", "updates=4"),
    ("pruning", "pace=one_shot"),
    ("pruning", "ema_decay=0.9"),
    ("quantised", "qat_begin=0.5"),
    ("slicing", "kept_share=0.5"),
]


@pytest.mark.parametrize(("name", "override"), CASES)
def test_stopped_and_resumed_is_the_same_to_the_bit(
    name: str, override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)

    def run(folder: Path, stop_at: int = 0) -> dict[str, torch.Tensor]:
        method, settings = make(name, override)
        return train(folder, method, settings.train, num_steps=12, stop_at=stop_at).state_dict()

    whole = run(tmp_path / "whole")
    for stop_at in (4, 6, 8):
        folder = tmp_path / f"cut-{stop_at}"
        with pytest.raises(InterruptedError):
            run(folder, stop_at)
        resumed = run(folder)
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[key], resumed[key]) for key in whole), stop_at
