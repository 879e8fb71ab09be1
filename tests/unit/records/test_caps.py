"""What a record is charged, and against which cap."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from harness.records.caps import charges, contest_caps
from harness.records.schema import ArtifactPart


def part(**fields: Any) -> ArtifactPart:
    return ArtifactPart(
        artifact_bytes=100,
        sha256="0" * 64,
        parts={"blocks": 100},
        coders={},
        plugin_bytes=3,
        decoder_closure_bytes=20,
        **fields,
    )


def test_nothing_is_charged_without_a_cap() -> None:
    assert charges(part()) == []


def test_the_users_cap_charges_the_file_alone() -> None:
    (charge,) = charges(part(max_artifact_bytes=100))
    assert (charge.cap_bytes, charge.charged_bytes, charge.is_kept) == (100, 100, True)
    assert not charges(part(max_artifact_bytes=99))[0].is_kept


def test_a_contest_charges_the_code_too_beside_the_users_cap() -> None:
    own, contest = charges(part(max_artifact_bytes=100, rules="parameter-golf"))
    assert (own.key, own.charged_bytes) == ("artifact.max_artifact_bytes", 100)
    assert (contest.key, contest.cap_bytes, contest.charged_bytes) == ("artifact.rules", 16_000_000, 120)


@pytest.mark.parametrize(("decoder_bytes", "is_kept"), [(15_999_900, True), (15_999_901, False)])
def test_a_contests_cap_holds_to_the_byte(decoder_bytes: int, is_kept: bool) -> None:
    artifact = part(rules="parameter-golf").model_copy(update={"decoder_closure_bytes": decoder_bytes})
    assert charges(artifact)[0].is_kept is is_kept


def test_every_contest_of_the_schema_has_a_cap() -> None:
    (names,) = (kind for kind in get_args(ArtifactPart.model_fields["rules"].annotation) if kind is not type(None))
    assert set(get_args(names)) == set(contest_caps())
