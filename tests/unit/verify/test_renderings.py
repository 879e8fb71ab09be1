"""Every format says the same as the summary, and no text of a stranger acts in any of them."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from record_factory import make_record, put

from harness.cli import run_command
from harness.verify.command import FORMATS, VerifyOptions
from harness.verify.findings import Finding, InternalError, RecordRow, Report
from harness.verify.render import report_lines, summary_line
from harness.verify.rules import load_rules
from harness.verify.run import verify_paths

ROOT = Path(__file__).parents[3]
HOSTILE = [
    "\x1b[31mred\x1b]0;title\x07",
    "]]><evil/>",
    "nul\0nul",
    "lone \ud800 and \udcff",
    "right \u202eto left\u2066",
    "<script>alert(1)</script> &lt;b&gt; <!-- -->",
    "a|b||c",
    "one\ntwo\r\nthree\u2028four\x85five",
    "[text](https://evil.example/x) ![image](http://evil.example/y.png) <https://evil.example>",
    "see www.evil.example, _www.evil.example, HTTPS://evil.example, someone@evil.example",
    "@everyone @_x #123 owner/name#7 GH-9 gh-9",
    "`code` ``x`` **bold** __bold__ ~~gone~~ $x$ \\`a\\[b",
    "- [ ] item\n# heading\n---\n> quote\n```\ncode",
    "{0} {evil} [link](1) \\[x](2)",
    "\ufffe\uffff\x7f\x80",
    "records/a b%2F?x=1#y:z",
    "c:/windows\\x",
    "../../etc/passwd",
    "",
]
RULES = load_rules().rules
VERDICTS = ("fail", "unverifiable", "note")

texts = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(), max_size=30)).map(str)
scalars = st.one_of(st.none(), st.integers(), st.floats(), texts)


@st.composite
def findings(draw: st.DrawFn, records: Sequence[str]) -> Finding:
    rule = draw(st.sampled_from(list(RULES)))
    status = draw(st.sampled_from(["pass", *VERDICTS]))
    return Finding(
        record=draw(st.sampled_from(records)),
        rule=rule,
        family=RULES[rule].family,
        status=status,
        severity=draw(st.sampled_from(["major", "minor"])) if status == "fail" else None,
        claimed=draw(scalars),
        logged=draw(scalars),
        measured=draw(scalars),
        path=draw(st.none() | texts),
        line=draw(st.none() | st.integers(1, 10**9)),
        message=draw(texts),
        fix=draw(texts),
    )


@st.composite
def reports(draw: st.DrawFn) -> Report:
    names = draw(st.lists(texts.map("records/".__add__), min_size=1, max_size=3, unique=True))
    # A folder that was not walked to its end has a finding and no row.
    records = [*names, "records"]
    title = draw(texts)
    broken = draw(st.lists(st.sampled_from(records), max_size=2))
    return Report(
        level="static",
        rules_version="1.0+abc",
        rule_changes=draw(st.lists(texts, max_size=2)),
        rules={key: rule.model_copy(update={"title": title, "fix": title}) for key, rule in RULES.items()},
        headline_rules=("M2",),
        rows=[RecordRow(record=name) for name in names],
        findings=sorted(draw(st.lists(findings(records), max_size=12)), key=lambda found: records.index(found.record)),
        internal_errors=[
            InternalError(record=name, rule="S2", message=f"internal error in S2: {draw(texts)}", traceback="")
            for name in broken
        ],
        is_strict=draw(st.booleans()),
    )


def rendered(report: Report, output_format: str, **options: Any) -> str:
    text = FORMATS[output_format](report, VerifyOptions(**options))
    text.encode()  # no lone surrogate
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufffe\uffff]", text)
    return text


def junit_of(report: Report) -> ElementTree.Element:
    return ElementTree.fromstring(rendered(report, "junit"))


def sarif_of(report: Report) -> Any:
    (run,) = json.loads(rendered(report, "sarif"))["runs"]
    return run


def markdown_tokens(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)


def inline_kinds(tokens: Sequence[Token]) -> set[str]:
    return {child.type for token in tokens for child in token.children or []}


def make_finding(**fields: Any) -> Finding:
    shared = {"record": "records/a", "rule": "B1", "family": "bytes", "status": "fail", "message": "m"}
    return Finding(**shared | {"severity": "major" if fields.get("status", "fail") == "fail" else None} | fields)


def report_of(*found: Finding, **fields: Any) -> Report:
    names = dict.fromkeys(finding.record for finding in found)
    rows = [RecordRow(record=name) for name in names]
    shared = {"level": "static", "rules_version": "1.0", "rules": RULES, "headline_rules": ("M2",)}
    return Report(**shared | {"rows": rows, "findings": found} | fields)


# Every format against the summary


@given(report=reports(), with_passes=st.booleans())
def test_lines_of_the_text_are_the_summary(report: Report, with_passes: bool) -> None:
    counts, lines = report.summary(), list(report_lines(report, with_passes=with_passes))
    statuses = Counter(line.split()[0] for line in lines)
    for status in VERDICTS:
        assert statuses[status.upper()] == counts[status]
    assert statuses["PASS"] == (counts["pass"] if with_passes else 0)
    assert statuses["internal"] == counts["internal_errors"]
    assert lines[-1] == summary_line(report, with_passes=with_passes)
    assert lines[-1] in rendered(report, "table", is_verbose=with_passes)


@given(report=reports(), with_passes=st.booleans())
def test_items_of_the_markdown_are_the_summary(report: Report, with_passes: bool) -> None:
    counts = report.summary()
    text = rendered(report, "markdown", is_verbose=with_passes)
    statuses = Counter(re.findall(r"^- \*\*([A-Z]+)\*\* ", text, re.MULTILINE))
    for status in VERDICTS:
        assert statuses[status.upper()] == counts[status]
    assert statuses["PASS"] == (counts["pass"] if with_passes else 0)
    kinds = Counter(token.type for token in markdown_tokens(text))
    assert kinds["list_item_open"] == statuses.total() + counts["internal_errors"] + len(report.rule_changes)
    assert kinds["tr_open"] == 1 + counts["records"]
    assert kinds["td_open"] == 8 * counts["records"]


@given(report=reports())
def test_markdown_rows_add_up(report: Report) -> None:
    tokens = markdown_tokens(rendered(report, "markdown"))
    cells = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "td_open"]
    rows = [cells[start : start + 8] for start in range(0, len(cells), 8)]
    verdicts = Counter(row[1].lower() for row in rows)
    assert all(verdicts[name] == report.summary()[f"records_{name}"] for name in ("pass", "fail", "unverifiable"))
    listed = {row.record for row in report.rows}
    for column, status in enumerate(VERDICTS, start=5):
        in_rows = sum(found.status == status for found in report.findings if found.record in listed)
        assert sum(int(row[column]) for row in rows) == in_rows


@given(report=reports())
def test_cases_of_the_junit_document_are_the_summary(report: Report) -> None:
    counts, root = report.summary(), junit_of(report)
    open_ones = counts["unverifiable"]
    expected = {
        "tests": len(report.findings) + counts["internal_errors"],
        "failures": counts["fail"] + (open_ones if report.is_strict else 0),
        "skipped": 0 if report.is_strict else open_ones,
        "errors": counts["internal_errors"],
    }
    tags = {"tests": "testcase", "failures": "failure", "skipped": "skipped", "errors": "error"}
    for name, number in expected.items():
        assert int(root.attrib[name]) == number == len(root.findall(f".//{tags[name]}"))
        assert sum(int(suite.attrib[name]) for suite in root) == number
    assert len(root.findall(".//system-out")) == counts["note"]
    verdicts = Counter(element.get("value") for element in root.iterfind(".//property[@name='verdict']"))
    assert verdicts["fail"] >= counts["records_fail"]
    for suite in root:
        names = [case.attrib["name"] for case in suite.iter("testcase") if case.find("error") is None]
        assert len(names) == len(set(names))
        assert {case.attrib["classname"] for case in suite.iter("testcase")} <= {suite.attrib["name"]}


@given(report=reports())
def test_results_of_the_sarif_log_are_the_summary(report: Report) -> None:
    counts, run = report.summary(), sarif_of(report)
    statuses = Counter(result["properties"]["status"] for result in run["results"])
    assert statuses == {status: counts[status] for status in VERDICTS if counts[status]}
    levels = Counter(result["level"] for result in run["results"])
    if not report.is_strict:
        assert levels["error"] == counts["fail_major"]
        assert levels["warning"] == counts["fail_minor"]
    assert levels["error"] + levels["warning"] == counts["fail"] + report.is_strict * counts["unverifiable"]
    assert run["properties"]["summary"] == counts
    (invocation,) = run["invocations"]
    assert len(invocation["toolExecutionNotifications"]) == counts["internal_errors"]
    assert invocation["executionSuccessful"] == (report.exit_code != 3)
    assert invocation["exitCode"] == report.exit_code
    fingerprints = [result["partialFingerprints"]["primaryLocationLineHash"] for result in run["results"]]
    assert len(fingerprints) == len(set(fingerprints))


@given(report=reports())
def test_json_document_is_the_summary(report: Report) -> None:
    document = json.loads(rendered(report, "json"))
    statuses = Counter(finding["status"] for finding in document["findings"])
    assert all(statuses[status] == document["summary"][status] for status in ("pass", *VERDICTS))
    assert len(document["internal_errors"]) == document["summary"]["internal_errors"]


# Markdown


@given(report=reports())
def test_strangers_text_is_only_text_in_markdown(report: Report) -> None:
    text = rendered(report, "markdown", is_verbose=True)
    tokens = markdown_tokens(text)
    assert inline_kinds(tokens) <= {"text", "text_special", "strong_open", "strong_close"}
    blocks = {token.type for token in tokens}
    assert not blocks & {"html_block", "fence", "code_block", "hr", "blockquote_open", "ordered_list_open"}
    # What GitHub links after the markup is read, it would find in these.
    for token in tokens:
        for child in token.children or []:
            assert not re.search(r"@\w|#\d|://|www\.|\bgh-\d", child.content, re.IGNORECASE)


def test_markdown_says_what_there_is_in_order() -> None:
    report = report_of(
        make_finding(status="note", message="odd", fix="Nothing."),
        make_finding(claimed=51_200, logged=1, measured=2.5, path="logs/t0.txt", line=7, fix="Mend."),
        make_finding(status="unverifiable", record="records/b", message="not there"),
        make_finding(status="pass", record="records/c"),
        rule_changes=["B1 severity: 'minor' -> 'major'"],
    )
    lines = [line for line in rendered(report, "markdown").splitlines() if line and not line.startswith("|")]
    assert lines == [
        "## harness verify: level static, rules 1.0",
        "### rules changed",
        "- rule B1 severity: 'minor' -> 'major'",
        r"**headline: val\_bpb**",
        "### records/a",
        "- **FAIL** B1 artifact bytes (major): claimed 51,200, logged 1, measured 2.5 (logs/t0.txt:7); m; fix: Mend.",
        "- **NOTE** B1 artifact bytes: odd; fix: Nothing.",
        "### records/b",
        "- **UNVERIFIABLE** B1 artifact bytes: not there",
        "3 records: 1 pass, 1 fail, 1 unverifiable. Findings: 1 fail (1 major, 0 minor), 1 unverifiable, 1 note, "
        "1 pass (not listed).",
    ]
    assert "### records/c\n\n- **PASS** B1" in rendered(report, "markdown", is_verbose=True)


# JUnit


def test_junit_has_each_status_as_readers_expect() -> None:
    found = [make_finding(status=status, rule=rule) for status, rule in zip(VERDICTS, ("B1", "B2", "B3"), strict=True)]
    broken = InternalError(record="records/a", rule="S2", message="internal error in S2", traceback="")
    report = report_of(*found, internal_errors=[broken])
    cases = {case.attrib["name"]: case for case in junit_of(report).iter("testcase")}
    failure = cases["B1 artifact bytes"].find("failure")
    assert failure is not None and failure.attrib == {"type": "major", "message": "m"}
    assert [child.tag for child in cases["B2 artifact identity"]] == ["skipped"]
    assert [child.tag for child in cases["B3 bytes by part"]] == ["system-out"]
    assert [child.tag for child in cases["S2 internal error"]] == ["error"]
    strict = junit_of(dataclasses.replace(report, is_strict=True))
    kinds = [failure.attrib["type"] for failure in strict.iter("failure")]
    assert kinds == ["major", "unverifiable"]


def test_junit_names_equal_cases_apart() -> None:
    names = [case.attrib["name"] for case in junit_of(report_of(*[make_finding()] * 3)).iter("testcase")]
    assert names == ["B1 artifact bytes", "B1 artifact bytes (2)", "B1 artifact bytes (3)"]


# SARIF


def uri_of(finding: Finding) -> str:
    (result,) = sarif_of(report_of(finding))["results"]
    return result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]


def test_sarif_places_are_relative_and_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert uri_of(make_finding(path="logs/train0.txt")) == "records/a/logs/train0.txt"
    assert uri_of(make_finding(path=None)) == "records/a"
    assert uri_of(make_finding(record=str(tmp_path / "records/a"), path="x")) == "records/a/x"
    assert uri_of(make_finding(record=".", path="record.json")) == "record.json"
    assert uri_of(make_finding(record="../other", path="x")) == "../other/x"
    assert uri_of(make_finding(record="/elsewhere/a", path="x y")) == "file:///elsewhere/a/x%20y"
    assert uri_of(make_finding(record="a:b#c", path="%41?ü")) == "a%3Ab%23c/%2541%3F%C3%BC"
    assert uri_of(make_finding(path="/etc/passwd")) == "records/a/etc/passwd"


@given(record=texts, path=texts)
def test_sarif_places_are_uris_of_valid_utf8(record: str, path: str) -> None:
    uri = uri_of(make_finding(record=record, path=path))
    assert re.fullmatch(r"(file://)?[A-Za-z0-9%/._~-]*", uri)
    unquote(uri, errors="strict")


def test_sarif_has_lines_rules_and_levels() -> None:
    run = sarif_of(
        report_of(
            make_finding(line=12, path="record.json"),
            make_finding(severity="minor"),
            make_finding(status="unverifiable"),
            make_finding(status="note"),
            make_finding(status="pass"),
        )
    )
    driver, results = run["tool"]["driver"], run["results"]
    assert [result["level"] for result in results] == ["error", "warning", "note", "note"]
    # Level note belongs to kind "fail" only, which is what no kind means.
    assert not any("kind" in result for result in results)
    regions = [result["locations"][0]["physicalLocation"]["region"]["startLine"] for result in results]
    assert regions == [12, 1, 1, 1]
    assert all(driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"] for result in results)
    assert [rule["id"] for rule in driver["rules"]] == list(RULES)
    b1 = next(rule for rule in driver["rules"] if rule["id"] == "B1")
    assert (b1["shortDescription"]["text"], b1["fullDescription"]["text"], b1["help"]["text"]) == (
        RULES["B1"].title,
        RULES["B1"].text,
        RULES["B1"].fix,
    )
    assert {rule["defaultConfiguration"]["level"] for rule in driver["rules"]} == {"error", "warning"}


def test_sarif_fingerprints_outlive_lines_and_numbers() -> None:
    def fingerprint(*found: Finding) -> str:
        return sarif_of(report_of(*found))["results"][-1]["partialFingerprints"]["primaryLocationLineHash"]

    first = fingerprint(make_finding(path="record.json", line=3, claimed=1))
    assert fingerprint(make_finding(path="record.json", line=9, claimed=2, message="other")) == first
    assert fingerprint(make_finding(path="log.jsonl")) != first
    # The second check of a rule keeps its name when the first one is repaired.
    second = fingerprint(make_finding(), make_finding())
    assert fingerprint(make_finding(status="pass"), make_finding()) == second != fingerprint(make_finding())


def test_sarif_messages_have_neither_links_nor_placeholders() -> None:
    (result,) = sarif_of(report_of(make_finding(message="[x](http://evil.example) {0}")))["results"]
    assert result["message"]["text"] == r"fail: \[x\](http://evil.example) {{0}}"


# The command


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good and a wrong record under a hostile name, seen from the folder above."""
    make_record(tmp_path / "records" / "good", seed=1)
    wrong = make_record(tmp_path / "records" / "wrong\x1b[31m|@all<script>", seed=2)
    put("metrics.test.val_bpb", 1.5)(wrong)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("output_format", list(FORMATS))
def test_out_holds_what_would_be_printed(output_format: str, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["verify", "records", "--format", output_format]
    assert run_command(arguments) == 1
    printed = capsys.readouterr().out
    assert run_command([*arguments, "--out", "report"]) == 1
    assert capsys.readouterr().out == "report: 2 records\n"
    written = (tree / "report").read_text()
    if output_format == "table":  # a file has no width to fit into
        assert written.splitlines()[-1] == printed.splitlines()[-1]
    else:
        assert written == printed
    assert "\x1b" not in written and written.endswith("\n")


@pytest.mark.parametrize("output_format", list(FORMATS))
def test_nothing_failed_is_0_in_every_format(output_format: str, tree: Path) -> None:
    assert run_command(["verify", "records/good", "--format", output_format]) == 0


def test_unknown_format_and_unwritable_out_are_one_line(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["verify", "records", "--format", "sarf"]) == 2
    error = capsys.readouterr().err
    assert error == "error: --format sarf: Did you mean 'sarif'? Known: json, junit, markdown, sarif, table.\n"
    assert run_command(["verify", "records", "--format", "sarif", "--out", "nowhere/x.sarif"]) == 4
    error = capsys.readouterr().err
    assert error.startswith("error: cannot write nowhere/x.sarif: ") and error.count("\n") == 1


def test_formats_go_through_a_real_report(tree: Path) -> None:
    report = verify_paths([Path("records")])
    (result,) = sarif_of(report)["results"]
    place = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert (tree / unquote(place)).is_file()
    assert len(list(junit_of(report).iter("failure"))) == 1
    assert "<script>" not in rendered(report, "markdown")


# What the README and the hook definition tell others to run


def fenced(language: str, title: str) -> Any:
    """Parse the block of the README that begins with a comment."""
    yaml = pytest.importorskip("yaml")
    readme = (ROOT / "docs/verifying.md").read_text()
    (block,) = re.findall(rf"```{language}\n(# {re.escape(title)}.*?)```", readme, re.DOTALL)
    return yaml.safe_load(block)


def test_workflow_of_the_readme_runs(tree: Path) -> None:
    workflow = fenced("yaml", ".github/workflows/verify.yml")
    steps = workflow["jobs"]["verify"]["steps"]
    commands = [step["run"] for step in steps if step.get("run", "").startswith("harness ")]
    assert len(commands) == 2
    for command in commands:
        arguments = shlex.split(command.partition(">>")[0])[1:]
        assert run_command(arguments) == 1
    upload = next(step for step in steps if "upload-sarif" in step.get("uses", ""))
    assert (tree / upload["with"]["sarif_file"]).is_file()
    assert "always()" in upload["if"]
    assert workflow["permissions"]["security-events"] == "write"


def test_hook_is_a_command_of_this_package(tree: Path) -> None:
    yaml = pytest.importorskip("yaml")
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert (hook["id"], hook["language"], hook["pass_filenames"]) == ("harness-verify", "python", False)
    script, *arguments = shlex.split(hook["entry"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"][script] == "harness.cli:main"
    assert run_command([*arguments, *hook["args"]]) == 1


def test_hook_of_the_readme_is_the_one_that_exists() -> None:
    config = fenced("yaml", ".pre-commit-config.yaml")
    (used,) = config["repos"][0]["hooks"]
    assert used["id"] in (ROOT / ".pre-commit-hooks.yaml").read_text()
