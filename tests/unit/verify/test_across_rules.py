"""Rules that compare records: shared artifacts and curves, lineage, siblings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import record_factory
from record_factory import edit, edit_log, make_record, put, reseal, rewrite

from harness.records.native import ARTIFACT_FILE, CONFIG_FILE, RECORD_FILE, read_record
from harness.verify.across import ACROSS_CHECKS, settings_key
from harness.verify.findings import Report
from harness.verify.run import verify_paths

Build = Callable[[Path], object]


def fields_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / RECORD_FILE).read_text())


def artifact_copied(root: Path) -> None:
    """Seed 8 ships the artifact of seed 7."""
    first = make_record(root / "a", seed=7)
    make_record(
        root / "b", seed=8, artifact=(first / ARTIFACT_FILE).read_bytes(), parts=fields_of(first)["artifact"]["parts"]
    )


def run_relabelled(root: Path) -> None:
    """The whole of seed 7, called seed 9: one artifact and one curve, told once."""
    make_record(root / "a", seed=7)
    copy = make_record(root / "b", seed=7)
    put("seed", 9)(copy)
    edit_log(lambda events: events[0].update(seed=9))(copy)
    rewrite(CONFIG_FILE, lambda raw: raw.replace(b"seed = 7", b"seed = 9"), seal=True)(copy)


def curve_copied(root: Path) -> None:
    first, second = make_record(root / "a", seed=7), make_record(root / "b", seed=8)
    steps = [json.loads(line) for line in (first / "log.jsonl").read_text().splitlines()]
    end = record_factory.NUM_STEPS + 1
    edit_log(lambda events: events.__setitem__(slice(1, end), steps[1:end]))(second)


def ancestor_belittled(root: Path) -> None:
    first, second = make_record(root / "a", seed=7), make_record(root / "b", seed=8)
    fields = fields_of(first)
    spent = {**fields["budget"]["spent"], "flops": 5.0}
    put("lineage", [{"name": "a", "artifact_sha256": fields["artifact"]["sha256"], "spent": spent}])(second)


def ancestor_missing(root: Path) -> None:
    first, second = make_record(root / "a", seed=7), make_record(root / "b", seed=8)
    spent = fields_of(first)["budget"]["spent"]
    put("lineage", [{"name": "z", "artifact_sha256": "0" * 64, "spent": spent}])(second)


def one_seed_apart(root: Path) -> None:
    """Four seeds near each other; the fifth scored again with a third of the nats, everywhere."""
    for seed in range(1, 5):
        make_record(root / f"s{seed}", seed=seed)
    spoil_scores(make_record(root / "s5", seed=5))


def spoil_scores(folder: Path) -> None:
    import math

    import numpy as np

    with np.load(folder / "scores.npz") as stored:
        arrays = dict(stored)
    arrays["block_nats"] = arrays["block_nats"] / 3
    np.savez_compressed(folder / "scores.npz", **arrays)
    nats = math.fsum(arrays["block_nats"])
    new = {
        "total_nats": nats,
        "loss_nats": nats / 500,
        "val_bpb": nats / math.log(2) / 500,
        "perplexity": math.exp(nats / 500),
    }
    edit(folder, lambda fields: fields["metrics"]["test"].update(new))
    scored = ("val_bpb", "loss_nats")
    edit_log(
        lambda events: [
            e.update({k: new[k] for k in new if k in e and (k in scored or e["event"] == "eval")})
            for e in events
            if e["event"] == "end" or e.get("split") == "test"
        ]
    )(folder)
    reseal(folder)


BAD: list[tuple[str, str, Build]] = [
    ("E3", "fail", artifact_copied),
    ("E3", "fail", run_relabelled),
    ("E4", "fail", curve_copied),
    ("S5", "fail", ancestor_belittled),
    ("S5", "unverifiable", ancestor_missing),
    ("Z1", "note", one_seed_apart),
]


def two_seeds(root: Path) -> None:
    make_record(root / "a", seed=7)
    make_record(root / "b", seed=8)


def ancestor_told(root: Path) -> None:
    first, second = make_record(root / "a", seed=7), make_record(root / "b", seed=8)
    fields = fields_of(first)
    ancestor = {"name": "a", "artifact_sha256": fields["artifact"]["sha256"], "spent": fields["budget"]["spent"]}
    put("lineage", [ancestor])(second)


def short_curves_alike(root: Path) -> None:
    """Nine equal losses prove nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_factory, "NUM_STEPS", 9)
        curve_copied(root)


def five_seeds(root: Path) -> None:
    for seed in range(5):
        make_record(root / f"s{seed}", seed=seed)


GOOD: list[tuple[str, Build]] = [
    ("E3", two_seeds),
    ("E4", short_curves_alike),
    ("S5", ancestor_told),
    ("Z1", five_seeds),
]


def of_status(report: Report, status: str) -> set[str]:
    assert report.internal_errors == []
    return {finding.rule for finding in report.findings if finding.status == status}


@pytest.mark.parametrize(("rule", "status", "build"), BAD)
def test_exactly_one_rule_speaks(rule: str, status: str, build: Build, tmp_path: Path) -> None:
    build(tmp_path)
    report = verify_paths([tmp_path])
    for other in ("fail", "unverifiable", "note"):
        assert of_status(report, other) == ({rule} if other == status else set())


@pytest.mark.parametrize(("rule", "build"), GOOD)
def test_near_misses_stay_green(rule: str, build: Build, tmp_path: Path) -> None:
    build(tmp_path)
    report = verify_paths([tmp_path])
    assert [finding for finding in report.findings if finding.status != "pass"] == []


def test_same_run_twice_is_a_note(tmp_path: Path) -> None:
    """The same seed and settings give the same bytes: that is how it should be."""
    make_record(tmp_path / "a", seed=7)
    make_record(tmp_path / "b", seed=7)
    report = verify_paths([tmp_path])
    assert of_status(report, "fail") == set()
    assert of_status(report, "note") == {"E3"}


def test_the_later_record_is_named(tmp_path: Path) -> None:
    artifact_copied(tmp_path)
    failed = [finding for finding in verify_paths([tmp_path]).findings if finding.status == "fail"]
    assert [finding.record for finding in failed] == [str(tmp_path / "b")]
    assert f"the artifact is that of {tmp_path / 'a'}, which has seed 7, not 8" in failed[0].message


def test_damaged_artifact_is_not_compared(tmp_path: Path) -> None:
    artifact_copied(tmp_path)
    rewrite(ARTIFACT_FILE, lambda raw: raw[::-1])(tmp_path / "b")
    assert of_status(verify_paths([tmp_path]), "fail") == {"F5"}


def test_every_rule_is_covered() -> None:
    assert {rule for rule, *_ in BAD} == {rule for rule, _ in GOOD} == set(ACROSS_CHECKS)


def test_options_that_an_older_record_did_not_know_are_off(tmp_path: Path) -> None:
    record = read_record(make_record(tmp_path / "older"))
    train = {**record.settings.train, "qat_start": "", "replay_batches": 100}
    newer = record.model_copy(update={"settings": record.settings.model_copy(update={"train": train})})
    assert settings_key(newer) == settings_key(record)
    other = record.model_copy(
        update={"settings": record.settings.model_copy(update={"train": train | {"qat_start": "50%"}})}
    )
    assert settings_key(other) != settings_key(record)
