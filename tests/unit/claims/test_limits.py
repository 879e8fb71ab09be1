"""Predicates that give no number at another level or margin, margins that are none, numbers without end."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import tomli_w
from record_factory import make_record, put

from harness.claims.evidence import Evidence
from harness.claims.reproduction import Runs
from harness.claims.schema import read_claims
from harness.claims.verdict import Judgement, judge
from harness.cli import run_command
from harness.errors import UsageError


def write(folder: Path, *expressions: str, margin: str = "0.5") -> Path:
    predicates = [{"says": f"p{at}", "holds_if": text} for at, text in enumerate(expressions)]
    content = {
        "schema": 1,
        "source": {"id": "them", "title": "T", "url": "https://example.org", "date": "2026-01-01"},
        "margins": {"margin": {"value": margin, "reason": "r"}},
        "claims": [{"id": "C1", "statement": "s", "predicates": predicates}],
    }
    path = folder / "claims.toml"
    path.write_text(tomli_w.dumps(content))
    return path


def put_runs(folder: Path, *scores: float) -> None:
    for seed, val_bpb in enumerate(scores):
        record = make_record(folder / f"seed{seed}", seed)
        put("metrics.test.val_bpb", val_bpb)(record)
        put("lineage", [])(record)


def judged(path: Path, runs: Path | None = None) -> Judgement:
    (found,) = judge(read_claims(path), Evidence(Runs([runs] if runs else []), None))
    return found


@pytest.mark.parametrize(
    ("expression", "half", "double"),
    [
        ("1 / (margin - 0.25) > 1", None, True),
        ("exp(2000 * (margin - 0.5)) > 0.5", False, None),
        ("log(margin - 0.3) < 1", None, True),
    ],
)
def test_a_margin_that_gives_no_number_leaves_the_answer_open_there(
    expression: str, half: bool | None, double: bool | None, tmp_path: Path
) -> None:
    (answer,) = judged(write(tmp_path, expression)).answers
    assert answer.truth is True
    assert not answer.is_wrong
    assert (answer.truth_at_half_margin, answer.truth_at_double_margin) == (half, double)
    assert answer.flip_factor is not None


def test_limits_that_give_no_number_at_a_stricter_level_are_no_mistake(tmp_path: Path) -> None:
    # at the level 1e-9 the interval of two runs goes far below zero, where there is no logarithm and no division
    put_runs(tmp_path / "runs", 1.0, 1.0001)
    path = write(tmp_path, 'log(mean("dense/tiny", "val_bpb")) < 1', '1 / mean("dense/tiny", "val_bpb") > 0.5')
    found = judged(path, tmp_path / "runs")
    assert found.verdict == "confirmed"
    assert all(answer.p_value is not None and 1e-9 < answer.p_value < 0.05 for answer in found.answers)
    assert all(answer.items for answer in found.answers)


def test_runs_too_far_apart_for_a_number_leave_it_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_runs(tmp_path / "runs", 1.0, 2.0)
    path = write(tmp_path, '1 / mean("dense/tiny", "val_bpb") > 0.5')
    assert run_command(["claims", "check", str(path), "--records", str(tmp_path / "runs"), "--format", "json"]) == 0
    assert "not decided within the limits of the runs: division by a number that may be zero" in capsys.readouterr().out


def test_what_no_run_could_give_is_wrong(tmp_path: Path) -> None:
    put_runs(tmp_path / "runs", 1.0, 1.0001)
    (answer,) = judged(write(tmp_path, 'log(0 - mean("dense/tiny", "val_bpb")) < 1'), tmp_path / "runs").answers
    assert answer.is_wrong


@pytest.mark.parametrize("value", ["0", "-1%", "0.0"])
def test_a_margin_is_above_zero(value: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"margins.margin.value: .*give a number above 0"):
        read_claims(write(tmp_path, "1 < margin", margin=value))


def test_a_number_of_too_many_digits_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "claims.toml"
    path.write_text("schema = " + "9" * 5000)
    assert run_command(["claims", "check", str(path)]) == 2
    assert "claims.toml: " in capsys.readouterr().err


def test_counter_evidence_is_of_the_reading_that_was_published_and_quotes_margins(tmp_path: Path, capsys) -> None:
    path = write(tmp_path, "margin > 3", "2 < 1", "not (1 < 2 and 2 < 3) or margin > 4")
    content = tomllib.loads(path.read_text())
    claim = content["claims"][0]
    claim["stated_reading"] = "A"
    for predicate, reading in zip(claim["predicates"], "AAA", strict=True):
        predicate["reading"] = reading
    claim["predicates"].append({"says": "another", "holds_if": "margin > 5", "reading": "B"})
    path.write_text(tomli_w.dumps(content))
    assert run_command(["claims", "check", str(path), "--format", "json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["claims"]
    assert [tuple(each.values()) for each in found["counter_evidence"]] == [
        ("p0", "margin: 0.5", "margin of this file: r"),
        ("p1", "2 < 1", "the predicate"),
        ("p2", "margin: 0.5", "margin of this file: r"),
    ]


def test_margins_of_one_predicate_move_together(tmp_path: Path, capsys) -> None:
    path = write(tmp_path, "within(1, 2.5, margin) or within(3, 6, wide)")
    content = tomllib.loads(path.read_text())
    content["margins"]["wide"] = {"value": "2", "reason": "r"}
    path.write_text(tomli_w.dumps(content))
    (answer,) = judged(path).answers
    assert (answer.truth, answer.truth_at_double_margin, answer.flip_factor) == (False, True, 1.5)
    run_command(["claims", "show", f"{path}#C1", "--format", "markdown"])
    assert "no / yes; flips at margin 0.75 with wide 3" in capsys.readouterr().out
