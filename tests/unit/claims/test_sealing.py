"""Seals of a claim that is extended: what was asked before stays sealed, what came after is not by older runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from record_factory import make_record

from harness.claims.evidence import Evidence
from harness.claims.reproduction import Runs
from harness.claims.schema import read_claims
from harness.claims.sealing import hash_claim, hashes_by_length
from harness.claims.verdict import judge

FIRST = 'mean("dense/tiny", "artifact_bytes") > few'
SECOND = 'mean("dense/tiny", "artifact_bytes") < many'
THIRD = 'mean("dense/tiny", "val_bpb") < 9'


def write(path: Path, *expressions: str, few: str = "1", many: str = "900000", **changes: Any) -> Path:
    claim = {
        "id": "C1",
        "statement": "s",
        "scale": "27 hours",
        "predicates": [{"says": text, "holds_if": text, "is_reduced": True} for text in expressions],
        **changes,
    }
    source = {"id": "them", "title": "T", "url": "https://example.org", "date": "2026-01-01"}
    facts = {"few": {"value": few, "where": "here"}, "many": {"value": many, "where": "here"}}
    path.write_text(tomli_w.dumps({"schema": 1, "source": source, "facts": facts, "claims": [claim]}))
    return path


def sealed_for(path: Path) -> str:
    loaded = read_claims(path)
    return hash_claim(loaded, loaded.content.claims[0])


def put_runs(folder: Path, *seals: str, **changes: Any) -> Path:
    """Records of two seeds, sealed by a hash each."""
    for seed, sha256 in enumerate(seals):
        place = folder / f"run-{seed}"
        make_record(place, seed)
        record = json.loads((place / "record.json").read_text())
        seal = {"claim": "them.C1", "sha256": sha256, "margins": {}, "num_seeds": 2, "stopping": "20steps", **changes}
        (place / "record.json").write_text(json.dumps({**record, "lineage": [], "seal": seal}))
    return folder


def standings(path: Path, runs: Path) -> tuple[str, list[str]]:
    (found,) = judge(read_claims(path), Evidence(Runs([runs]), None))
    assert all(not answer.missing for answer in found.answers)
    return found.standing, [answer.standing for answer in found.answers]


@pytest.fixture
def old_runs(tmp_path: Path) -> Path:
    """Runs that were made when the claim had its first two predicates."""
    return put_runs(tmp_path / "runs", *[sealed_for(write(tmp_path / "old.toml", FIRST, SECOND))] * 2)


@pytest.mark.parametrize("changes", [{"num_seeds": 3}, {"num_seeds": 1}, {"stopping": "30steps"}])
def test_a_plan_of_which_seeds_are_missing_or_more_or_that_stopped_elsewhere_is_exploratory(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    path = write(tmp_path / "claims.toml", FIRST)
    runs = put_runs(tmp_path / "runs", *[sealed_for(path)] * 2, **changes)
    assert standings(path, runs) == ("exploratory", ["exploratory"])


def test_what_is_appended_leaves_earlier_seals_and_is_not_sealed_by_them(tmp_path: Path, old_runs: Path) -> None:
    path = tmp_path / "claims.toml"
    assert standings(write(path, FIRST, SECOND), old_runs) == ("sealed", ["sealed", "sealed"])
    longer = write(path, FIRST, SECOND, THIRD)
    assert standings(longer, old_runs) == ("exploratory", ["sealed", "sealed", "exploratory"])


def test_runs_made_for_the_longer_claim_are_sealed_for_all_of_it(tmp_path: Path) -> None:
    path = write(tmp_path / "claims.toml", FIRST, SECOND, THIRD)
    old, new = sealed_for(write(tmp_path / "old.toml", FIRST)), sealed_for(path)
    assert standings(path, put_runs(tmp_path / "new", new, new)) == ("sealed", ["sealed"] * 3)
    # a seed of before and one of after: sealed for what both were made for
    mixed = put_runs(tmp_path / "mixed", old, new)
    assert standings(path, mixed) == ("exploratory", ["sealed", "exploratory", "exploratory"])


@pytest.mark.parametrize(
    ("expressions", "changes"),
    [
        ((FIRST.replace(">", ">="), SECOND, THIRD), {}),
        ((SECOND, FIRST, THIRD), {}),
        ((THIRD, FIRST, SECOND), {}),
        ((FIRST, SECOND, THIRD), {"few": "2"}),
        ((FIRST, SECOND, THIRD), {"scale": "28 hours"}),
    ],
    ids=["changed", "reordered", "inserted in front", "another number", "another scale"],
)
def test_what_changes_the_beginning_breaks_every_seal(
    expressions: tuple[str, ...], changes: dict[str, str], tmp_path: Path, old_runs: Path
) -> None:
    path = write(tmp_path / "claims.toml", *expressions, **changes)
    assert standings(path, old_runs) == ("exploratory", ["exploratory"] * 3)


def test_one_that_was_taken_away_breaks_the_seal_of_what_is_left(tmp_path: Path, old_runs: Path) -> None:
    # the runs promised two answers; to drop one that came out wrong is no shorter claim
    for expressions in ((FIRST,), (SECOND,)):
        assert standings(write(tmp_path / "claims.toml", *expressions), old_runs) == ("exploratory", ["exploratory"])


def test_a_number_that_only_later_predicates_name_is_in_their_hashes_alone(tmp_path: Path) -> None:
    def hashes(**changes: str) -> list[str]:
        loaded = read_claims(write(tmp_path / "claims.toml", FIRST, SECOND, **changes))
        return hashes_by_length(loaded, loaded.content.claims[0])

    before, after = hashes(), hashes(many="800000")
    assert before[0] == after[0] != before[1] != after[1]
    assert before[0] == sealed_for(write(tmp_path / "one.toml", FIRST, many="800000"))


def test_readings_of_predicates_to_come_cut_no_claim_short(tmp_path: Path) -> None:
    predicates = [
        {"says": "a", "holds_if": FIRST, "reading": "first"},
        {"says": "b", "holds_if": SECOND, "reading": "second"},
    ]
    path = write(tmp_path / "claims.toml", predicates=predicates, stated_reading="second", scale="")
    loaded = read_claims(path)
    assert hashes_by_length(loaded, loaded.content.claims[0])[-1] == sealed_for(path)
