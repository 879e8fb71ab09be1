"""`harness report` and `harness respond`: output, exit codes, what they import."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from record_factory import make_record
from report_factory import make_evidence, make_sweep, only_given_claims, write_claims

from harness.cli import run_command
from harness.responses import MAX_REPLY_BYTES, find_responses

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _only_given_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    only_given_claims(monkeypatch)


def test_a_report_says_what_it_wrote(tmp_path: Path, capsys) -> None:
    paths = make_evidence(tmp_path)
    out = tmp_path / "site"
    claims = write_claims(tmp_path / "paper.toml")
    code = run_command(["report", *map(str, paths), "--out", str(out), "--claims", str(claims)])
    assert code == 0
    assert capsys.readouterr().out == f"{out / 'index.html'}: 4 claims, 13 records, 7 figures\n"
    assert {path.name for path in out.iterdir()} == {"index.html", "report.md", "report.json", "figures"}


def test_a_sweep_alone_is_enough(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "one.json")
    assert run_command(["report", str(sweep), "--out", str(tmp_path / "site")]) == 0
    assert (tmp_path / "site" / "figures" / "rate-distortion.svg").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["empty"], "no record or sweep found at or below empty"),
        (["records", "--level", "evaluate"], "--level evaluate: a report is made from files alone"),
        (["records", "--claims", "nowhere.toml"], "nowhere.toml: no such file"),
        (["records", "--out", "full"], "--out full is not empty and holds no report.json of a report; choose another"),
        (
            ["records", "--out", "theirs"],
            "--out theirs is not empty and holds no report.json of a report",
        ),
        (["records", "--out", "full/other.txt/site"], "full/other.txt is a file; give a folder"),
        (["records", "--out", "link"], "--out link is a file; give a folder"),
        (["records", "--out", "odd"], "odd/figures is no folder of a report; move it, or choose another folder"),
        (["records", "--out", "full/other.txt"], "--out full/other.txt is a file; give a folder"),
        ([], "Missing argument"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(tmp_path: Path, monkeypatch, capsys, arguments, words) -> None:
    make_record(tmp_path / "records" / "one")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other.txt").write_text("mine")
    (tmp_path / "theirs" / "figures").mkdir(parents=True)
    (tmp_path / "theirs" / "report.json").write_text('{"somebody": "else"}')
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "report.json").write_text('{"program": "claims-harness 0"}')
    (tmp_path / "odd" / "figures").write_text("")
    monkeypatch.chdir(tmp_path)
    assert run_command(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "site").exists()
    assert (tmp_path / "theirs" / "figures").is_dir()


def test_a_missing_extra_names_the_command_that_installs_it(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("harness.provenance.has_module", lambda name: name != "jinja2")
    assert run_command(["report", str(make_record(tmp_path / "one"))]) == 2
    assert "pip install 'claims-harness[report]'" in capsys.readouterr().err


def test_a_record_that_cannot_be_read_is_said_and_hides_no_other(tmp_path: Path, monkeypatch) -> None:
    make_record(tmp_path / "records" / "good")
    broken = make_record(tmp_path / "records" / "broken", seed=2)
    (broken / "record.json").write_text('{"schema": 1')
    assert run_command(["report", str(tmp_path / "records"), "--out", str(tmp_path / "site")]) == 0
    document = json.loads((tmp_path / "site" / "report.json").read_text())
    assert [each["folder"] for each in document["unreadable"]] == ["records/broken"]
    assert "the record cannot be read" in (tmp_path / "site" / "index.html").read_text()


def test_nothing_below_imports_the_reports() -> None:
    for path in (*ROOT.glob("harness/**/*.py"), *ROOT.glob("methods/**/*.py"), *ROOT.glob("baselines/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "reports"], path


def test_the_command_is_light_until_it_draws() -> None:
    code = (
        "import sys, reports.command; "
        "heavy = {'torch', 'pandas', 'matplotlib', 'jinja2'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reply_to_a_record_lies_beside_it_and_is_stored_once(tmp_path: Path, capsys) -> None:
    record = make_record(tmp_path / "records" / "one")
    reply = tmp_path / "reply.md"
    reply.write_text("It was *another* log.\n")
    for _ in range(2):
        assert run_command(["respond", str(record), "--file", str(reply), "--author", "A. N."]) == 0
    folder = Path(capsys.readouterr().out.split(": the reply")[0])
    assert folder.parent == tmp_path / "records" / "responses" / "one"
    assert (folder / "reply.md").read_bytes() == reply.read_bytes()
    found = list(find_responses([tmp_path / "records"]))
    assert [(each.part.kind, each.part.subject, each.part.author, each.text) for each in found] == [
        ("record", "one", "A. N.", "It was *another* log.\n")
    ]
    # also where the record's own folder is given
    assert len(list(find_responses([record]))) == 1
    # a folder of replies is no record of anything
    assert run_command(["verify", str(tmp_path / "records")]) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--author", "A" * 257], "--author: at most 256 characters of UTF-8; got 257"),
        (["--author", "\udcff"], "--author: at most 256 characters of UTF-8; got 1"),
        (["--out", "reply.md"], "cannot be made: Not a directory; give another folder with --out"),
    ],
)
def test_wrong_options_of_a_reply_are_one_line(tmp_path: Path, monkeypatch, capsys, options, words) -> None:
    make_record(tmp_path / "one")
    monkeypatch.chdir(tmp_path)
    Path("reply.md").write_text("text")
    assert run_command(["respond", "one", "--file", "reply.md", *options]) == 2
    assert words in capsys.readouterr().err


def test_one_text_of_two_authors_is_two_replies(tmp_path: Path) -> None:
    record = make_record(tmp_path / "records" / "one")
    reply = tmp_path / "reply.md"
    reply.write_text("We agree.")
    for author in ("A. N.", "B. N."):
        assert run_command(["respond", str(record), "--file", str(reply), "--author", author]) == 0
    assert sorted(each.part.author for each in find_responses([tmp_path / "records"])) == ["A. N.", "B. N."]


def test_a_reply_to_a_claim_carries_the_hash_of_what_the_verdict_hangs_on(tmp_path: Path) -> None:
    claims = write_claims(tmp_path / "paper.toml")
    reply = tmp_path / "reply.md"
    reply.write_text("We meant the block.")
    arguments = ["respond", f"{claims}#C2", "--file", str(reply), "--out", str(tmp_path / "records")]
    assert run_command(arguments) == 0
    make_record(tmp_path / "records" / "one")
    out = tmp_path / "site"
    assert run_command(["report", str(tmp_path / "records"), "--claims", str(claims), "--out", str(out)]) == 0
    document = json.loads((out / "report.json").read_text())
    (response,) = document["responses"]
    assert response["is_current"]
    assert response["subject_sha256"] == next(c["claim_sha256"] for c in document["claims"] if c["name"] == "paper.C2")
    # the predicate changes, so the reply was to an earlier version
    claims.write_text(claims.read_text().replace("before / after == wrong", "after / before == wrong"))
    assert run_command(["report", str(tmp_path / "records"), "--claims", str(claims), "--out", str(out)]) == 0
    assert not json.loads((out / "report.json").read_text())["responses"][0]["is_current"]


@pytest.mark.parametrize(
    ("subject", "content", "words"),
    [
        ("one", None, "no such file; write the reply there first"),
        ("one", b"", "0 bytes; a reply has 1 to"),
        ("one", b"x" * (MAX_REPLY_BYTES + 1), "a reply has 1 to"),
        ("one", b"\xff\xfe", "not UTF-8 text"),
        ("mpo.C999", b"text", "no claim 'mpo.C999'"),
        (".", b"text", "is no record folder"),
        ("", b"text", "no claim ''"),
        ("x" * 300, b"text", "no claim 'xxx"),
        ("o\udcff", b"text", "the name of the folder is not UTF-8; rename it"),
    ],
)
def test_a_reply_that_cannot_be_stored_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch, capsys, subject, content, words
) -> None:
    make_record(tmp_path / "one")
    make_record(tmp_path / "o\udcff")
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("reply.md").write_bytes(content)
    assert run_command(["respond", subject, "--file", "reply.md"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.rglob("response.json"))
