"""The search as a command: one ranking, whatever the workers and after a kill; the test split; wrong use."""

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

from harness.data.shards import TokenData
from harness.records.logs import read_log
from methods.generator_search import search
from methods.generator_search.parsing import parse
from methods.generator_search.trial import Bench, Trial, run_trial

TINY = [
    *("width=16", "num_layers=2", "num_heads=2", "num_kv_heads=2", "mlp_width=32", "expression=low_rank(2)"),
    *("train.context=16", "train.batch_tokens=64", "train.micro_batch_tokens=64"),
]


def arguments(text: str, out: Path, *more: str) -> list[str]:
    sets = [word for override in TINY for word in ("--set", override)]
    sizes = ["--budget", "26steps", "--rung-steps", "1", "--rungs", "3", "--tune-targets", "500"]
    return ["--ratio", "4", "--data", text, "--tokenizer", "bytes", *sizes, *sets, "--out", str(out), *more]


def ranking(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "ranking.json").read_text())
    return found


@pytest.fixture(scope="module")
def searched(small_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("search") / "straight"
    assert search.main(arguments(small_text, out)) == 0
    return out


def test_candidates_are_within_two_per_cent_and_within_the_budget(searched: Path) -> None:
    found = ranking(searched)
    # 8 * 1 + 2 * 3 + 1 * 9 = 23 of 26 steps
    assert found["num_candidates"] == [8, 2, 1]
    assert found["tokens"] == 23 * 64
    # two layers of four 16 x 16 and two 32 x 16 matrices
    assert found["dense_params"] == 2 * (4 * 256 + 2 * 512)
    assert found["expression_params"] == 1024
    assert len(found["ranking"]) == 8
    for each in found["ranking"]:
        assert each["expression_params"] == pytest.approx(1024, rel=0.02)
        assert parse(each["expression"]).text == each["expression"]
    assert [each["rung"] for each in found["ranking"]] == [2, 1, *[0] * 6]


def test_the_winner_has_a_record_that_opened_the_test_split_once(searched: Path) -> None:
    (winner,) = ranking(searched)["winners"]
    assert winner["expression"] == ranking(searched)["ranking"][0]["expression"]
    log = read_log(searched / winner["folder"])
    assert log.count("test_open") == 1
    assert log.last("end") is not None
    assert log.last("start", seed=1) is not None  # of no trial
    assert read_log(searched).count("test_open") == 0
    assert read_log(searched).count("trial") == 8 + 2 + 1


def test_the_search_itself_never_opens_the_test_split(
    small_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: TokenData, purpose: str) -> None:
        raise AssertionError("the test split was opened")

    monkeypatch.setattr(TokenData, "open_test", refuse)
    assert search.main(arguments(small_text, tmp_path / "out", "--winners", "0", "--budget", "13steps")) == 0


def test_with_two_workers_killed_and_started_again_it_gives_the_ranking_of_one(
    searched: Path, small_text: str, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "methods.generator_search.search"]
    child = subprocess.Popen(
        [*command, *arguments(small_text, out, "--workers", "2")], stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        while not (out / "log.jsonl").exists() or (out / "log.jsonl").read_bytes().count(b"\n") < 4:
            assert child.poll() is None, child.stderr and child.stderr.read()
            time.sleep(0.05)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    before = read_log(out).count("trial") if (out / "log.jsonl").read_bytes().endswith(b"\n") else 0
    assert before < 8 + 2 + 1
    with (out / "log.jsonl").open("ab") as log:
        log.write(b'{"event": "trial", "expr')  # what a kill in the middle of a line leaves
    assert search.main(arguments(small_text, out, "--workers", "2", "--winners", "0")) == 0
    assert ranking(out)["ranking"] == ranking(searched)["ranking"]
    assert read_log(out).count("trial") == 8 + 2 + 1


def test_a_finished_search_trains_nothing_again(
    searched: Path, small_text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (searched / "log.jsonl").read_bytes()
    assert search.main(arguments(small_text, searched)) == 0
    assert (searched / "log.jsonl").read_bytes() == before
    shown = capsys.readouterr().out
    assert "4 times fewer parameters (blocks): 8 expressions in 11 trainings, 1,472 tokens" in shown
    assert f"{ranking(searched)['winners'][0]['test_bpb']:.4f}" in shown


def test_a_training_that_fails_is_a_result(small_text: str) -> None:
    bench = Bench(
        preset="tiny",
        overrides=(*TINY, "train.embedding_lr=1e38", "train.scalar_lr=1e38"),
        data=small_text,
        tokenizer="bytes",
        data_dir=None,
        seed=0,
        tune_targets=100,
    )
    result = run_trial(bench, Trial(expression="low_rank(2)", num_steps=3))
    assert result.tune_bpb is None
    assert "the loss is nan at step" in result.failure


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--ratio", "0.5"], "--ratio 0.5: give a number from 1 on"),
        (["--ratio", "2000"], "are left"),
        (["--of", "model", "--ratio", "9"], "what no expression generates (embedding, gains, scales)"),
        (["--budget", "3steps"], "one candidate takes 13 on 3 rungs"),
        (["--budget", "10s"], "give steps or tokens"),
        (["--workers", "0"], "--workers and --tune-targets are at least 1"),
        (["--set", "widht=3"], "Did you mean 'width'"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    more: list[str], said: str, small_text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search.main(arguments(small_text, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_folder_of_another_search_is_refused(
    searched: Path, small_text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search.main(arguments(small_text, searched, "--ratio", "5")) == 2
    assert "holds a search with ratio = 4.0, not 5.0; choose another --out" in capsys.readouterr().err
