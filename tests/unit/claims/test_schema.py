"""Claim files: what is read, and the one error that a wrong one gets."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from harness.claims.command import TEMPLATE, schema_text
from harness.claims.files import find_claims
from harness.claims.schema import ClaimFile, read_claims
from harness.errors import UsageError


def content(**changes: Any) -> dict[str, Any]:
    claim = {
        "id": "C1",
        "statement": "it is small",
        "predicates": [{"says": "a is less than b", "holds_if": "a < b"}],
    }
    base: dict[str, Any] = {
        "schema": 1,
        "source": {"id": "them", "title": "T", "url": "https://example.org", "date": "2026-01-01"},
        "facts": {"a": {"value": "1.0", "where": "here"}, "b": {"value": "2.0", "where": "there"}},
        "claims": [claim],
    }
    return {**base, **changes}


def claim(**changes: Any) -> list[dict[str, Any]]:
    return [{**content()["claims"][0], **changes}]


def write(folder: Path, value: dict[str, Any]) -> Path:
    path = folder / "claims.toml"
    path.write_text(tomli_w.dumps(value))
    return path


def test_a_file_is_read(tmp_path: Path) -> None:
    loaded = read_claims(write(tmp_path, content()))
    assert loaded.name_of(loaded.content.claims[0]) == "them.C1"
    assert loaded.content.claims[0].predicates[0].kind == "arithmetic"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 2}, "schema: Input should be 1"),
        ({"facts": {"a": {"value": "many", "where": "x"}}}, "a.value: 'many' is no number as printed"),
        ({"facts": {"A b": {"value": "1", "where": "x"}}}, "facts.A b"),
        ({"claims": []}, "claims: "),
        ({"claims": [*content()["claims"]] * 2}, "claim C1 stands twice"),
        ({"margins": {"a": {"value": "1", "reason": "r"}}}, "a is a fact and a margin"),
        (
            {"claims": claim(predicates=[{"says": "s", "holds_if": "a <"}])},
            "claim C1, predicate 1, holds_if: not an exp",
        ),
        ({"claims": claim(predicates=[{"says": "s", "holds_if": "a < c"}])}, "no fact or margin 'c'"),
        ({"claims": claim(predicates=[{"says": "s", "holds_if": "a < mean2('x')"}])}, "no function 'mean2'"),
        ({"claims": claim(predicates=[])}, "nothing decides it"),
        ({"claims": claim(stated_reading="r")}, "stated_reading 'r' has no predicate"),
        (
            {"claims": claim(predicates=[{"says": "s", "holds_if": "a < b", "reading": "r"}])},
            "say in stated_reading which one",
        ),
        (
            {"claims": claim(predicates=[{"says": "s", "holds_if": "a < b", "is_reduced": True}])},
            "a claim without a scale",
        ),
        ({"claims": claim(statment="x")}, "claims.0.statment: Extra inputs"),
    ],
)
def test_a_wrong_file_gets_one_error(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        read_claims(write(tmp_path, content(**changes)))
    assert said in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_toml_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "claims.toml"
    with pytest.raises(UsageError, match="no such file; `harness claims new claims.toml`"):
        read_claims(path)
    for raw, said in ((b"schema = \n", "line 1"), (b"\xff", "utf-8"), (b"a=1\n" * 300_000, "at most")):
        path.write_bytes(raw)
        with pytest.raises(UsageError, match=said):
            read_claims(path)


def test_the_template_is_a_claim_file_and_the_schema_has_its_keys() -> None:
    ClaimFile.model_validate(tomllib.loads(TEMPLATE))
    schema = json.loads(schema_text())
    assert {"schema", "source", "facts", "margins", "claims"} == set(schema["properties"])
    assert schema["$defs"]["Predicate"]["properties"]["holds_if"]["description"]


def test_the_shipped_files_are_claim_files() -> None:
    files = list(find_claims())
    assert files
    for loaded in files:
        assert len({claim.id for claim in loaded.content.claims}) == len(loaded.content.claims)
