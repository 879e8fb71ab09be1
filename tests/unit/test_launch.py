"""`harness run --devices N`: the same file as one process, stopped, killed and resumed; whose error is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

import harness.launch as launch
from harness.cell_process import last_step
from harness.cli import run_command
from harness.errors import RunError
from harness.records.native import read_record

BASE = ("run", "--method", "dense", "--preset", "tiny", "--seed", "7", "--device", "cpu", "--tokenizer", "bytes")
SMALL = (
    "--set",
    "batch_tokens=256",
    "--set",
    "micro_batch_tokens=64",
    "--set",
    "num_layers=1",
    "--set",
    "mlp_width=16",
)
TWO = ("--devices", "2")


def start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_for_step(folder: Path, step: int, child: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while last_step(folder) < step and time.monotonic() < deadline:
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.01)


def test_two_ranks_stopped_and_resumed_give_the_file_of_one(small_text: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = (*BASE, *SMALL, "--data", small_text, "--budget", "60steps", "--out")
    folder = tmp_path / "two"
    child = start(*arguments, str(folder), *TWO)
    wait_for_step(folder, 5, child)
    child.send_signal(signal.SIGTERM)
    said = child.communicate(timeout=120)[1]
    assert child.returncode == 130, said
    assert f"harness run --resume {folder}" in said.replace("\n", "")
    assert read_record(folder).status == "interrupted"
    child = start("run", "--resume", str(folder), "--device", "cpu", *TWO)
    said = child.communicate(timeout=120)[1]
    assert child.returncode == 0, said
    child = start(*arguments, str(tmp_path / "one"))
    child.communicate(timeout=120)
    one, two = read_record(tmp_path / "one"), read_record(folder)
    assert (one.environment.num_ranks, two.environment.num_ranks) == (1, 2)
    assert two.environment.command_line.endswith(f"harness run --resume {folder} --device cpu --devices 2")
    assert one.artifact.sha256 == two.artifact.sha256


def test_a_killed_rank_ends_the_run_with_a_record_that_goes_on(small_text: str, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    child = start(*BASE, *SMALL, "--data", small_text, "--budget", "3000steps", "--out", str(folder), *TWO)
    wait_for_step(folder, 2, child)
    ranks = [process for process in psutil.Process(child.pid).children() if "harness.worker" in process.cmdline()]
    next(rank for rank in ranks if rank.environ()["RANK"] == "1").kill()
    said = child.communicate(timeout=120)[1]
    assert child.returncode == 4, said
    assert said.strip().splitlines()[-1].startswith("error: rank 1 was killed by signal 9; go on with")
    record = read_record(folder)
    assert (record.status, record.reason) == ("interrupted", "another process of the run is gone")


def test_an_error_of_all_ranks_is_said_once(tmp_path: Path) -> None:
    child = start(*BASE, "--data", f"text:{tmp_path}/nowhere", "--budget", "5steps", "--out", str(tmp_path / "r"), *TWO)
    said = child.communicate(timeout=120)[1]
    assert said.startswith("error: ") and said.count("\n") == 1
    assert child.returncode in (2, 4)
    assert not (tmp_path / "r").exists()


def failed(tmp_path: Path, **codes: int) -> dict[int, ProcessFailure]:
    return {
        int(name[1:]): ProcessFailure(local_rank=int(name[1:]), pid=1, exitcode=code, error_file=str(tmp_path / "none"))
        for name, code in codes.items()
    }


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({"r0": 2, "r1": 2}, 2),
        ({"r0": 4, "r1": -15}, 4),
        ({"r0": 130, "r1": -15}, 130),
        ({"r0": -15, "r1": 4}, "rank 1: no memory"),
        ({"r0": 130, "r1": -15, "r2": 3}, "rank 2: exit code 3"),
        ({"r0": 130, "r1": -9}, "rank 1 was killed by signal 9"),
        ({"r0": -9, "r1": 130}, "rank 0 was killed by signal 9"),
    ],
)
def test_who_is_to_blame(codes: dict[str, int], expected: int | str, tmp_path: Path) -> None:
    (tmp_path / "run" / "1").mkdir(parents=True)
    (tmp_path / "run" / "1" / "stderr.log").write_text("0.1 s a step\nerror: no memory\n")
    if isinstance(expected, int):
        assert launch._exit_code(failed(tmp_path, **codes), tmp_path) == expected
        return
    with pytest.raises(RunError, match=expected):
        launch._exit_code(failed(tmp_path, **codes), tmp_path)


def test_ranks_are_started_once(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run_command([*BASE, "--budget", "2steps", "--out", str(tmp_path / "r"), *TWO]) == 2
    assert capsys.readouterr().err == (
        "error: --devices starts the processes itself: drop it under torchrun, or drop torchrun\n"
    )


def test_there_are_as_many_gpus_as_asked_for(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(launch, "choose_device", lambda name: "cuda:0")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert run_command([*BASE, "--budget", "2steps", "--out", str(tmp_path / "r"), *TWO]) == 2
    assert capsys.readouterr().err == "error: --devices 2: torch sees 1 GPU(s); see `harness doctor`\n"
