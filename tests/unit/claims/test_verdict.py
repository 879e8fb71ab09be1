"""Verdicts: from answers to a verdict, readings, margins, Holm, and what runs and folders say."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from golf.april import april
from record_factory import make_record, scores_of

from harness.claims.evidence import Evidence
from harness.claims.reproduction import MissingEvidenceError, Runs, figure_of
from harness.claims.schema import read_claims
from harness.claims.sealing import hash_claim
from harness.claims.verdict import Judgement, judge
from harness.cli import run_command
from harness.errors import UsageError

SOURCE = {"id": "them", "title": "T", "url": "https://example.org", "date": "2026-01-01"}


def put_runs(folder: Path, method: str, scores: Sequence[float], **changes: Any) -> None:
    """Records of one method, seeds 0, 1, ..., with block scores around `scores`."""
    for seed, bpb in enumerate(scores):
        place = folder / f"{method}-{seed}"
        make_record(place, seed)
        blocks = scores_of(0)
        noise = np.random.default_rng((seed, len(method))).uniform(-0.001, 0.001, 5)
        blocks["block_nats"] = (bpb + noise - noise.mean()) * 100 * math.log(2)
        np.savez(place / "scores.npz", **blocks)
        path = place / "record.json"
        record = json.loads(path.read_text())
        record["metrics"]["test"] |= {"val_bpb": bpb, "loss_nats": bpb * math.log(2)}
        record["method"]["name"] = method
        record["lineage"] = []
        path.write_text(json.dumps({**record, **changes}))


def write(folder: Path, *claims: dict[str, Any], facts: dict[str, str] | None = None, **more: Any) -> Path:
    path = folder / "claims.toml"
    printed = {name: {"value": value, "where": "here"} for name, value in (facts or {}).items()}
    path.write_text(tomli_w.dumps({"schema": 1, "source": SOURCE, "facts": printed, "claims": list(claims), **more}))
    return path


def claim(*expressions: str, name: str = "C1", **changes: Any) -> dict[str, Any]:
    predicates = [{"says": f"p{at}", "holds_if": text} for at, text in enumerate(expressions)]
    return {"id": name, "statement": "s", "predicates": predicates, **changes}


def judged(path: Path, runs: Path | None = None, evidence: Path | None = None) -> list[Judgement]:
    return judge(read_claims(path), Evidence(Runs([runs] if runs else []), evidence))


@pytest.mark.parametrize(
    ("expressions", "verdict"),
    [
        (["a < b", "b < 3"], "confirmed"),
        (["a < b", "b < a"], "contradicted"),
        (["a < b", "rough < 2.51"], "undecided"),
        (["b < a", "rough < 2.51"], "contradicted"),
    ],
)
def test_from_answers_to_a_verdict(expressions: list[str], verdict: str, tmp_path: Path) -> None:
    facts = {"a": "1", "b": "2", "rough": "2.5"}
    (found,) = judged(write(tmp_path, claim(*expressions), facts=facts))
    assert found.verdict == verdict
    assert found.reduced == ""


def test_what_nobody_can_check_is_unverifiable_unless_it_contradicts_itself(tmp_path: Path) -> None:
    open_claim = claim(name="A", unpublished="the weights")
    broken = claim("2 < 1", name="B", unpublished="the weights")
    fact = {"id": "E", "statement": "s", "evidence": True}
    found = judged(write(tmp_path, open_claim, broken, fact))
    assert [each.verdict for each in found] == ["unverifiable", "contradicted", "evidence"]
    assert found[0].why == "not published: the weights"


def test_a_smaller_run_never_closes_a_claim(tmp_path: Path) -> None:
    reduced = [{"says": "p", "holds_if": text, "is_reduced": True} for text in ("1 < 2", "2 < 1")]
    claims = [
        {"id": f"R{at}", "statement": "s", "scale": "27 hours", "decide": "harness run", "predicates": [each]}
        for at, each in enumerate(reduced)
    ]
    found = judged(write(tmp_path, *claims))
    assert [(each.verdict, each.reduced) for each in found] == [("undecided", "supports"), ("undecided", "opposes")]
    assert found[0].why == "not run at its scale, only smaller"


def test_each_reading_has_its_verdict_and_the_stated_one_decides(tmp_path: Path) -> None:
    predicates = [
        {"says": "block", "holds_if": "2 < 1", "reading": "block"},
        {"says": "whole", "holds_if": "1 < 2", "reading": "whole model"},
        {"says": "both", "holds_if": "3 < 4"},
    ]
    for stated, verdict in (("block", "contradicted"), ("whole model", "confirmed")):
        (found,) = judged(write(tmp_path, claim(predicates=predicates, stated_reading=stated)))
        assert found.verdict == verdict
        assert found.readings == {"block": "contradicted", "whole model": "confirmed"}


def test_evidence_at_reduced_scale_signals_for_the_stated_reading(tmp_path: Path) -> None:
    predicates = [
        {"says": "block", "holds_if": "2 < 1", "reading": "block", "is_reduced": True},
        {"says": "whole", "holds_if": "1 < 2", "reading": "whole model", "is_reduced": True},
        {"says": "both", "holds_if": "3 < 4", "is_reduced": True},
    ]
    for stated, signal in (("block", "opposes"), ("whole model", "supports")):
        (found,) = judged(
            write(tmp_path, claim(predicates=predicates, stated_reading=stated, scale="large", decide="x"))
        )
        assert (found.verdict, found.reduced) == ("undecided", signal)


def test_the_answer_at_half_and_double_the_margin(tmp_path: Path) -> None:
    margins = {"margin": {"value": "0.1", "reason": "r"}}
    (found,) = judged(write(tmp_path, claim("within(1.15, 1, margin)"), margins=margins))
    (answer,) = found.answers
    assert answer.truth is False
    assert (answer.truth_at_half_margin, answer.truth_at_double_margin) == (False, True)
    assert answer.flip_factor == pytest.approx(1.5, rel=1e-5)  # 1.15 is within 0.15 of 1


def test_a_margin_that_never_decides_and_one_that_does_by_less(tmp_path: Path) -> None:
    margins = {"margin": {"value": "0.1", "reason": "r"}}
    for text, factor in (("within(1, 1, margin)", None), ("within(1.02, 1, margin)", 0.2)):
        (found,) = judged(write(tmp_path, claim(text), margins=margins))
        assert found.answers[0].flip_factor == (factor and pytest.approx(factor, rel=1e-5))


def test_runs_of_ours(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    put_runs(runs, "dense", [2.0, 2.01, 2.02])
    put_runs(runs, "mpo", [2.1, 2.111, 2.119])
    spec = '"{}/tiny, budget=20steps"'.format
    dense, mpo = spec("dense"), spec("mpo")
    found = judged(
        write(
            tmp_path,
            claim(
                f'difference({mpo}, {dense}, "val_bpb") > 0.09', f'ratio({mpo}, {dense}, "val_bpb") < 1.06', name="A"
            ),
            claim(f'one_run({dense}, "val_bpb") == printed', f"runs({dense}) == 3", name="B"),
            claim(f'one_run({dense}, "val_bpb") == far', name="C"),
            claim(f'mean({dense}, "val_bpb") < 2.02', name="D"),
            claim('mean("pruning/tiny", "val_bpb") < 2', name="E"),
            facts={"printed": "2.03", "far": "1.2"},
        ),
        runs,
    )
    verdicts = {each.claim.id: each.verdict for each in found}
    assert verdicts == {"A": "confirmed", "B": "confirmed", "C": "contradicted", "D": "undecided", "E": "undecided"}
    assert found[4].answers[0].missing == "no complete run matches 'pruning/tiny'"
    item = found[0].answers[0].items[0]
    assert item.kind == "reproduction"
    assert item.origin == "runs: mpo-0, mpo-1, mpo-2; runs: dense-0, dense-1, dense-2"


def test_holm_asks_each_predicate_at_its_level(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    put_runs(runs, "dense", [2.0, 2.02, 2.04])
    # alone the mean is below 2.07 at 5%; beside others it has to be so at less
    near = 'mean("dense/tiny", "val_bpb") < 2.07'
    (alone,) = judged(write(tmp_path, claim(near)), runs)
    assert alone.verdict == "confirmed"
    p_value = alone.answers[0].p_value
    assert p_value is not None and 0.025 < p_value < 0.05
    others = [claim('mean("dense/tiny", "val_bpb") < 2.0201', name=f"N{at}") for at in range(3)]
    beside = judged(write(tmp_path, claim(near), *others), runs)
    assert beside[0].verdict == "undecided"
    assert beside[0].answers[0].alpha == pytest.approx(0.05 / 4)


def test_the_sampling_error_of_a_sampled_metric_counts(tmp_path: Path) -> None:
    put_runs(tmp_path, "dense", [2.0, 2.0001, 2.0002])
    runs = Runs([tmp_path])
    whole, sampled = (runs.one_run("dense/tiny", "val_bpb", tokens) for tokens in (None, 5))
    assert whole.value == sampled.value
    assert sampled.error > 2 * whole.error


def test_how_runs_are_chosen(tmp_path: Path) -> None:
    put_runs(tmp_path / "a", "dense", [2.0, 2.1])
    runs = Runs([tmp_path])
    assert list(runs.select("dense/tiny, budget=20steps, model.width=8")) == [0, 1]
    for text in ("dense/tiny, budget=1steps", "dense/tiny, model.depth=3", "dense/tiny, from=x"):
        with pytest.raises(MissingEvidenceError, match="no complete run matches"):
            runs.select(text)
    assert list(runs.select("dense/tiny, claim=")) == [0, 1]  # runs that were sealed for no claim
    with pytest.raises(MissingEvidenceError, match="no complete run matches"):
        runs.select("dense/tiny, claim=mpo.C5")
    with pytest.raises(UsageError, match="no key 'budgt'"):
        runs.select("dense/tiny, budgt=20steps")
    with pytest.raises(UsageError, match="write METHOD/PRESET"):
        runs.select("dense")
    put_runs(tmp_path / "b", "dense", [2.0])
    with pytest.raises(MissingEvidenceError, match="have one seed; say more"):
        Runs([tmp_path]).select("dense/tiny")
    assert len(Runs([tmp_path / "a", tmp_path / "b" / ".." / "a"]).select("dense/tiny")) == 2
    record = next(iter(runs.read("dense/tiny").values())).record
    with pytest.raises(UsageError, match="no figure 'val_bp'. Did you mean 'val_bpb'"):
        figure_of(record, "val_bp")


def test_numbers_in_a_folder_of_theirs(tmp_path: Path) -> None:
    folder = tmp_path / "evidence" / "run"
    folder.mkdir(parents=True)
    (folder / "submission.json").write_text('{\n "val_bpb": 1.2266,\n "bytes": {"total": 15702333}\n}')
    path = write(
        tmp_path,
        claim('field("run", "submission.json", "val_bpb") == 1.2266', name="A"),
        claim('field("run", "submission.json", "bytes.total") < 15e6', name="B"),
        claim('field("run", "submission.json", "loss") < 1', name="C"),
        claim('field("other", "submission.json", "val_bpb") < 1', name="D"),
    )
    found = judged(path, evidence=tmp_path / "evidence")
    assert [each.verdict for each in found] == ["confirmed", "contradicted", "undecided", "undecided"]
    assert found[1].answers[0].items[0].origin == "run/submission.json:3 bytes.total"
    (outside,) = judged(write(tmp_path, claim('field("..", "claims.toml", "x") < 1')), evidence=tmp_path / "evidence")
    assert "lies outside of the evidence folder" in outside.answers[0].missing


def test_what_their_folder_states_is_read_as_by_verify(tmp_path: Path) -> None:
    folder = april()
    folder.write(tmp_path / "evidence" / "run")
    summary = json.loads(folder.text("submission.json"))
    path = write(
        tmp_path,
        claim(f'stated("run", "bpb", "summary") == {summary["val_bpb"]}', name="A"),
        claim('stated("run", "bpb", "log", stage="sliding") < 1.1', name="B"),
        claim('stated("run", "params", "summary") > 1', name="C"),
        claim('stated("run", "bbp", "log") > 1', name="D"),
    )
    found = judged(path, evidence=tmp_path / "evidence")
    assert [each.verdict for each in found] == ["confirmed", "confirmed", "undecided", "undecided"]
    assert found[0].answers[0].items[0].origin.startswith("run/submission.json")
    assert "the summary states no params" in found[2].answers[0].missing
    assert "no quantity 'bbp'. Did you mean 'bpb'" in found[3].answers[0].missing


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ('mean("dense/tiny", "val_bp") < 1', "no figure 'val_bp'"),
        ("runs(5) == 1", "runs(): text is a text in quotes"),
        ('mean("dense/tiny") < 1', "mean(): missing a required argument: 'figure'"),
        ('count("dense/tiny", "trained", vocab=-5) < 1', "count(): vocab is a whole number above 0"),
        ('one_run("dense/tiny", "val_bpb", tokens=0) < 1', "one_run(): tokens is a whole number above 0"),
        ('measure("mpo.split_error", sites=5, chi=2) < 1', "KeyError: 5"),
        ('measure("legendre.legendre_condition", degree=60000, layers=60000) < 1', "degree is no number between 0"),
        ('measure("nobody.x") < 1', "measure(): no 'nobody'"),
        ('missing("what nobody has") == 1', "what nobody has"),
    ],
)
def test_a_predicate_that_cannot_be_asked_says_so_and_stops_no_other(
    expression: str, said: str, tmp_path: Path
) -> None:
    put_runs(tmp_path, "dense", [1.0, 1.1])
    wrong, right = judged(write(tmp_path, claim(expression, name="A"), claim("1 < 2", name="B")), tmp_path)
    assert (wrong.verdict, right.verdict) == ("undecided", "confirmed")
    assert said in wrong.answers[0].missing
    assert wrong.answers[0].is_wrong == (not expression.startswith("missing"))


def test_seeds_of_unlike_settings_are_not_pooled(tmp_path: Path) -> None:
    put_runs(tmp_path, "dense", [2.0, 2.1])
    path = tmp_path / "dense-1" / "record.json"
    record = json.loads(path.read_text())
    record["settings"]["model"]["width"] = 9
    path.write_text(json.dumps(record))
    with pytest.raises(MissingEvidenceError, match="dense-0 and dense-1 differ in settings, text or eval mode"):
        Runs([tmp_path]).select("dense/tiny")


def test_that_numbers_may_be_one_rejects_nothing_and_takes_no_level_from_others(tmp_path: Path) -> None:
    put_runs(tmp_path, "dense", [2.0, 2.02, 2.04])
    same = [claim('one_run("dense/tiny", "val_bpb") == exactly(printed)', name=f"S{at}") for at in range(5)]
    facts = {"printed": "2.02"}
    found = judged(write(tmp_path, *same, claim('mean("dense/tiny", "val_bpb") < 2.07'), facts=facts), tmp_path)
    assert [each.answers[0].p_value for each in found[:5]] == [1.0] * 5
    assert found[5].answers[0].alpha == pytest.approx(0.05 / 6)


def test_that_numbers_are_not_one_is_a_rejection(tmp_path: Path) -> None:
    put_runs(tmp_path, "dense", [2.0, 2.0 + 1e-9, 2.0 - 1e-9])
    unlike = 'mean("dense/tiny", "val_bpb") != 1'
    path = write(tmp_path, claim('mean("dense/tiny", "val_bpb") == 1', unlike, f"not ({unlike})"))
    (found,) = judged(path, tmp_path)
    assert [(each.truth, each.p_value) for each in found.answers] == [(False, 1e-9), (True, 1e-9), (False, 1e-9)]


def test_the_command_line(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["claims", "new", "mine.toml"]) == 0
    assert "harness claims check mine.toml" in capsys.readouterr().out
    assert run_command(["claims", "new", "mine.toml"]) == 2
    assert "is there already" in capsys.readouterr().err
    # 17.6B / 417M is 42.04 to 42.38
    template = (tmp_path / "mine.toml").read_text()
    for factor, exit_code, verdict in (("42x", 0, "confirmed"), ("43x", 1, "contradicted")):
        (tmp_path / "mine.toml").write_text(template.replace('"42x"', f'"{factor}"'))
        assert run_command(["claims", "check", "mine.toml", "--format", "json"]) == exit_code
        found = json.loads(capsys.readouterr().out)["claims"][0]
        assert (found["name"], found["verdict"]) == ("example.X1", verdict)
    assert run_command(["claims", "check", "mine.toml", "--evidence", "none"]) == 2
    assert "--evidence none: no such folder" in capsys.readouterr().err
    assert run_command(["claims", "check", "none.toml"]) == 2
    assert run_command(["claims", "schema", "--out", "claims.schema.json"]) == 0
    assert json.loads((tmp_path / "claims.schema.json").read_text())["title"] == "ClaimFile"
    capsys.readouterr()
    assert run_command(["claims", "language"]) == 0
    assert "difference(" in capsys.readouterr().out


def test_runs_that_were_sealed_for_several_claims_are_sealed_for_each(tmp_path: Path) -> None:
    path = write(tmp_path, *(claim('mean("dense/tiny", "val_bpb") < 9', name=name) for name in ("C1", "C2", "C3")))
    hashes = {f"them.{each.id}": hash_claim(read_claims(path), each) for each in read_claims(path).content.claims}
    seal = {"claim": "them.C1", "sha256": hashes["them.C1"], "margins": {}, "num_seeds": 2, "stopping": "20steps"}
    put_runs(tmp_path / "runs", "dense", [1.0, 1.1], seal={**seal, "also": {"them.C2": hashes["them.C2"]}})
    assert [each.standing for each in judged(path, tmp_path / "runs")] == ["sealed", "sealed", "exploratory"]


def test_figures_of_what_stands_beside_a_record(tmp_path: Path) -> None:
    part = {"num_params": 7, "relative_error": 0.25, "perplexity": None, "more_nats": None, "more_nats_error": None}
    rows = [{**part, "name": "SVD, by gradients", "seconds": 1.0}]
    put_runs(tmp_path, "dense", [1.0, 1.1], beside=rows)
    runs = Runs([tmp_path])
    record = runs.read("dense/tiny")[0].record
    assert figure_of(record, "beside.SVD, by gradients.relative_error") == 0.25
    assert runs.mean("dense/tiny", "beside.SVD, by gradients.num_params").value == 7
    with pytest.raises(MissingEvidenceError, match="has no perplexity of 'SVD, by gradients'"):
        figure_of(record, "beside.SVD, by gradients.perplexity")
    with pytest.raises(MissingEvidenceError, match="has no 'slicing' beside it. Known: SVD, by gradients"):
        figure_of(record, "beside.slicing.perplexity")
    with pytest.raises(UsageError, match="no figure 'error' of a way beside a record"):
        figure_of(record, "beside.slicing.error")
