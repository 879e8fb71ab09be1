"""The scoring process: what crosses to it and back, what it may import, and that it does not outlive its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness import scoring
from harness.errors import ArtifactError, DataError, MissingExtraError, RunError, UsageError, missing_extra
from harness.scoring import EvalMode, ScoreRequest, error_from_json, error_to_json, score_in_fresh_process

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def request(**fields: object) -> ScoreRequest:
    given = {"artifact": "no/such/artifact.bin", "data": "synthetic", "eval_mode": EvalMode(context=8, stride=4)}
    return ScoreRequest(**given | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "slide", "context": 8, "stride": 4},
        {"context": 8, "stride": 9},
        {"context": 8, "stride": 0},
        {"mode": "challenge", "context": 8, "stride": 4},
    ],
)
def test_wrong_modes_are_refused(fields: dict) -> None:
    with pytest.raises(UsageError, match="eval"):
        EvalMode(**fields)


def test_a_request_survives_json() -> None:
    asked = request(splits=("tune", "test"), data_dir="d", scores_path="s.npz", device="cuda:0")
    assert ScoreRequest.from_json(json.loads(json.dumps(asked.to_json()))) == asked


@pytest.mark.parametrize(
    "error", [ArtifactError("a"), DataError("b"), RunError("c"), UsageError("d"), missing_extra("scoring", "train")]
)
def test_an_error_keeps_its_kind_and_text(error: Exception) -> None:
    crossed = error_from_json(json.loads(json.dumps(error_to_json(error))))
    assert (type(crossed), str(crossed)) == (type(error), str(error))


def test_an_error_of_unknown_kind_is_a_run_that_could_not_finish() -> None:
    assert type(error_from_json({"error": "odd", "kind": "PluginError"})) is RunError


def test_the_extra_is_named() -> None:
    with pytest.raises(MissingExtraError, match=r"^scoring needs .*claims-harness\[train\]'$"):
        raise missing_extra("scoring", "train")


def test_a_module_planted_in_the_current_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("argparse", "json", "torch", "harness"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nraise SystemExit(7)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match=r"artifact\.bin"):
        score_in_fresh_process(request())
    assert not (tmp_path / "ran").exists()


def test_a_child_that_dies_is_an_error_with_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false" if Path("/bin/false").exists() else "/usr/bin/false")
    with pytest.raises(RunError, match="ended with code 1: no output"):
        score_in_fresh_process(request())


def test_an_interrupted_wait_ends_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        def wait(self, timeout: float | None = None) -> int:
            if self not in children:
                children.append(self)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(scoring.subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        scoring._run_child(SLEEP, tmp_path / "said")
    assert children[0].returncode == -signal.SIGTERM


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_child_does_not_outlive_a_killed_parent(end: signal.Signals, tmp_path: Path) -> None:
    # the child hangs in opening its request, a pipe that nobody writes to
    os.mkfifo(tmp_path / "request")
    code = (
        "import sys; from pathlib import Path; from harness.scoring import _run_child\n"
        f"command = [sys.executable, '-P', '-m', 'harness.evaluate', {str(tmp_path / 'request')!r}, 'result']\n"
        f"_run_child([*command, '--with-parent'], Path({str(tmp_path / 'said')!r}))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    children = _wait_for_children(parent.pid)
    parent.send_signal(end)
    parent.wait(10)
    _, alive = psutil.wait_procs(children, timeout=30)
    for child in alive:
        child.kill()
    assert not alive


def _wait_for_children(pid: int) -> list[psutil.Process]:
    for _ in range(200):
        if children := psutil.Process(pid).children():
            return children
        time.sleep(0.05)
    raise AssertionError("no child was started")
