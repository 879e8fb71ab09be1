"""The kernel beside timed runs: what counts as drift, and what a record says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import harness.run_stages as run_stages
from harness.job import RunRequest
from harness.progress import SilentReporter
from harness.records.native import read_record
from harness.runner import start_run
from harness.training.contention import drifted, kernel_seconds


def test_drift_is_more_than_five_per_cent_either_way() -> None:
    assert not drifted(1.0, 1.05)
    assert not drifted(1.05, 1.0)
    assert drifted(1.0, 1.051)
    assert drifted(1.051, 1.0)


def test_the_kernel_takes_time() -> None:
    assert 0 < kernel_seconds("cpu") < 5


@pytest.mark.parametrize(("after", "contended"), [(1.01, False), (1.2, True)])
def test_a_timed_record_says_whether_the_machine_drifted(
    after: float, contended: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: Iterator[float] = iter([1.0, after])
    monkeypatch.setattr(run_stages, "kernel_seconds", lambda device: next(times))
    request = RunRequest(method="dense", preset="tiny", data="synthetic", budget="4s", overrides=("num_layers=1",))
    folder = start_run(request, reporter=SilentReporter(), out=tmp_path / "run", device="cpu")
    assert folder is not None
    assert read_record(folder).contended is contended


def test_seconds_that_match_nothing_are_not_watched(tmp_path: Path) -> None:
    request = RunRequest(method="dense", preset="tiny", data="synthetic", budget="1steps", overrides=("num_layers=1",))
    folder = start_run(request, reporter=SilentReporter(), out=tmp_path / "run", device="cpu")
    assert folder is not None
    assert read_record(folder).contended is None
