"""`harness compare`: cells run, fail, are stopped and go on; what it prints; wrong use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from record_factory import make_record

from harness.cell_process import Outcome, cell_command, last_step
from harness.cli import run_command
from harness.engines import ProcessEngine
from harness.grid import Cell, Contender, Grid
from harness.records.native import read_record

BASE = ["compare", "--preset", "tiny", "--data", "synthetic", "--device", "cpu"]


def test_cells_run_fail_and_are_not_repeated(tmp_path: Path, capsys) -> None:
    out = tmp_path / "grid"
    # a width that mpo cannot split is known only when the network is built
    arguments = [*BASE, "--methods", "dense,mpo", "--budget", "2steps", "--seeds", "1", "--set", "mpo.mlp_width=67"]
    assert run_command([*arguments, "--tune", "2", "--out", str(out), "--jobs", "2", "--format", "json"]) == 4
    output = capsys.readouterr()
    found = json.loads(output.out)
    assert [each["name"] for each in found["contenders"]] == ["dense/tiny"]
    assert "mpo: layer" in found["incomplete"]["tuning/mpo-tiny/trial1"]
    assert found["incomplete"]["mpo-tiny/seed0"] == "no trial of its tuning is complete"
    assert found["winner"] is None
    assert "dense/tiny, seed 0: complete (1 of 1 complete)" in output.err
    dense, mpo = found["tuning"]
    assert (dense["num_trials"], mpo["num_trials"], mpo["best"]) == (2, 2, None)
    tried = [read_record(out / "tuning" / "dense-tiny" / f"trial{trial}") for trial in (0, 1)]
    assert dense["tune_bpb"] == {str(trial): record.metrics.tune.val_bpb for trial, record in enumerate(tried)}
    cell = read_record(out / "dense-tiny" / "seed0")
    assert cell.settings.train["matrix_lr"] == tried[dense["best"]].settings.train["matrix_lr"]
    assert cell.seed != tried[0].seed
    record = out / "dense-tiny" / "seed0" / "record.json"
    made = record.stat().st_mtime_ns
    assert run_command(["compare", "--resume", str(out), "--device", "cpu", "--format", "json"]) == 4
    assert record.stat().st_mtime_ns == made
    assert run_command(["compare", "--resume", str(out), "--show-only"]) == 0
    assert "cells that are not complete" in capsys.readouterr().out


def test_widths_match_parameters_and_the_error_is_shown(small_text: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "grid"
    arguments = [*BASE, "--methods", "dense,mpo", "--budget", "1steps", "--seeds", "1", "--out", str(out)]
    arguments += ["--data", small_text, "--tokenizer", "bytes"]
    assert run_command([*arguments, "--match", "params", "--target", "60k", "--set", "mpo.chi=2"]) == 0
    said = capsys.readouterr().out
    assert "widths that come nearest to 60,000 stored parameters" in " ".join(said.split())
    records = {name: read_record(out / f"{name}-tiny" / "seed0") for name in ("dense", "mpo")}
    assert records["dense"].params is not None
    assert records["dense"].params.stored == pytest.approx(60_000, rel=0.02)
    # a bond of 2 leaves little but the embedding to the width
    for name, record in records.items():
        assert record.params is not None
        assert f"{record.params.stored / 60_000 - 1:+.2%}" in said
        is_off = abs(record.params.stored / 60_000 - 1) > 0.02
        assert (f"not matched: {name}/tiny: stored parameters are" in " ".join(said.split())) == is_off


def test_a_stopped_grid_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "grid"
    arguments = [*BASE, "--methods", "dense,quantised", "--budget", "40steps", "--seeds", "1", "--out", str(out)]
    child = subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )
    first = out / "dense-tiny" / "seed0"
    deadline = time.monotonic() + 120
    while last_step(first) < 3 and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    assert child.wait(120) == 130
    assert read_record(first).status in ("interrupted", "complete")
    assert not (out / "quantised-tiny" / "seed0").exists()
    assert run_command(["compare", "--resume", str(out), "--device", "cpu"]) == 0
    records = [read_record(out / name / "seed0") for name in ("dense-tiny", "quantised-tiny")]
    assert [record.progress.steps for record in records] == [40, 40]


def put_record(folder: Path, seed: int, bpb: float, method: str = "dense", **fields: object) -> None:
    make_record(folder, seed)
    path = folder / "record.json"
    record = json.loads(path.read_text())
    record["metrics"]["test"]["val_bpb"] = bpb
    record["method"]["name"] = method
    record["lineage"] = []
    path.write_text(json.dumps({**record, **fields}))


def test_records_that_are_there_are_compared(tmp_path: Path, capsys) -> None:
    for seed in range(3):
        put_record(tmp_path / f"a{seed}", seed, 2.0 + 0.01 * seed)
        put_record(tmp_path / f"b{seed}", seed, 2.5 + 0.012 * seed, "mpo")
    put_record(tmp_path / "c", 0, 3.0, "mpo", settings={"model": {}, "train": {}, "export": {}})
    assert run_command(["compare", str(tmp_path), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = ["dense/tiny, 20steps", "mpo/tiny, 20steps (settings 1)", "mpo/tiny, 20steps (settings 2)"]
    assert [(each["name"], each["seeds"]) for each in found["contenders"]] == list(
        zip(names, ([0, 1, 2], [0, 1, 2], [0]), strict=True)
    )
    assert found["contenders"][0]["mean_bpb"] == pytest.approx(2.01)
    assert run_command(["compare", str(tmp_path), "--pool"]) == 2
    assert "c: seed 0 of mpo/tiny, 20steps is there already" in capsys.readouterr().err.replace("\n", " ")
    (tmp_path / "c" / "record.json").unlink()
    assert run_command(["compare", str(tmp_path), "--pool"]) == 0
    capsys.readouterr()
    assert run_command(["compare", str(tmp_path), "--seeds", "3"]) == 2
    assert "compared as they are; drop --seeds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--methods", "dense,mpo"], "needs --methods and --budget"),
        (["--methods", "dense", "--budget", "2steps"], "name at least two"),
        (["--methods", "dense,mpo", "--budget", "10m", "--match", "steps"], "--match steps needs a budget in steps"),
        (["--methods", "dense,mpo", "--budget", "10m", "--jobs", "2"], "run alone on their device"),
        (["--methods", "dense,mpo", "--budget", "2steps", "--set", "mpo.chii=3"], "no such setting"),
        (["--methods", "dense,mpo", "--budget", "2steps", "--format", "xml"], "--format xml"),
        (["--methods", "dense,mpo", "--budget", "2steps", "--engine", "raj"], "Did you mean 'ray'"),
        (["--methods", "dense,mpo", "--budget", "2steps", "--address", "auto"], "are of --engine ray"),
        (["--methods", "dense,mpo", "--budget", "2steps", "--storage", "s3://x"], "are of --engine ray"),
        (
            ["--methods", "dense,mpo", "--budget", "2steps", "--engine", "ray", "--storage", "nope://x"],
            "--storage nope://x: Protocol not known",
        ),
        (["--show-only"], "--show-only needs --resume"),
        (["--pool"], "--pool needs record folders"),
        (["nowhere"], "nowhere does not exist"),
        (["--resume", "nowhere"], "nowhere does not exist"),
        (["--resume", "nowhere", "--budget", "2steps"], "drop --budget"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(arguments: list[str], said: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["compare", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and said in error
    assert "\n" not in error
    assert not list(tmp_path.iterdir())


class Silent:
    """Hears, and says nothing."""

    def began(self, cell: Cell) -> None:
        """Say nothing."""

    def ended(self, outcome: Outcome) -> None:
        """Say nothing."""


def test_a_killed_worker_costs_only_its_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(grid: Grid, cell: Cell, **place: object) -> list[str]:
        end = "os.kill(os.getpid(), 9)" if cell.seed == 1 else "sys.exit(0 if cell else 'error: no luck')"
        return [sys.executable, "-c", f"import os, sys; cell = {cell.seed != 2}; {end}"]

    monkeypatch.setattr("harness.engines.cell_command", command)
    grid = Grid(contenders=(Contender(method="dense", preset="tiny"),), seeds=(0, 1, 2, 3), budget="5steps")
    engine = ProcessEngine(grid, num_jobs=2, device="cpu", data_dir=None)
    outcomes = engine.run(list(grid.cells(tmp_path)), Silent())
    found = {outcome.cell.seed: (outcome.exit_code, outcome.reason) for outcome in outcomes}
    assert found == {0: (0, ""), 1: (-9, "killed by signal 9"), 2: (1, "no luck"), 3: (0, "")}


def test_a_cell_is_the_command_that_anybody_would_type(tmp_path: Path) -> None:
    grid = Grid(
        contenders=(Contender(method="dense", preset="tiny"), Contender(method="mpo", preset="small")),
        seeds=(3,),
        budget="5steps",
        overrides=("mpo.chi=4",),
        tokenizer="bytes",
        parent="records/parent",
    )
    cells = list(grid.cells(tmp_path))
    words = cell_command(grid, cells[1], device="cpu", data_dir=Path("texts"))[1:]
    assert words[:4] == ["-P", "-m", "harness.worker", "run"]
    text = " ".join(words)
    for part in (
        "--method mpo --preset small --budget 5steps --data shakespeare --seed 3",
        "--tokenizer bytes --from records/parent --set mpo.chi=4 --device cpu --data-dir texts",
    ):
        assert part in text
    assert "mpo.chi" not in " ".join(cell_command(grid, cells[0], device="cpu", data_dir=None))


def test_a_cell_without_a_record_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.engines.cell_command", lambda grid, cell, **place: [sys.executable, "-c", ""])
    grid = Grid(contenders=(Contender(method="dense", preset="tiny"),), seeds=(0,), budget="5steps")
    (cell,) = grid.cells(tmp_path)
    cell.folder.mkdir(parents=True)
    (cell.folder / "config.toml").write_text("cut of")
    ProcessEngine(grid, num_jobs=1, device="cpu", data_dir=None).run([cell], Silent())
    assert not cell.folder.exists()


def test_a_worker_stops_when_its_parent_is_gone(tmp_path: Path) -> None:
    words = ["-P", "-m", "harness.worker", "run", "--method", "dense", "--preset", "tiny", "--data", "synthetic"]
    child = subprocess.Popen(
        [sys.executable, *words, "--budget", "3000steps", "--device", "cpu", "--out", str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while last_step(tmp_path / "run") < 2 and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.05)
    child.stdin.close()  # as the kernel does when the process that holds it dies
    assert child.wait(60) == 130
    assert read_record(tmp_path / "run").status == "interrupted"


def test_trials_are_no_seeds(tmp_path: Path, capsys) -> None:
    put_record(tmp_path / "grid" / "a", 0, 2.0)
    put_record(tmp_path / "grid" / "tuning" / "dense-tiny" / "trial0", 1_000_003, 1.9)
    (tmp_path / "grid" / "grid.json").write_text("{}")
    assert run_command(["compare", str(tmp_path / "grid"), "--format", "json"]) == 0
    assert [each["seeds"] for each in json.loads(capsys.readouterr().out)["contenders"]] == [[0]]


def test_the_last_step_of_a_growing_log(tmp_path: Path) -> None:
    assert last_step(tmp_path) == 0
    log = tmp_path / "log.jsonl"
    log.write_text('{"event": "step", "step": 7}\n{"event": "eval"}\n{"event": "step", "st')
    assert last_step(tmp_path) == 7
