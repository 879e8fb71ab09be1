"""`harness claims run`: sealed runs, gone on with, and a seal that breaks when the claim is changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from record_factory import make_record

from harness.claims.running import PlannedRun, make_runs, planned_runs
from harness.claims.schema import read_claims
from harness.claims.sealing import hash_claim, make_seal
from harness.cli import run_command
from harness.errors import RunError, UsageError
from harness.record_lock import hold_folder
from harness.records.native import read_record

RUN = "--method dense --preset tiny --budget 1steps --tokenizer bytes --data synthetic"


def content(**changes: Any) -> dict[str, Any]:
    claim = {
        "id": "C1",
        "statement": "it learns",
        "plan": {"arguments": [RUN], "seeds": 2},
        "predicates": [{"says": "p", "holds_if": 'mean("dense/tiny", "val_bpb") < limit + margin'}],
    }
    return {
        "schema": 1,
        "source": {"id": "them", "title": "T", "url": "https://example.org", "date": "2026-01-01"},
        "facts": {"limit": {"value": "9.0", "where": "here"}},
        "margins": {"margin": {"value": "0.5", "reason": "r"}},
        "claims": [{**claim, **changes}],
    }


def write(folder: Path, value: dict[str, Any]) -> Path:
    path = folder / "mine.toml"
    path.write_text(tomli_w.dumps(value))
    return path


def test_runs_are_sealed_and_a_changed_claim_makes_them_exploratory(small_text: str, tmp_path: Path, capsys) -> None:
    plan = {"arguments": [RUN.replace("synthetic", small_text)], "seeds": 2}
    path, out = write(tmp_path, content(plan=plan)), tmp_path / "runs"
    arguments = ["claims", "run", f"{path}#C1", "--out", str(out)]
    assert run_command([*arguments, "--list"]) == 0
    assert capsys.readouterr().out.count("missing  harness run --method dense") == 2
    assert run_command(arguments) == 0
    record = read_record(out / "them.C1" / "run0-seed1")
    loaded = read_claims(path)
    assert record.seed == 1
    assert record.seal is not None
    assert record.seal.model_dump() == {
        "claim": "them.C1",
        "sha256": hash_claim(loaded, loaded.content.claims[0]),
        "margins": {"margin": "0.5"},
        "num_seeds": 2,
        "stopping": "1steps",
        "also": {},
    }
    made = (out / "them.C1" / "run0-seed0" / "record.json").stat().st_mtime_ns
    assert run_command(arguments) == 0  # nothing is repeated
    assert (out / "them.C1" / "run0-seed0" / "record.json").stat().st_mtime_ns == made
    capsys.readouterr()

    def standing() -> str:
        run_command(["claims", "check", str(path), "--records", str(out), "--format", "json"])
        return json.loads(capsys.readouterr().out)["claims"][0]["standing"]

    assert standing() == "sealed"
    write(tmp_path, content(plan=plan, statement="other words", remark="more words"))
    assert standing() == "sealed"
    write(tmp_path, {**content(plan=plan), "margins": {"margin": {"value": "0.6", "reason": "r"}}})
    assert standing() == "exploratory"


def with_two_claims(**plan: Any) -> dict[str, Any]:
    value = content(plan={"arguments": [RUN], **plan})
    other = {"id": "C2", "statement": "s", "predicates": [{"says": "p", "holds_if": "1 < far"}]}
    margins = {**value["margins"], "far": {"value": "2", "reason": "r"}}
    return {**value, "margins": margins, "claims": [*value["claims"], other]}


def test_runs_are_sealed_for_every_claim_that_they_are_to_decide(tmp_path: Path) -> None:
    loaded = read_claims(write(tmp_path, with_two_claims(also=["C2"])))
    first, second = loaded.content.claims
    seal = make_seal(loaded, first, stopping="1steps")
    assert (seal.claim, seal.sha256) == ("them.C1", hash_claim(loaded, first))
    assert seal.also == {"them.C2": hash_claim(loaded, second)}
    assert seal.margins == {"margin": "0.5", "far": "2"}


@pytest.mark.parametrize("also", ["C1", "C3"])
def test_runs_are_sealed_for_other_claims_of_the_file_only(also: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"claim C1, plan.also: {also} is no other claim of this file"):
        read_claims(write(tmp_path, with_two_claims(also=[also])))


def test_each_seed_may_have_a_model_of_its_own(tmp_path: Path) -> None:
    loaded = read_claims(write(tmp_path, with_two_claims(arguments=["--model 'my models/m{seed}'"], seeds=2)))
    runs = list(planned_runs(loaded, loaded.content.claims[0], "them.C1", tmp_path, None))
    assert [run.command[4:8] for run in runs] == [
        ["--model", f"my models/m{seed}", "--seed", f"{seed}"] for seed in (0, 1)
    ]


@pytest.mark.parametrize("arguments", ["--method dense --seed 3", "--method dense --out=x", "--method 'dense"])
def test_what_the_plan_sets_itself_is_refused_in_it(arguments: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"claims.0.plan.arguments: .*(leave it out|No closing quotation)"):
        read_claims(write(tmp_path, content(plan={"arguments": [arguments]})))


def test_wrong_names_and_claims_without_a_plan(tmp_path: Path, capsys) -> None:
    assert run_command(["claims", "run", "mpo.C99"]) == 2
    assert "no claim 'mpo.C99'. Did you mean 'mpo.C9'" in " ".join(capsys.readouterr().err.split())
    assert run_command(["claims", "run", "mpo.C1"]) == 2
    assert "mpo.C1 has no plan of runs" in capsys.readouterr().err
    assert run_command(["run", "--method", "dense", "--preset", "tiny", "--budget", "1steps", "--claim", "x#C1"]) == 2
    assert "no such file" in capsys.readouterr().err


def test_a_record_of_another_line_of_the_plan_is_no_run_of_it(tmp_path: Path, capsys) -> None:
    make_record(tmp_path / "runs" / "them.C1" / "run0-seed0", 0)
    plan = {"arguments": [RUN.replace("--preset tiny", "--preset small")], "seeds": 1}
    path = write(tmp_path, content(plan=plan))
    assert run_command(["claims", "run", f"{path}#C1", "--list", "--out", str(tmp_path / "runs")]) == 2
    assert "dense/tiny, and the plan has `--method dense --preset small" in " ".join(capsys.readouterr().err.split())


def test_options_before_the_command_are_refused(capsys) -> None:
    assert run_command(["claims", "--format", "json", "show", "legendre.A1"]) == 2
    assert "stand after the command: harness claims show" in " ".join(capsys.readouterr().err.split())


def test_a_failed_run_is_named(tmp_path: Path, capsys) -> None:
    path = write(tmp_path, content(plan={"arguments": [f"{RUN} --set width=7"]}))
    assert run_command(["claims", "run", f"{path}#C1", "--out", str(tmp_path / "runs")]) == 4
    assert "run0-seed0: the run ended with exit code 2" in " ".join(capsys.readouterr().err.split())


def test_what_a_run_left_that_was_killed_before_its_record_is_taken_away(tmp_path: Path) -> None:
    folder = tmp_path / "run0-seed0"
    # as `harness run --out` does, which takes an empty folder only
    takes_empty = "import os, sys; sys.exit(2 if os.path.exists(sys.argv[1]) and os.listdir(sys.argv[1]) else 0)"
    run = PlannedRun([sys.executable, "-c", takes_empty, str(folder)], folder, False)
    folder.mkdir()
    for name in ("config.toml", ".lock", ".record.json.123.tmp"):
        (folder / name).write_text("1")
    with hold_folder(folder), pytest.raises(UsageError, match="is being written by another process"):
        make_runs([run])
    assert (folder / "config.toml").is_file()
    (folder / "notes.txt").write_text("somebody's")
    with pytest.raises(RunError, match="exit code 2"):
        make_runs([run])
    assert (folder / "notes.txt").is_file()
    (folder / "notes.txt").unlink()
    make_runs([run])
    assert not folder.exists()


def test_an_interrupted_run_closes_its_record(small_text: str, tmp_path: Path) -> None:
    plan = {"arguments": [RUN.replace("synthetic", small_text).replace("1steps", "100000steps")], "seeds": 2}
    path, folder = write(tmp_path, content(plan=plan)), tmp_path / "runs" / "them.C1" / "run0-seed0"
    command = [sys.executable, "-m", "harness", "claims", "run", f"{path}#C1", "--out", str(tmp_path / "runs")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (log := folder / "log.jsonl").exists() or b'"step"' not in log.read_bytes():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert read_record(folder).status == "interrupted"


def test_a_claim_of_any_file_is_shown(tmp_path: Path, capsys) -> None:
    path = write(tmp_path, content())
    assert run_command(["claims", "show", f"{path}#C1", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "them.C1"
