"""Finding records, counting findings, exit codes, text and JSON."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from record_factory import make_record, put
from rich.console import Console

from harness.errors import UsageError
from harness.records.native import RECORD_FILE
from harness.verify import static
from harness.verify.case import NativeCase
from harness.verify.render import finding_line, print_text, report_lines, safe, to_json
from harness.verify.rules import Rule
from harness.verify.run import verify_paths


def text_of(report, **options: bool) -> str:
    stream = io.StringIO()
    print_text(report, Console(file=stream, width=200), **options)
    return stream.getvalue()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three records at unlike depths: good, wrong score, interrupted."""
    root = tmp_path / "records"
    make_record(root / "good", seed=1)
    put("metrics.test.val_bpb", 1.5)(make_record(root / "deep/er/wrong", seed=2))
    put("status", "interrupted")(make_record(root / "cut", seed=3))
    return root


def test_summary_counts_are_the_printed_lines(tree: Path) -> None:
    put("contended", True)(tree / "good")
    report = verify_paths([tree])
    summary, lines = report.summary(), list(report_lines(report, with_passes=True))
    for status in ("pass", "fail", "unverifiable", "note"):
        assert summary[status] == sum(line.startswith(f"{status.upper()} ") for line in lines)
    assert (summary["fail"], summary["unverifiable"], summary["note"]) == (1, 1, 1)
    listed = [line for line in report_lines(report) if re.match("FAIL|UNVERIFIABLE|NOTE|PASS", line)]
    assert len(listed) == 3
    assert lines[-1].startswith("3 records: 1 pass, 1 fail, 1 unverifiable. Findings: 1 fail (1 major, 0 minor), ")


def test_text_shows_verdict_and_three_numbers(tree: Path) -> None:
    text = text_of(verify_paths([tree]))
    row = next(line for line in text.splitlines() if "wrong" in line and "FAIL" in line)
    assert re.search(r"wrong +FAIL +1\.50000 +(\d\.\d{5}) +\1 +1 +0 +0 ", row)
    line = next(line for line in text.splitlines() if line.startswith("FAIL"))
    assert line.startswith(f"FAIL M2 val_bpb | {tree}/deep/er/wrong | claimed 1.5, logged ")
    assert "(scores.npz)" in line and line.endswith("fix: Claim the val_bpb that the scored artifact has.")


def test_partial_score_is_marked_beside_the_number(tmp_path: Path) -> None:
    folder = make_record(tmp_path / "a")
    put("metrics.test.partial", True)(folder)
    put("data.splits.test.num_tokens", 901)(folder)
    assert "PASS PARTIAL" in text_of(verify_paths([tmp_path]))


def test_json_document(tree: Path) -> None:
    report = verify_paths([tree])
    document = json.loads(to_json(report, "harness verify records"))
    assert list(document)[:2] == ["schema", "command"]
    assert {"rules_version", "summary", "records", "findings"} <= set(document)
    assert [row["verdict"] for row in document["records"]] == ["unverifiable", "fail", "pass"]
    fields = [
        "record",
        "rule",
        "family",
        "status",
        "severity",
        "claimed",
        "logged",
        "measured",
        "path",
        "line",
        "message",
        "fix",
    ]
    assert all(list(finding) == fields for finding in document["findings"])
    assert {finding["status"] for finding in document["findings"]} <= {"pass", "fail", "unverifiable", "note"}
    assert document["summary"]["fail"] == 1
    assert document["records"][1]["val_bpb"]["claimed"] == 1.5


def test_record_is_named_as_found(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.parent)
    report = verify_paths([Path("records")])
    assert [row.record for row in report.rows] == ["records/cut", "records/deep/er/wrong", "records/good"]
    again = verify_paths([Path("records/good"), Path("records"), Path("records/good/record.json")])
    assert len(again.rows) == 3


def test_no_record_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no record found"):
        verify_paths([tmp_path])
    with pytest.raises(UsageError, match="does not exist"):
        verify_paths([tmp_path / "nowhere"])
    make_record(tmp_path / "a")
    with pytest.raises(UsageError, match="no such level. Did you mean 'decode'"):
        verify_paths([tmp_path], level="decod")


def test_strict_turns_unverifiable_into_failure(tmp_path: Path) -> None:
    put("status", "interrupted")(make_record(tmp_path / "a"))
    report = verify_paths([tmp_path], is_strict=True)
    assert (report.exit_code, report.summary()["records_fail"], report.summary()["unverifiable"]) == (1, 1, 1)
    assert "strict" in text_of(report).splitlines()[-1]


def test_check_that_raises_is_our_fault(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(case: NativeCase, rule: Rule) -> list[object]:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(static, "CHECKS", {**static.CHECKS})
    monkeypatch.setitem(static.CHECKS, "S2", broken)
    monkeypatch.setattr("harness.verify.run.CHECKS", static.CHECKS)
    report = verify_paths([tree])
    assert report.exit_code == 3
    assert len(report.internal_errors) == 2  # the two complete records; both were taken to the end
    assert "ZeroDivisionError: a bug" in report.internal_errors[0].traceback
    lines = list(report_lines(report))
    assert sum("internal error in S2" in line and line.startswith("UNVERIFIABLE S2") for line in lines) == 2
    assert "2 internal errors" in lines[-1]
    assert {finding.rule for finding in report.findings if finding.record.endswith("good")} >= {"S1", "Z1"}


def test_strangers_text_cannot_act_on_the_terminal(tmp_path: Path) -> None:
    folder = make_record(tmp_path / "a\x1b[31m[bold]\u202eb")
    (folder / "\x1b]0;owned\x07[red]x").write_text("x")
    put("reason", "\x1b[2J\r\n\u2028[link=x]y")(folder)
    put("status", "failed")(make_record(tmp_path / "b"))
    put("reason", "\x1b[2J\u009b0m\nPASS all[/]\ud800" + "z" * 5000)(tmp_path / "b")
    report = verify_paths([tmp_path])
    text = text_of(report, with_passes=True)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2066-\u2069\ud800-\udfff]", text)
    assert "[red]x" in text and "\\x1b]0;owned" in text
    assert not any(line.startswith("PASS all") for line in text.splitlines())
    json.loads(to_json(report, "x"))


def test_long_text_is_cut() -> None:
    assert safe("z" * 1000) == "z" * 400 + "... (600 characters more)"


def test_huge_tree_is_one_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_record(tmp_path / "a")
    for i in range(40):
        (tmp_path / f"file{i}").touch()
    monkeypatch.setattr("harness.verify.run.scan_records", _scan_20)
    report = verify_paths([tmp_path])
    assert [finding.rule for finding in report.findings if finding.status != "pass"] == ["F0"]
    assert report.exit_code == 0


def _scan_20(path: Path, *, with_foreign: bool):
    from harness.records.discovery import scan_records

    return scan_records(path, max_entries=20, with_foreign=with_foreign)


def test_progress_is_told(tree: Path) -> None:
    told: list[tuple[int, int, str]] = []
    verify_paths([tree], on_progress=lambda done, total, name: told.append((done, total, name)))
    assert [row[:2] for row in told] == [(0, 3), (1, 3), (2, 3)]


def test_finding_line_format(tmp_path: Path) -> None:
    folder = make_record(tmp_path / "a")
    put("artifact.artifact_bytes", 51_200)(folder)
    report = verify_paths([folder])
    finding = next(f for f in report.findings if f.status == "fail")
    size = sum(json.loads((folder / RECORD_FILE).read_text())["artifact"]["parts"].values())
    assert finding_line(finding, report.rules[finding.rule].title).startswith(
        f"FAIL B1 artifact bytes | {folder} | claimed 51,200, logged {size}, measured {size} (artifact.bin) | "
    )
