"""Levels evaluate and retrain, with a scorer and a trainer made of plain numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from record_factory import edit_scores, make_record, put

from harness.errors import ArtifactError, DataError, RunError, missing_extra
from harness.records.native import read_record
from harness.records.schema import Record
from harness.records.scores import read_scores
from harness.verify.across import make_peer
from harness.verify.case import NativeCase
from harness.verify.findings import Finding
from harness.verify.replay import Replay, Rescored
from harness.verify.rules import load_rules
from harness.verify.static import CHECKS, Examiner, examine

Spoil = Callable[[Rescored], Rescored]


def honest_score(folder: Path, record: Record) -> Rescored:
    """What an honest machine measures: the numbers of the untouched record."""
    assert record.metrics.test is not None and record.params is not None
    return Rescored(
        metrics=record.metrics.test.model_dump(exclude={"eval_mode", "partial"}),
        block_nats=read_scores(folder).block_nats,
        manifest=record.data.model_dump(mode="json"),
        params={"effective": record.params.effective, "active": record.params.active},
        params_by_part=record.params.parts,
    )


def take(folder: Path, level: str, **options: Any) -> dict[str, Finding]:
    """Examine a record at the static level and then at one other, and return that one's findings by rule."""
    book, examiner, case = load_rules(), Examiner(), NativeCase(folder, str(folder))
    list(examine(case, book.of_level("static"), CHECKS, examiner))
    findings = list(examine(case, book.of_level(level), Replay(**options).checks(), examiner))
    assert examiner.errors == []
    assert len(findings) == len(book.of_level(level))
    return {finding.rule: finding for finding in findings}


def others(findings: dict[str, Finding]) -> dict[str, str]:
    return {rule: finding.status for rule, finding in findings.items() if finding.status != "pass"}


def metric(name: str, change: float) -> Spoil:
    return lambda found: replace(found, metrics={**found.metrics, name: found.metrics[name] + change})


def manifest(key: str, value: str) -> Spoil:
    return lambda found: replace(found, manifest={**found.manifest, key: value})


def block(index: int, change: float) -> Spoil:
    def spoil(found: Rescored) -> Rescored:
        nats = found.block_nats.copy()
        nats[index] += change
        return replace(found, block_nats=nats)

    return spoil


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_record(tmp_path / "record")


@pytest.mark.parametrize(
    ("rule", "spoil"),
    [
        ("V1", manifest("corpus_sha256", "1" * 64)),
        ("V1", manifest("tokenizer", "gone")),
        ("V2", metric("val_bpb", 3e-4)),
        ("V2", metric("loss_nats", -1e-3)),
        ("V2", metric("token_accuracy", 1e-3)),
        ("V2", metric("total_nats", 1.0)),
        ("V2", metric("num_tokens", 1)),
        ("V2", metric("num_bytes", -1)),
        ("V3", block(2, 0.5)),
        ("V3", lambda found: replace(found, block_nats=found.block_nats[:-1])),
        ("V4", lambda found: replace(found, params={"effective": 41, "active": 30})),
        ("V4", lambda found: replace(found, params_by_part={"blocks": 11})),
    ],
)
def test_one_difference_fails_one_rule(rule: str, spoil: Spoil, folder: Path) -> None:
    findings = take(folder, "evaluate", score=lambda *args: spoil(honest_score(*args)))
    failed = {name for name, status in others(findings).items() if status == "fail"}
    assert failed == {rule}
    assert {name for name, status in others(findings).items() if status == "unverifiable"} == (
        {"V2", "V3"} if rule == "V1" else set()
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: found,
        metric("val_bpb", 1.9e-4),  # another machine's order of summation moves far less
        metric("token_accuracy", -4e-4),
        metric("perplexity", 1.0),  # follows from the loss, which is compared
        block(2, 0.15),
        manifest("name", "text:elsewhere"),
    ],
)
def test_another_machine_passes(spoil: Spoil, folder: Path) -> None:
    assert others(take(folder, "evaluate", score=lambda *args: spoil(honest_score(*args)))) == {}


def test_score_is_made_once(folder: Path) -> None:
    calls: list[Path] = []

    def score(path: Path, record: Record) -> Rescored:
        calls.append(path)
        return honest_score(path, record)

    take(folder, "evaluate", score=score)
    assert calls == [folder]


@pytest.mark.parametrize("error", [DataError("no such text here"), missing_extra("scoring", "train")])
def test_what_cannot_be_done_here_is_unverifiable(error: Exception, folder: Path) -> None:
    def score(path: Path, record: Record) -> Rescored:
        raise error

    findings = take(folder, "evaluate", score=score)
    assert set(others(findings).values()) == {"unverifiable"}
    assert findings["V2"].message == str(error)


def test_artifact_that_makes_no_model_fails(folder: Path) -> None:
    def score(path: Path, record: Record) -> Rescored:
        raise ArtifactError("tensor head is missing")

    findings = take(folder, "evaluate", score=score)
    assert others(findings) == {"V1": "unverifiable", "V2": "fail", "V3": "unverifiable", "V4": "unverifiable"}


def test_claim_convicted_before_is_told_what_is_true(folder: Path) -> None:
    truth = honest_score(folder, read_record(folder))
    put("metrics.test.val_bpb", 1.5)(folder)
    findings = take(folder, "evaluate", score=lambda *args: truth)
    assert others(findings) == {"V2": "note"}
    assert "the claim failed M2 already" in findings["V2"].message
    assert findings["V2"].measured == pytest.approx(truth.metrics["val_bpb"])


def test_altered_scores_are_not_used(folder: Path) -> None:
    edit_scores(lambda arrays: arrays["block_nats"].__setitem__(0, 1.0))(folder)
    findings = take(folder, "evaluate", score=honest_score)
    assert others(findings) == {"V3": "unverifiable"}
    assert findings["V3"].message == "because M1 failed (totals)"


# Retraining


def run_again(change: Callable[[dict[str, Any]], None] = lambda fields: None) -> Any:
    def retrain(folder: Path, record: Record, seed: int) -> Record:
        fields = {**record.to_json(), "seed": seed}
        change(fields)
        return Record.model_validate(fields)

    return retrain


def shift(bpb: float) -> Any:
    def change(fields: dict[str, Any]) -> None:
        fields["metrics"]["test"]["val_bpb"] += bpb
        fields["artifact"]["sha256"] = "1" * 64
        fields["method"]["code_sha256"] = "2" * 64

    return run_again(change)


@pytest.mark.parametrize(("bpb", "status"), [(0.0, None), (0.019, None), (-0.021, "fail"), (0.021, "fail")])
def test_single_seed_has_a_fixed_margin(bpb: float, status: str | None, folder: Path) -> None:
    findings = take(folder, "retrain", score=honest_score, retrain=shift(bpb), fresh_seed=11)
    assert others(findings) == ({} if status is None else {"R1": status})


def test_siblings_give_the_interval(tmp_path: Path) -> None:
    """Four seeds: half width t(0.995, 3) * s * sqrt(1 + 1/4), with t = 5.8409 from the printed tables."""
    cases = [NativeCase(make_record(tmp_path / f"s{seed}", seed=seed), f"s{seed}") for seed in range(4)]
    peers = [peer for case in cases if (peer := make_peer(case))]
    scores = [peer.score.val_bpb for peer in peers]
    mean = sum(scores) / 4
    deviation = (sum((score - mean) ** 2 for score in scores) / 3) ** 0.5
    half_width = 5.8409 * deviation * 1.25**0.5
    for factor, status in [(0.999, {}), (1.001, {"R1": "fail"})]:
        bpb = mean + factor * half_width - scores[2]
        findings = take(tmp_path / "s2", "retrain", score=honest_score, retrain=shift(bpb), fresh_seed=9, peers=peers)
        assert others(findings) == status
        assert "prediction interval of 4 seeds" in findings["R1"].message


def test_same_seed_gives_the_same_bytes(folder: Path) -> None:
    assert others(take(folder, "retrain", score=honest_score, retrain=run_again())) == {}

    def other_bytes(fields: dict[str, Any]) -> None:
        fields["artifact"]["sha256"] = "1" * 64

    findings = take(folder, "retrain", score=honest_score, retrain=run_again(other_bytes))
    assert others(findings) == {"R2": "fail"}
    findings = take(folder, "retrain", score=honest_score, retrain=shift(0.0))
    assert others(findings) == {"R2": "note"}  # other code: other bytes are no contradiction
    assert "unlike: code" in findings["R2"].message


def test_training_that_cannot_be_done_is_unverifiable(folder: Path) -> None:
    def retrain(path: Path, record: Record, seed: int) -> Record:
        raise RunError("out of memory")

    findings = take(folder, "retrain", score=honest_score, retrain=retrain)
    assert others(findings) == {"R1": "unverifiable", "R2": "unverifiable"}
    assert others(take(folder, "retrain", score=honest_score)) == {"R1": "unverifiable", "R2": "unverifiable"}
