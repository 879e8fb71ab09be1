"""`harness compare --sizes`: a grid a size, gone on with and shown, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.cli import run_command
from harness.compare import make_grids
from harness.errors import RecordError
from harness.ladder import LADDER_FILE, names_of, read_grids, read_ladder
from harness.records.native import read_record

BASE = ["compare", "--methods", "dense,quantised", "--preset", "tiny", "--data", "synthetic", "--device", "cpu"]
SHORT = ["--budget", "1steps", "--seeds", "2"]
ASKED = {"budget": "1steps", "num_seeds": 2}


def test_a_ladder_runs_goes_on_and_shows_the_trend(small_text: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "ladder"
    asked = [*BASE, "--data", small_text, "--tokenizer", "bytes", "--budget", "1steps", "--seeds", "1"]
    assert run_command([*asked, "--sizes", "20k,60k", "--jobs", "2", "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "dense/tiny" in said and "slope: of a doubling" in said
    assert [grid.target_params for grid in read_grids(out).values()] == [20_000, 60_000]
    stored = [read_record(out / size / "dense-tiny" / "seed0").params for size in ("20k", "60k")]
    assert [each and each.stored for each in stored] == pytest.approx([20_000, 60_000], rel=0.02)
    # a cell that is gone is run again, the others are not
    kept = out / "20k" / "dense-tiny" / "seed0" / "record.json"
    made = kept.stat().st_mtime_ns
    shutil.rmtree(out / "60k" / "quantised-tiny" / "seed0")
    assert run_command(["compare", "--resume", str(out), "--device", "cpu", "--format", "json"]) == 0
    assert kept.stat().st_mtime_ns == made
    found = json.loads(capsys.readouterr().out)
    assert list(found["sizes"]) == ["20k", "60k"]
    (trend,) = found["trends"]
    assert {trend["first"], trend["second"]} == {"dense/tiny", "quantised/tiny"}
    assert trend["num_seeds"] == 1 and trend["sizes"] == ["20k", "60k"]
    means = {
        (size, each["name"]): each["mean_bpb"] for size, view in found["sizes"].items() for each in view["contenders"]
    }
    assert trend["differences"] == pytest.approx(
        [means[size, trend["first"]] - means[size, trend["second"]] for size in ("20k", "60k")]
    )
    assert run_command(["compare", "--resume", str(out), "--show-only"]) == 0
    assert "slope" in capsys.readouterr().out
    assert run_command([*asked, "--sizes", "20k,90k", "--out", str(out)]) == 2
    assert "holds the sizes 20k,60k" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sizes", "tiny"], "name two sizes or more, each once"),
        (["--sizes", "tiny,tiny"], "name two sizes or more, each once"),
        (["--sizes", "tiny,huge"], "no preset 'huge'"),
        (["--sizes", "1.2X,3M"], "--target 1.2X: write a number"),
        (["--sizes", "tiny,small", "--match", "bytes", "--target", "1MB"], "every size matches its own"),
        (["--sizes", "tiny,small", "--methods", "dense,mpo/tiny"], "mpo/tiny names a preset of its own; drop /tiny"),
    ],
)
def test_wrong_sizes_are_said_in_a_line(arguments: list[str], said: str, tmp_path: Path, capsys) -> None:
    assert run_command([*BASE, *SHORT, "--out", str(tmp_path / "out"), *arguments]) == 2
    message = capsys.readouterr().err
    assert said in " ".join(message.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ['{"schema": 1, "sizes": ["a"]}', '{"schema": 1, "sizes": ["a", "../b"]}', "[]"])
def test_a_broken_ladder_is_said(content: str, tmp_path: Path) -> None:
    (tmp_path / LADDER_FILE).write_text(content)
    with pytest.raises(RecordError, match="ladder"):
        read_ladder(tmp_path)


def test_a_method_is_one_contender_though_its_presets_differ() -> None:
    presets = make_grids(sizes="tiny,small", preset="small", match=None, target=None, methods="dense,mpo", **ASKED)
    assert [list(names.items()) for names in names_of(list(presets.values()))] == [
        [("dense/tiny", "dense"), ("mpo/tiny", "mpo")],
        [("dense/small", "dense"), ("mpo/small", "mpo")],
    ]
    # all sizes are scored with the shortest context that one was trained for
    assert [grid.eval_context for grid in presets.values()] == [64, 64]
    numbers = make_grids(sizes="1M,2M", preset="small", match=None, target=None, methods="mpo/tiny,mpo", **ASKED)
    assert [list(names.values()) for names in names_of(list(numbers.values()))] == [["mpo/tiny", "mpo/small"]] * 2
