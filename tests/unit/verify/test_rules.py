"""Rules as data, and a user's file over them."""

from __future__ import annotations

from pathlib import Path

import pytest
from record_factory import make_record, put

from harness.errors import UsageError
from harness.records.values import Value
from harness.verify.agreement import QUANTITIES, are_close
from harness.verify.rules import RuleBook, load_rules
from harness.verify.run import verify_paths


def overlay(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my-rules.toml"
    path.write_text(text)
    return path


def test_shipped_rules_are_sound() -> None:
    book = load_rules()
    assert set(book.headline_rules) <= set(book.rules)
    assert len({rule.title for rule in book.rules.values()}) == len(book.rules)
    for rule in book.rules.values():
        assert set(rule.quantities) <= set(QUANTITIES)
        assert rule.text.endswith(".") and rule.fix.endswith(".") and rule.waive is None
    named = [quantity for rule in book.rules.values() for quantity in rule.quantities]
    assert sorted(named) == sorted(QUANTITIES)


def test_overlay_changes_a_limit_and_says_so(tmp_path: Path) -> None:
    folder = make_record(tmp_path / "record")
    put("time.wall_seconds", 200.0)(folder)

    def notes(rules: RuleBook | None) -> list[str]:
        return [finding.rule for finding in verify_paths([folder], rules=rules).findings if finding.status == "note"]

    assert notes(None) == ["T1"]
    rules = load_rules(overlay(tmp_path, "[rules.T1.limits]\nunexplained_seconds = 300\n"))
    assert notes(rules) == []
    old, new = ({"unexplained_seconds": seconds, "unexplained_fraction": 0.5} for seconds in (60.0, 300.0))
    assert rules.changes == [f"T1 limits: {old} -> {new}"]
    assert rules.version.startswith("1.2+") and rules.version != load_rules().version


def test_overlay_changes_a_tolerance_and_a_severity(tmp_path: Path) -> None:
    folder = make_record(tmp_path / "record")
    put("metrics.test.val_bpb", lambda old: old + 0.001)(folder)
    loose = load_rules(overlay(tmp_path, "[rules.M2]\nabsolute = 0.01\n"))
    assert verify_paths([folder], rules=loose).exit_code == 0
    lenient = load_rules(overlay(tmp_path, '[rules.M2]\nseverity = "minor"\n'))
    assert verify_paths([folder], rules=lenient).summary()["fail_minor"] == 1


def test_waived_failure_is_a_printed_note(tmp_path: Path) -> None:
    folder = make_record(tmp_path / "record")
    put("metrics.test.val_bpb", 1.0)(folder)
    report = verify_paths([folder], rules=load_rules(overlay(tmp_path, '[rules.M2]\nwaive = "old log format"\n')))
    notes = [finding for finding in report.findings if finding.status == "note"]
    assert report.exit_code == 0
    assert [note.rule for note in notes] == ["M2"]
    assert notes[0].message.endswith("(waived: old log format)")
    assert report.rule_changes == ["M2 waive: None -> 'old log format'"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[rules.M22]\n", "no rule 'M22'. Did you mean 'M2'?"),
        ("[rules.M2]\nfamily = 'bytes'\n", "'family' cannot be changed"),
        ("[rules.M2]\nseverity = 'mild'\n", "severity"),
        ("[rules.M2]\nabsolute = '1'\n", "absolute"),
        ("[rules.M2]\nrelative = -1\n", "relative"),
        ("[rules.T1.limits]\ncap = 3\n", "no limit 'cap'"),
        ("[rules.B4]\nlimits = 3\n", "limits"),
        ("rules = 3\n", "expected tables"),
        ("rules = [", "cannot be read as TOML"),
    ],
)
def test_wrong_overlay_is_one_error(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_rules(overlay(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_overlay_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml: cannot be read: No such file or directory$"):
        load_rules(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("first", "second", "close"),
    [
        (1.2244, 1.22436569, True),  # four printed digits: up to 0.00005 away
        (1.2244, 1.22446, False),
        (1.2244, 1.2244, True),
        (3, 3.0, True),
        (3, "3", False),
        ("a", "a", True),
        (2**62, 2**62 + 1, False),
    ],
)
def test_printed_digits_count(first: float | str, second: float | str, close: bool) -> None:
    claimed = Value(origin="claimed", value=first, path="README.md", decimals=4)
    logged = Value(origin="logged", value=second, path="train.log", decimals=8)
    assert are_close(claimed, logged, load_rules().rules["B1"]) is close
