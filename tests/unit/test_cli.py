"""The command line: output and exit code of every command, right use and wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import run_command


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished records of two methods."""
    root = tmp_path_factory.mktemp("records")
    for method in ("dense", "legendre"):
        arguments = [
            "run",
            "--method",
            method,
            "--preset",
            "tiny",
            "--data",
            "synthetic",
            "--budget",
            "5steps",
        ]
        assert run_command([*arguments, "--out", str(root / method), "--device", "cpu"]) == 0
    return root


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "frobnicate"),
        (["run"], "--method and --budget"),
        (["run", "--method", "legender", "--budget", "2m"], "Did you mean 'legendre'"),
        (["run", "--method", "dense", "--budget", "2m", "--preset", "smal"], "Did you mean 'small'"),
        (["run", "--method", "dense", "--budget", "2m", "--seed", "x"], "--seed"),
        (
            ["run", "--method", "dense", "--budget", "2m", "--data", "shakespear"],
            "Did you mean 'shakespeare'",
        ),
        (["run", "--method", "dense", "--budget", "2m", "--device", "tpu"], "--device tpu"),
        (["run", "--method", "dense", "--budget", "2m", "--rules", "chess"], "parameter-golf"),
        (["run", "--method", "dense", "--budget", "2m", "--max-params", "10"], "--max-params"),
        (["run", "--resume", "nowhere", "--method", "dense"], "drop --method"),
        (["show", "nowhere"], "nowhere does not exist"),
        (["inspect", "nowhere"], "is not a file"),
        (["verify", "nowhere"], "nowhere"),
        (["methods", "--format", "xml"], "--format xml"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(arguments: list[str], said: str, capsys) -> None:
    assert run_command(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert said in error
    assert "\n" not in error


def test_show_one_and_several(records: Path, capsys) -> None:
    assert run_command(["show", str(records / "dense")]) == 0
    one = capsys.readouterr().out
    assert "stored bytes by part" in one
    assert "decoder closure" in one
    assert run_command(["show", str(records), "--format", "markdown"]) == 0
    table = capsys.readouterr().out
    assert table.count("\n| ") + table.count("\n|-") + table.count("\n|:") >= 3
    assert "dense/tiny" in table
    assert "legendre/tiny" in table


def test_every_number_of_show_is_in_the_record(records: Path, capsys) -> None:
    run_command(["show", str(records / "dense"), "--format", "json"])
    shown = capsys.readouterr().out
    record = json.loads((records / "dense" / "record.json").read_text())
    assert f"{record['metrics']['test']['val_bpb']:.5f}" in shown
    assert f"{record['artifact']['artifact_bytes']:,}" in shown


def test_diff_pairs_the_blocks(records: Path, capsys) -> None:
    assert run_command(["diff", str(records / "dense"), str(records / "legendre"), "--format", "json"]) == 0
    out = capsys.readouterr().out
    assert "artifact.artifact_bytes" in out
    assert "95% interval" in out


def test_inspect_adds_up(records: Path, capsys) -> None:
    path = records / "dense" / "artifact.bin"
    assert run_command(["inspect", str(path), "--format", "json"]) == 0
    assert f"{path.stat().st_size:,}" in capsys.readouterr().out


def test_verify_passes_and_fails_with_the_right_code(records: Path, tmp_path: Path, capsys) -> None:
    assert run_command(["verify", str(records), "--level", "decode"]) == 0
    assert "FAIL" not in capsys.readouterr().out
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (records / "dense").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    record = json.loads((copy / "record.json").read_text())
    record["metrics"]["test"]["val_bpb"] -= 0.1
    (copy / "record.json").write_text(json.dumps(record))
    assert run_command(["verify", str(copy), "--format", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["summary"]["fail"] == 1


def test_verify_evaluate_scores_the_file_again(records: Path, capsys) -> None:
    assert run_command(["verify", str(records / "legendre"), "--level", "evaluate"]) == 0
    assert "FAIL" not in capsys.readouterr().out


def test_methods_data_doctor(capsys) -> None:
    assert run_command(["methods"]) == 0
    assert "legendre" in capsys.readouterr().out
    assert run_command(["data", "list"]) == 0
    assert "shakespeare" in capsys.readouterr().out
    assert run_command(["doctor"]) == 0
    assert "PASS" in capsys.readouterr().out


def test_version_and_help(capsys) -> None:
    assert run_command(["--version"]) == 0
    assert "claims-harness" in capsys.readouterr().out
    assert run_command(["run", "--help"]) == 0
    assert "--budget" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["methods"], ["verify", "--help"], ["show", "--help"]])
def test_light_commands_do_not_import_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from harness.cli import run_command; run_command(sys.argv[1:]); "
        "heavy = {'torch', 'pandas', 'scipy', 'datasets', 'matplotlib'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_verify_does_not_import_torch(records: Path) -> None:
    code = (
        "import sys; from harness.cli import run_command; code = run_command(sys.argv[1:]); "
        "sys.exit(9 if 'torch' in sys.modules else code)"
    )
    arguments = ["verify", str(records), "--level", "decode"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hostile_names_are_shown_escaped(records: Path, tmp_path: Path, capsys) -> None:
    copy = tmp_path / "bad\x1b[31m|name"
    copy.mkdir()
    for file in (records / "dense").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    run_command(["show", str(copy), str(records / "dense"), "--format", "markdown"])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\|name" in out
