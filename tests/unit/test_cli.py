"""The command line: output and exit code of every command, right use and wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.cli import run_command


@pytest.fixture(scope="module")
def records(small_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished records of two methods."""
    root = tmp_path_factory.mktemp("records")
    for method in ("dense", "legendre"):
        arguments = ["run", "--method", method, "--preset", "tiny", "--budget", "5steps", "--device", "cpu"]
        data = ["--data", small_text, "--tokenizer", "bytes"]
        assert run_command([*arguments, *data, "--out", str(root / method)]) == 0
    return root


def copy_record(folder: Path, copy: Path) -> Path:
    return Path(shutil.copytree(folder, copy))


def edit_record(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads((folder / "record.json").read_text())
    edit(record)
    (folder / "record.json").write_text(json.dumps(record))


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


def read_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """Run a command that must succeed and read its output as one JSON document."""
    assert run_command([*map(str, arguments), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_show_as_json_is_a_list_of_the_records(records: Path, capsys) -> None:
    expected = [
        {"folder": str(records / name)} | json.loads((records / name / "record.json").read_text())
        for name in ("dense", "legendre")
    ]
    assert read_json(capsys, "show", records) == expected
    assert read_json(capsys, "show", records / "dense") == expected[:1]


def test_evaluate_puts_random_windows_beside_the_whole_split(records: Path, capsys) -> None:
    (document,) = read_json(capsys, "evaluate", records / "dense", "--samples", "3x2", "--sample-seed", "4")
    sampled = document["sampled"]
    exact = json.loads((records / "dense" / "record.json").read_text())["metrics"]["test"]
    assert sampled["num_tokens"] == 3 * 2 * exact["eval_mode"]["context"]
    assert abs(sampled["loss_nats"] - exact["loss_nats"]) < 6 * sampled["loss_nats_se"] + 0.1
    assert read_json(capsys, "evaluate", records / "dense", "--samples", "3x2", "--sample-seed", "4") == [document]
    assert run_command(["evaluate", str(records / "dense"), "--samples", "twenty"]) == 2
    assert "write it as batches x windows" in capsys.readouterr().err


def test_diff_pairs_the_blocks(records: Path, capsys) -> None:
    document = read_json(capsys, "diff", records / "dense", records / "legendre")
    a, b = (json.loads((records / name / "record.json").read_text()) for name in ("dense", "legendre"))
    fields = {entry["field"]: entry for entry in document["fields"]}
    sizes = [record["artifact"]["artifact_bytes"] for record in (a, b)]
    assert fields["artifact.artifact_bytes"] == {
        "field": "artifact.artifact_bytes",
        "a": sizes[0],
        "b": sizes[1],
        "delta": sizes[1] - sizes[0],
    }
    expected = b["metrics"]["test"]["val_bpb"] - a["metrics"]["test"]["val_bpb"]
    assert document["paired"]["difference"] == pytest.approx(expected, abs=1e-9)
    assert document["paired"]["low"] < expected < document["paired"]["high"]


def test_diff_says_why_scores_are_not_paired(records: Path, tmp_path: Path, capsys) -> None:
    copy = copy_record(records / "dense", tmp_path / "copy")
    edit_record(copy, lambda record: record["metrics"]["test"]["eval_mode"].update(stride=64))
    document = read_json(capsys, "diff", records / "dense", copy)
    assert "eval modes differ" in document["paired"]["not_made"]


def test_diff_takes_one_record_a_side(records: Path, capsys) -> None:
    assert run_command(["diff", str(records), str(records / "dense")]) == 2
    assert "holds 2 records" in last_error(capsys)


def test_inspect_adds_up(records: Path, capsys) -> None:
    path = records / "dense" / "artifact.bin"
    document = read_json(capsys, "inspect", path)
    assert document["file_bytes"] == path.stat().st_size == sum(document["bytes_by_part"].values())
    assert document["num_params_stored"] == sum(row["num_stored"] for row in document["rows"])


def test_lists_as_json_keep_their_numbers(capsys) -> None:
    methods = {method["name"]: method for method in read_json(capsys, "methods")}
    assert "tiny" in methods["legendre"]["presets"]
    sources = {source["name"]: source for source in read_json(capsys, "data", "list")}
    assert sources["shakespeare"]["num_bytes"] == 5_057_198
    assert sources["synthetic"]["is_cached"] is True
    assert {line["status"] for line in read_json(capsys, "doctor")} <= {"pass", "note"}


def test_schema_is_that_of_the_records(capsys) -> None:
    assert run_command(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"metrics", "artifact", "budget"} <= schema["properties"].keys()


def test_seeds_beyond_64_bits_are_refused(capsys) -> None:
    assert run_command(["run", "--method", "dense", "--budget", "2m", "--seed", str(2**63)]) == 2
    assert "--seed" in last_error(capsys)


def test_resume_refuses_every_option_it_would_drop(capsys) -> None:
    given = ["--seed", "0", "--max-artifact-bytes", "9", "--set", "train.seed=1", "--data", "synthetic"]
    assert run_command(["run", "--resume", "nowhere", "--device", "cpu", "--data-dir", ".", *given]) == 2
    error = last_error(capsys)
    dropped = error.partition("drop ")[2].split(", ")
    assert set(dropped) == {"--seed", "--max-artifact-bytes", "--set", "--data"}


def test_run_without_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("harness.provenance.has_module", lambda name: name != "torch")
    assert run_command(["run", "--method", "dense", "--budget", "2m"]) == 2
    assert "pip install 'claims-harness[train]'" in last_error(capsys)


@pytest.mark.parametrize("output_format", ["table", "json", "markdown"])
def test_a_reader_that_leaves_is_no_error(output_format: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "harness", "methods", "--format", output_format]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_verify_passes_and_fails_with_the_right_code(records: Path, tmp_path: Path, capsys) -> None:
    assert run_command(["verify", str(records), "--level", "decode"]) == 0
    assert "FAIL" not in capsys.readouterr().out
    copy = copy_record(records / "dense", tmp_path / "copy")

    def improve(record: dict[str, Any]) -> None:
        record["metrics"]["test"]["val_bpb"] -= 0.1

    edit_record(copy, improve)
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


@pytest.mark.parametrize(
    "arguments", [["--help"], ["methods"], ["verify", "--help"], ["show", "--help"], ["report", "--help"]]
)
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
    copy = copy_record(records / "dense", tmp_path / "bad\x1b[31m|name")
    run_command(["show", str(copy), str(records / "dense"), "--format", "markdown"])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\|name" in out
