"""The public sample: what a careful hand audit found is found, and nothing fails where it found nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.verify.findings import Finding
from harness.verify.run import verify_paths

# kind of the audit's error: rules of which one has to fail
RULES = {
    "bytes_code_vs_file": {"XB2"},
    "bytes_model_vs_log": {"XB3"},
    "bytes_total_excludes_code": {"XB1"},
    "bytes_total_vs_log": {"XB1"},
    "cap_exceeded": {"XB5"},
    "delta_nats_mismatch": {"XV4"},
    "params_vs_log": {"XP1"},
    "partial_validation": {"XD1"},
    "ratio_inconsistent": {"XM3"},
    "readme_internal": {"XM4", "XM6", "XM7"},
    "readme_vs_log_bytes": {"XB1"},
    "roundtrip_vs_log": {"XM5", "XM6"},
    "seed_vs_log": {"XE1"},
    "std_mismatch": {"XV2"},
    "steps_vs_log": {"XS1"},
    "val_bpb_vs_log": {"XM1", "XM5"},
    "val_loss_vs_log": {"XM2"},
    "wrong_key": {"XM2"},
}
Audit = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def sample(shared_dir: Path) -> Path:
    path = shared_dir / "records-sample"
    if not path.is_dir():
        pytest.skip(f"no public sample at {path}")
    return path


@pytest.fixture(scope="module")
def audit(sample: Path) -> Audit:
    return json.loads((sample / "expected_findings.json").read_text())


@pytest.fixture(scope="module")
def findings(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Finding]]:
    """The findings of each record, by its path as the audit names it; files left out of the sample have their sizes."""
    root = tmp_path_factory.mktemp("sample")
    shutil.copytree(sample / "records", root / "records")
    for name, num_bytes in json.loads((sample / "code_sizes.json").read_text()).items():
        stand_in = root / "records" / name
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        stand_in.write_bytes(b"#" * num_bytes)
    found: dict[str, list[Finding]] = {}
    for finding in verify_paths([root]).findings:
        found.setdefault(Path(finding.record).relative_to(root).as_posix(), []).append(finding)
    return found


def failed(findings: Sequence[Finding]) -> set[str]:
    return {finding.rule for finding in findings if finding.status == "fail"}


def test_every_record_of_the_audit_is_found(audit: Audit, findings: dict[str, list[Finding]]) -> None:
    assert set(findings) == set(audit)
    assert len(audit) == 12


def test_every_error_of_the_audit_fails_a_rule_of_its_kind(audit: Audit, findings: dict[str, list[Finding]]) -> None:
    errors = [
        (record, f["kind"]) for record, entry in audit.items() for f in entry["findings"] if f["severity"] == "error"
    ]
    assert {kind for _, kind in errors} == set(RULES)
    assert [(record, kind) for record, kind in errors if not failed(findings[record]) & RULES[kind]] == []


def test_major_errors_of_the_audit_are_major_failures(audit: Audit, findings: dict[str, list[Finding]]) -> None:
    for record, entry in audit.items():
        worst = {f["materiality"] for f in entry["findings"] if f["severity"] == "error"}
        severities = {f.severity for f in findings[record] if f.status == "fail"}
        assert ("major" in worst) == ("major" in severities), record


def test_nothing_fails_where_the_audit_found_no_error(audit: Audit, findings: dict[str, list[Finding]]) -> None:
    right = [record for record, entry in audit.items() if entry["verdict"] in ("clean", "warnings")]
    assert right
    assert {record: failed(findings[record]) for record in right} == {record: set() for record in right}


def test_failures_name_file_and_line(findings: dict[str, list[Finding]]) -> None:
    for finding in (f for found in findings.values() for f in found if f.status == "fail"):
        assert finding.path
        assert finding.line is not None or finding.path.endswith(".py")


def test_no_speed_run_fails(sample: Path) -> None:
    report = verify_paths([sample / "speedrun"])
    assert len(report.rows) == 3
    assert failed(report.findings) == set()
