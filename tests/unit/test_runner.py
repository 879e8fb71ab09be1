"""Whole runs: killed and resumed, on two ranks, interrupted, out of disk, out of numbers, out of budget."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import harness.run_stages as run_stages
from harness.cli import run_command
from harness.job import RunRequest
from harness.progress import SilentReporter
from harness.records.logs import read_log
from harness.records.native import read_record
from harness.runner import repeat_run, resume_run, start_run
from harness.training import loop
from harness.training.loop import StepReport
from harness.verify.run import verify_paths

BASE = ("run", "--method", "dense", "--preset", "tiny", "--seed", "7", "--device", "cpu")
# four micro-batches a step, so that sums over micro-batches and ranks are exercised
STEPS = ("--budget", "40steps", "--set", "batch_tokens=256", "--set", "micro_batch_tokens=64")
CHILD_ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
CHILD = """
import sys
import harness.training.loop as loop
from harness.cli import main
loop.CHECKPOINT_SECONDS = 0.0
main(sys.argv[1:])
"""


def start_child(arguments: tuple[str, ...], prefix: tuple[str, ...] = (), **more) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *prefix, "-c", CHILD, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=CHILD_ENVIRONMENT,
        **more,
    )


def wait_for_step(folder: Path, step: int, child: subprocess.Popen) -> None:
    log = folder / "log.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if log.exists() and f'"step", "step": {step},' in log.read_text():
            return
        assert child.poll() is None, child.stdout.read()
        time.sleep(0.005)
    raise AssertionError(f"no step {step} in time")


def run_here(arguments: tuple[str, ...]) -> None:
    """Run to the end in this process as `start_child` does in another; that costs no second import of torch."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
            assert run_command(list(arguments)) == 0
    finally:
        torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def base(small_text: str) -> tuple[str, ...]:
    return (*BASE, "--data", small_text, "--tokenizer", "bytes")


@pytest.fixture(scope="module")
def whole(base: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run with one compute thread, like the others."""
    folder = tmp_path_factory.mktemp("whole") / "record"
    run_here((*base, *STEPS, "--out", str(folder)))
    return folder


@pytest.mark.parametrize("kill_at", [17])
def test_killed_and_resumed_gives_the_same_file(
    whole: Path, base: tuple[str, ...], tmp_path: Path, kill_at: int
) -> None:
    folder = tmp_path / "killed"
    child = start_child((*base, *STEPS, "--out", str(folder)))
    wait_for_step(folder, kill_at, child)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert read_record(folder).status == "running"
    assert not (folder / "artifact.bin").exists()
    child = start_child(("run", "--resume", str(folder)))
    output, _ = child.communicate(timeout=300)
    assert child.returncode == 0, output
    assert (folder / "artifact.bin").read_bytes() == (whole / "artifact.bin").read_bytes()
    assert (folder / "scores.npz").read_bytes() == (whole / "scores.npz").read_bytes()
    record = read_record(folder)
    assert record.progress is not None
    assert (record.status, record.progress.steps) == ("complete", 40)
    assert not (folder / "checkpoint.pt").exists()
    assert [step.step for step in read_log(folder).steps] == list(range(1, 41))


def test_killed_before_the_first_checkpoint_starts_again(whole: Path, base: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "early"
    child = start_child((*base, *STEPS, "--out", str(folder)))
    while not (folder / "record.json").exists():
        time.sleep(0.005)
        assert child.poll() is None
    child.kill()
    child.communicate()
    assert run_command(["run", "--resume", str(folder)]) == 0
    assert (folder / "artifact.bin").stat().st_size == (whole / "artifact.bin").stat().st_size


def test_two_ranks_give_the_same_file(whole: Path, base: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "ranks"
    arguments = (*base, *STEPS, "--out", str(folder))
    child = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            "2",
            "--standalone",
            "-m",
            "harness",
        ]
        + list(arguments),
        capture_output=True,
        text=True,
        env=CHILD_ENVIRONMENT,
        timeout=300,
        check=False,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    assert (folder / "artifact.bin").read_bytes() == (whole / "artifact.bin").read_bytes()
    assert read_record(folder).environment.num_ranks == 2


@pytest.mark.parametrize(("number", "num_heard"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_a_stop_signal_leaves_a_record_that_goes_on(
    whole: Path, base: tuple[str, ...], tmp_path: Path, number: signal.Signals, num_heard: int
) -> None:
    folder = tmp_path / "stopped"
    child = start_child((*base, *STEPS, "--out", str(folder)))
    wait_for_step(folder, 5, child)
    child.send_signal(number)
    if num_heard > 1:  # the scheduler's own, then what its launcher passes on
        time.sleep(0.02)
        child.send_signal(number)
    output, _ = child.communicate(timeout=120)
    assert child.returncode == 130, output
    assert (folder / "checkpoint.pt").exists()
    assert f"harness run --resume {folder}" in output.replace("\n", "")
    assert read_record(folder).status == "interrupted"
    run_here(("run", "--resume", str(folder)))
    assert (folder / "artifact.bin").read_bytes() == (whole / "artifact.bin").read_bytes()


def test_a_loss_that_is_no_number_ends_the_run(
    base: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "nan"
    code = run_command(
        [
            *base,
            "--budget",
            "30steps",
            "--out",
            str(folder),
            "--set",
            "matrix_lr=1e30",
            "--set",
            "embedding_lr=1e30",
        ]
    )
    assert code == 4
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the loss is" in error
    assert "Lower the learning rates" in error
    record = read_record(folder)
    assert record.status == "failed"
    assert record.reason is not None
    assert "the loss is" in record.reason


def test_a_full_disk_is_one_clear_error_and_nothing_looks_finished(base: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "full"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    child = subprocess.run(
        [sys.executable, "-c", limit + CHILD, *base, "--budget", "20steps", "--out", str(folder)],
        capture_output=True,
        text=True,
        env=CHILD_ENVIRONMENT,
        timeout=300,
        check=False,
    )
    assert child.returncode == 4, child.stderr
    assert "Traceback" not in child.stderr
    assert child.stderr.strip().splitlines()[-1].startswith("error: ")
    assert read_record(folder).status == "failed"
    assert not (folder / "artifact.bin").exists()
    assert not list(folder.glob("*.tmp"))


def test_a_folder_that_cannot_be_made(
    base: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run_command([*base, "--budget", "5steps", "--out", str(tmp_path / "file" / "record")]) == 4
    assert "file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("budget", "code", "said"),
    [
        ("27x", 2, "27x"),
        ("-3m", 2, "-3m"),
        ("0", 2, "0"),
        ("10tok", 4, "too small"),
        ("1flop", 4, "too small"),
        ("0.001s", 4, "too small"),
    ],
)
def test_impossible_budgets(base: tuple[str, ...], budget: str, code: int, said: str, tmp_path: Path, capsys) -> None:
    assert run_command([*base, f"--budget={budget}", "--out", str(tmp_path / "r")]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_a_budget_of_wall_clock_seconds_is_kept(base: tuple[str, ...], tmp_path: Path) -> None:
    # few and large steps of a network that is written at once: a stall of the machine is then a part of a step
    small = ("--set", "num_layers=1", "--set", "mlp_width=16", "--set", "batch_tokens=8192")
    started = time.monotonic()
    assert run_command([*base, "--budget", "6s", "--out", str(tmp_path / "r"), *small]) == 0
    wall_seconds = time.monotonic() - started
    record = read_record(tmp_path / "r")
    assert record.progress is not None and record.progress.median_step_seconds is not None
    assert record.time is not None
    assert record.budget.stopped_by == "seconds"
    # one step or 1%; a shared machine may stall in the very last step, hence three steps here
    assert record.budget.spent.seconds <= 6.06 + 3 * record.progress.median_step_seconds
    assert record.budget.spent.seconds <= record.time.wall_seconds <= wall_seconds


@pytest.mark.parametrize(("method", "setting"), [("low_rank", "init=svd"), ("pruning", "end=1.0")])
def test_a_timed_run_is_repeated_to_the_bit(method: str, setting: str, tmp_path: Path) -> None:
    # two fits of unlike speed, and a network that changes with the progress of the clock
    request = RunRequest(
        method=method,
        preset="tiny",
        data="synthetic",
        budget="8s",
        overrides=(setting, "num_layers=1", "swa_start=-5"),
        eval_stride=64,
    )
    folder = start_run(request, reporter=SilentReporter(), out=tmp_path / "timed", device="cpu")
    assert folder is not None
    first = read_record(folder)
    again = repeat_run(folder, seed=0, out=tmp_path / "again", reporter=SilentReporter(), device="cpu")
    assert first.progress is not None and again.progress is not None
    assert again.progress.steps == first.progress.steps
    assert first.artifact is not None and again.artifact is not None
    assert again.artifact.sha256 == first.artifact.sha256


def test_a_cap_that_does_not_hold_fails_the_record(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "capped"
    synthetic = [*BASE, "--data", "synthetic", "--eval-stride", "64"]
    assert run_command([*synthetic, "--budget", "3steps", "--max-artifact-bytes", "100", "--out", str(folder)]) == 1
    assert "above the cap of 100" in capsys.readouterr().err
    assert read_record(folder).status == "complete"
    findings = {finding.rule: finding for finding in verify_paths([folder], level="decode").findings}
    assert [finding.rule for finding in findings.values() if finding.status == "fail"] == ["B4"]
    assert "the true source takes" in findings["M7"].message


def test_a_finished_record_is_not_resumed(whole: Path, capsys) -> None:
    assert run_command(["run", "--resume", str(whole)]) == 2
    assert "complete" in capsys.readouterr().err


def test_a_folder_has_one_writer(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "k1"
    child = start_child((*BASE, *STEPS, "--out", str(folder)))
    wait_for_step(folder, 2, child)
    child.send_signal(signal.SIGSTOP)
    try:
        for arguments in (("run", "--resume", str(folder)), (*BASE, *STEPS, "--out", str(folder))):
            assert run_command([*arguments]) == 2
            said = capsys.readouterr().err.strip()
            assert said == f"error: {folder} is being written by another process (pid {child.pid})"
    finally:
        child.send_signal(signal.SIGCONT)
    output, _ = child.communicate(timeout=300)
    assert child.returncode == 0, output
    assert [step.step for step in read_log(folder).steps] == list(range(1, 41))
    assert sorted(path.name for path in folder.iterdir()) == [
        "artifact.bin", "config.toml", "log.jsonl", "record.json", "scores.npz",
    ]  # fmt: skip


def test_a_folder_that_is_not_there_is_not_resumed(tmp_path: Path, capsys) -> None:
    assert run_command(["run", "--resume", str(tmp_path / "nope")]) == 2
    assert capsys.readouterr().err == f"error: --resume {tmp_path / 'nope'}: no such folder\n"


def test_an_export_slower_than_the_timed_one_is_said_and_noted(tmp_path: Path, monkeypatch, capsys) -> None:
    write = run_stages._write_artifact
    monkeypatch.setattr(run_stages, "_time_noise_export", lambda job, network: 0.1)
    monkeypatch.setattr(run_stages, "_write_artifact", lambda *args: (time.sleep(2.0), write(*args))[1])
    folder = tmp_path / "late"
    assert run_command([*BASE, "--budget", "3s", "--out", str(folder)]) == 0
    assert "above the budget; the record says so" in capsys.readouterr().err.replace("\n", " ")
    record = read_record(folder)
    assert record.budget.overrun == record.budget.spent.seconds - 3 > 0.5
    remarks = [finding for finding in verify_paths([folder]).findings if finding.status != "pass"]
    busy_machine = [("T3", "note")] if record.contended else []
    assert [(finding.rule, finding.status) for finding in remarks] == [("S3", "note"), *busy_machine]


DIES_AFTER_SCORING = """
import os
import harness.run_stages as stages
score = stages.score_in_fresh_process
stages.score_in_fresh_process = lambda request: (score(request), os.kill(os.getpid(), 9))
"""


def test_each_opening_of_the_test_split_is_on_disk_before_it_is_made(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "seen"
    arguments = [*BASE, "--budget", "3steps", "--out", str(folder)]
    code = [sys.executable, "-c", DIES_AFTER_SCORING + CHILD]
    assert subprocess.run([*code, *arguments], env=CHILD_ENVIRONMENT, check=False).returncode == -signal.SIGKILL
    assert (folder / "scores.npz").exists()
    assert read_log(folder).count("test_open") == len(read_record(folder).data.test_openings) == 1
    monkeypatch.setattr("harness.runner.train_and_export", lambda job: pytest.fail("it was trained again"))
    assert run_command(["run", "--resume", str(folder)]) == 0
    assert read_log(folder).count("test_open") == len(read_record(folder).data.test_openings) == 2
    remarks = [finding for finding in verify_paths([folder]).findings if finding.status != "pass"]
    assert [(finding.rule, finding.status) for finding in remarks] == [("D2", "note")]


def test_an_opening_survives_that_the_training_is_taken_up_again(tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    code = [sys.executable, "-c", DIES_AFTER_SCORING + CHILD]
    subprocess.run([*code, *BASE, "--budget", "3steps", "--out", str(folder)], env=CHILD_ENVIRONMENT, check=False)
    (folder / "artifact.bin").unlink()
    assert run_command(["run", "--resume", str(folder)]) == 0
    assert read_log(folder).count("test_open") == len(read_record(folder).data.test_openings) == 2
    failed = [finding.rule for finding in verify_paths([folder]).findings if finding.status == "fail"]
    assert failed == ["D2"]


class KilledError(BaseException):
    """Ends a run as a kill does: nothing is written any more."""


class Killer(SilentReporter):
    def stepped(self, report: StepReport) -> None:
        if report.step == 3:
            raise KilledError


def test_what_was_spent_before_the_first_checkpoint_stays_spent(tmp_path: Path) -> None:
    folder = tmp_path / "early"
    request = RunRequest(method="dense", preset="tiny", data="synthetic", budget="3600s")
    with pytest.raises(KilledError):
        start_run(request, reporter=Killer(), out=folder, device="cpu")
    logged = read_log(folder).steps[-1].seconds
    for _ in range(2):
        with pytest.raises(KilledError):
            resume_run(folder, reporter=Killer(), device="cpu")
        steps = read_log(folder).steps
        assert [step.step for step in steps] == [1, 2, 3]
        assert steps[0].seconds > logged
        logged = steps[-1].seconds


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("seed = 0", "seed = 1", "seed"),
        ('budget = "3600s"', 'budget = "7200s"', "budget"),
        ("matrix_lr = ", "matrix_lr = 1", "train.matrix_lr"),
        ('data = "synthetic"', 'data = "shakespeare"', "data"),
    ],
)
def test_an_edited_config_is_not_resumed(begun: Path, old: str, new: str, key: str, tmp_path: Path, capsys) -> None:
    folder = shutil.copytree(begun, tmp_path / "edited")
    config = folder / "config.toml"
    config.write_text(config.read_text().replace(old, new))
    assert run_command(["run", "--resume", str(folder), "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert f"config.toml has {key} = " in said
    assert said.count("\n") == 1


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in its third step."""
    folder = tmp_path_factory.mktemp("begun") / "record"
    request = RunRequest(method="dense", preset="tiny", data="synthetic", budget="3600s")
    with pytest.raises(KilledError):
        start_run(request, reporter=Killer(), out=folder, device="cpu")
    return folder


def test_a_model_beyond_the_memory_is_refused_before_it_is_made(tmp_path: Path, capsys) -> None:
    arguments = [*BASE, "--budget", "5steps", "--set", "width=1048576", "--out", str(tmp_path / "huge")]
    assert run_command(arguments) == 4
    said = capsys.readouterr().err
    assert "choose a smaller model than preset 'tiny'" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "huge").exists()


def test_a_model_beyond_64_bits_is_refused(tmp_path: Path, capsys) -> None:
    arguments = ["run", "--method", "dense", "--preset", "tiny", "--data", "synthetic", "--budget", "1steps"]
    out = tmp_path / "huge"
    assert run_command([*arguments, "--device", "cpu", "--out", str(out), "--set", f"width={10**15}"]) == 4
    assert "larger than any memory" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(("memory_bytes", "advice"), [(10**9, "micro_batch_tokens"), (3 * 10**6, "smaller preset")])
def test_out_of_memory_names_what_fills_it(memory_bytes: int, advice: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("harness.plan.device_memory_bytes", lambda device: memory_bytes)

    def fail(job) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("harness.runner.train_and_export", fail)
    assert run_command([*BASE, "--budget", "5steps", "--out", str(tmp_path / "full")]) == 4
    assert advice in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_text_that_never_ends_is_refused(tmp_path: Path, capsys) -> None:
    endless = [*BASE, "--data", "text:/dev/zero", "--budget", "5steps", "--out", str(tmp_path / "r")]
    assert run_command(endless) == 2
    assert capsys.readouterr().err == "error: --data text:/dev/zero: not a regular file or a folder\n"
