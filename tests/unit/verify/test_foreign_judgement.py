"""Generated record folders: true ones never fail, contradictions are found, missing evidence is said to be missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from golf.bases import PLAIN
from golf.broken import BASES, BROKEN
from golf.cases import Case
from golf.clean import CLEAN
from golf.folders import Folder
from golf.unverifiable import UNVERIFIABLE

from harness.verify.findings import Finding
from harness.verify.rules import load_rules
from harness.verify.run import verify_paths

TRUE = {**PLAIN, **CLEAN, **BASES}
# Contradictions that are known not to be found, all minor; whoever finds one takes it from the list.
KNOWN_MISSES = frozenset(
    {
        "compliance_seed",
        "mean_of_list",
        "readme_gain_nats",
        "readme_steps_sentence",
        "rerun_cell",
        "t_statistic",
    }
)
MIN_RATES = {"major": 0.95, "minor": 0.80}


@cache
def judge(name: str, build: Callable[[], Folder]) -> list[Finding]:
    """Judge a folder where a contest would file it."""
    folder = build()
    with TemporaryDirectory() as root:
        return list(verify_paths([folder.write(Path(root) / folder.track / name)]).findings)


def fails(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.rule, finding.message) for finding in findings if finding.status == "fail"]


def is_found(case: Case) -> bool:
    families = (case.family, *case.also)
    return any(f.status == "fail" and f.family in families for f in judge(case.name, case.build))


@pytest.mark.parametrize("name", sorted(TRUE))
def test_a_true_folder_has_no_failure(name: str) -> None:
    assert fails(judge(name, TRUE[name])) == []


@pytest.mark.parametrize("name", sorted(UNVERIFIABLE))
def test_missing_evidence_is_unverifiable_and_convicts_nobody(name: str) -> None:
    findings = judge(name, UNVERIFIABLE[name])
    assert fails(findings) == []
    assert any(finding.status == "unverifiable" for finding in findings)


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_a_contradiction_is_found(case: Case) -> None:
    assert is_found(case) == (case.name not in KNOWN_MISSES)


def test_known_misses_are_minor_cases() -> None:
    assert {case.name for case in BROKEN if case.severity == "minor"} >= KNOWN_MISSES


def test_rates() -> None:
    total = Counter(case.severity for case in BROKEN)
    found = Counter(case.severity for case in BROKEN if is_found(case))
    for severity, rate in MIN_RATES.items():
        assert found[severity] >= rate * total[severity], (severity, found, total)


def test_a_user_s_file_waives_loosens_and_weighs_foreign_rules(tmp_path: Path) -> None:
    case = next(case for case in BROKEN if case.name == "total_placeholder")
    folder = case.build().write(tmp_path / "track_10min_16mb" / "record")
    rules = tmp_path / "mine.toml"

    def findings(text: str) -> list[Finding]:
        rules.write_text(text)
        return [f for f in verify_paths([folder], rules=load_rules(rules)).findings if f.rule == "XB1"]

    assert [f.severity for f in findings("") if f.status == "fail"] == ["major"]
    assert [f.severity for f in findings('[rules.XB1]\nseverity = "minor"\n') if f.status == "fail"] == ["minor"]
    waived = findings('[rules.XB1]\nwaive = "agreed with the judges"\n')
    assert [f.status for f in waived if "waived: agreed with the judges" in f.message] == ["note"]
