"""Record folders that were made to break the reader: each trick ends in findings, in time, and nothing is written."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import socket
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from harness.errors import RecordError
from harness.records import discovery, folder, log_stream, submission
from harness.records.markdown import read_readme
from harness.records.numbers import MAX_VALUE, last_place, parse_number
from harness.records.safeio import index_lines
from harness.records.speedrun import SpeedRun
from harness.records.summary_json import read_summary
from harness.records.training_logs import RunReader
from harness.verify import run
from harness.verify.command import FORMATS, VerifyOptions, run_verify
from harness.verify.findings import Report

MAX_SECONDS = 20.0
LOG = "seed:42\nstep:0/100 val_loss:6.9 val_bpb:4.1\nstep:100/100 val_loss:2.0 val_bpb:1.2 train_time:59000ms\n"
LOG += "Total submission size int8+zlib: 15000000 bytes\nfinal_int8_zlib_roundtrip val_loss:2.0001 val_bpb:1.2001\n"
SUMMARY = '{"name": "A", "val_bpb": 1.2001, "val_loss": 2.0001, "bytes_total": 15000000, "seed": 42}'
README = "# A: val_bpb 1.2001\n\n| Seed | val_bpb |\n|---|---|\n| 42 | 1.2001 |\n"
HOSTILE_NAMES = {
    "newline": "train\n::error::x.log",
    "escape": "train\x1b[31m\x1b]0;x\x07.log",
    "right to left": "train\u202egol.log",
    "invalid UTF-8": os.fsdecode(b"train\xff\xfe.log"),
    "markup": "train[bold]<img src=x>|`x`.log",
    "backslash": "..\\..\\train.log",
    "quotes": "train'\"&;$(id).log",
    "long": "train" + "x" * 240 + ".log",
}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "track_10min_16mb" / "record"
    path.mkdir(parents=True)
    for name, text in {"submission.json": SUMMARY, "README.md": README, "train.log": LOG}.items():
        (path / name).write_text(text)
    (path / "train_gpt.py").write_text("raise SystemExit('never run')\n")
    return path


def snapshot(path: Path) -> list[tuple[str, int, int]]:
    found = []
    for base, folders, files in os.walk(path):
        for name in folders + files:
            status = os.lstat(f"{base}/{name}")
            found.append((f"{base}/{name}", status.st_size, status.st_mtime_ns))
    return sorted(found)


def verify(path: Path, **options: object) -> Report:
    """Verify, and check all that holds whatever is in the folder."""
    before, start = snapshot(path), time.monotonic()
    report = run.verify_paths([path], **options)  # type: ignore[arg-type]
    rendered = {name: render(report, VerifyOptions(output_format=name)) for name, render in FORMATS.items()}
    assert time.monotonic() - start < MAX_SECONDS
    assert [error.traceback for error in report.internal_errors] == []
    assert report.exit_code in (0, 1)
    assert snapshot(path) == before
    for text in rendered.values():
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
        text.encode()
    json.loads(rendered["json"])
    json.loads(rendered["sarif"])
    ElementTree.fromstring(rendered["junit"])
    return report


def messages(report: Report, *statuses: str) -> str:
    return "\n".join(f.message for f in report.findings if f.status in statuses)


def test_the_honest_folder_has_no_fault(record: Path) -> None:
    assert messages(verify(record), "fail") == ""


# Names, links and files that are none


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_names_of_files_are_escaped_in_every_output(record: Path, name: str) -> None:
    (record / name).write_text(LOG.replace("1.2001", "9.9999"))
    (record / "odd" / "deep").mkdir(parents=True)
    (record / "odd" / "deep" / name).write_text(LOG)
    assert verify(record).findings


@pytest.mark.parametrize("name", [name for name in HOSTILE_NAMES.values() if len(name) < 100])
@pytest.mark.parametrize("output_format", FORMATS)
def test_a_folder_of_any_name_goes_through_the_command(
    record: Path, tmp_path: Path, name: str, output_format: str
) -> None:
    target = record.rename(record.with_name(name))
    (target / "train.log").write_text("")
    out, page = tmp_path / "report", io.StringIO()
    for options in (VerifyOptions(output_format=output_format), VerifyOptions(output_format=output_format, out=out)):
        assert run_verify([target], options, Console(file=page, width=120, color_system=None)) == 1
    page.getvalue().encode()
    assert out.read_bytes()


@pytest.mark.parametrize("name", ["submission.json", "README.md", "train.log", "train_gpt.py"])
@pytest.mark.parametrize("target", ["/etc/passwd", "/dev/zero", "/proc/self/environ", "../../x", "missing", "NAME"])
def test_links_to_elsewhere_are_not_followed(record: Path, name: str, target: str) -> None:
    (record / name).unlink()
    (record / name).symlink_to(target.replace("NAME", name))
    report = verify(record)
    assert re.search(r"link that leaves|cannot be looked at", messages(report, "note"))
    assert "root:" not in FORMATS["json"](report, VerifyOptions())


def test_a_linked_folder_is_not_entered(record: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "train_seed7.log").write_text(LOG)
    (record / "logs").symlink_to(tmp_path / "elsewhere")
    (record / "loop").symlink_to(record)
    assert "train_seed7" not in FORMATS["json"](verify(record), VerifyOptions())


@pytest.mark.parametrize("name", ["submission.json", "README.md", "train.log"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "linked folder"])
def test_what_is_no_file_is_not_opened(record: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str) -> None:
    (record / name).unlink()
    if kind == "pipe":
        os.mkfifo(record / name)
    elif kind == "socket":
        monkeypatch.chdir(record)  # its address is short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(name)
    else:
        (record / ("inner" if kind == "linked folder" else name)).mkdir()
        if kind == "linked folder":
            (record / name).symlink_to("inner")
    report = verify(record.parent)
    assert messages(report, "unverifiable")
    assert "folder" in kind or "not a regular file" in messages(report, "note")


@pytest.mark.parametrize("name", ["submission.json", "README.md", "train.log"])
def test_a_file_that_cannot_be_read(record: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (record / name).chmod(0)  # enough, but for the superuser
    real = os.open

    def refuse(path: str | Path, *args: int) -> int:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied")
        return real(path, *args)

    monkeypatch.setattr("harness.records.safeio.os.open", refuse)
    assert "Permission denied" in messages(verify(record), "fail", "unverifiable")


@pytest.mark.parametrize("name", ["submission.json", "README.md", "train.log"])
@pytest.mark.parametrize("change", ["vanishes", "grows", "shrinks", "becomes a link"])
def test_files_that_change_between_listing_and_reading(record: Path, name: str, change: str) -> None:
    (found,) = discovery.scan_records(record, with_foreign=True).foreign
    path = record / name
    if change in ("vanishes", "becomes a link"):
        path.unlink()
    if change == "becomes a link":
        path.symlink_to("/etc/passwd")
    if change == "grows":
        path.write_bytes(path.read_bytes() * 1000)
    if change == "shrinks":
        path.write_bytes(b"")
    examined = run._examine_foreign(found, run.load_rules().of_level("static"))
    assert not examined.errors and examined.findings


# Trees


def test_a_deep_and_a_wide_tree_are_capped(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MAX_DEPTH", 3)
    (record / "a" / "b" / "c" / "d" / "e").mkdir(parents=True)
    assert "a/b/c/d: lies too deep" in messages(verify(record), "note")
    monkeypatch.setattr(folder, "MAX_FILES", 20)
    for i in range(60):
        (record / f"part{i}").mkdir()
        (record / f"part{i}" / "notes.txt").write_text("x")
    text = messages(verify(record), "note")
    assert "more than the 20 files" in text and "more than 40 entries" in text


def test_thousands_of_links_are_one_finding_too_many(record: Path) -> None:
    for i in range(3000):
        (record / f"link{i}").symlink_to("/etc/passwd")
    assert sum("link that leaves" in f.message for f in verify(record).findings) == folder.MAX_PROBLEMS


def test_an_endless_tree_is_walked_to_a_limit(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(300):
        (record / f"part{i}").mkdir()
    tree = discovery.scan_records(record, max_entries=100, with_foreign=True)
    assert not tree.is_complete


def test_records_in_records_are_each_read_once(record: Path) -> None:
    inner = record
    for i in range(20):
        inner = inner / f"r{i}"
        inner.mkdir()
        (inner / "submission.json").write_text(SUMMARY)
    assert len(verify(record).rows) == 21


# JSON

DEEP = 100_000
JSON_TRICKS = {
    "deep lists": '{"a": ' + "[" * DEEP + "]" * DEEP + "}",
    "deep objects": '{"a":' * DEEP + "1" + "}" * DEEP,
    "moderately deep": '{"a": ' + "[" * 900 + "]" * 900 + "}",
    "long keys in each other": ('{"' + "k" * 50_000 + '":') * 9
    + "{"
    + ",".join(f'"a{i}":1' for i in range(9000))
    + "}" * 10,
    "one long key": '{"' + "x" * 900_000 + '":{' + ",".join(f'"bpb_{i}":1.1' for i in range(5000)) + "}}",
    "many keys twice": "{" + ",".join(f'"k{i}":1' for i in range(70_000)) + ',"k1":2,"k69999":3}',
    "a key twice, often": '{"a":[' + ",".join(['{"k":1,"k":2}'] * 70_000) + "]}",
    "NaN, often": '{"a":[' + ",".join(["NaN", "-Infinity"] * 60_000) + "]}",
    "many seeds": json.dumps({"val_bpb": 1.1, "seeds": list(range(120_000))}),
    "many seed results": json.dumps({"seed_results": {str(i): {"val_bpb": 1.1 + i / 1e5} for i in range(30_000)}}),
    "many numbers": '{"val_bpb":[' + ",".join(["1.1"] * 260_000) + "]}",
    "huge numbers": '{"val_bpb": 1e400, "val_loss": -1e400, "bytes_total": ' + "9" * 399 + ', "steps": 1e99999}',
    "huge integer": '{"seed": ' + "9" * 5000 + "}",
    "huge seeds": '{"seed": 99999999999999999999, "seeds": [99999999999999999999, -1, 1e300, true, null]}',
    "tiny numbers": '{"val_bpb": 1e-400, "val_loss": 1e-320, "bytes_total": -0, "params": 1e-99999}',
    "zeros": '{"val_bpb": 0, "val_loss": 0.0, "bytes_total": 0, "bytes_model": 0, "code_bytes": 0, "step_avg_ms": 0}',
    "zero of a huge exponent": '{"val_bpb": 0e9999, "val_loss": 0e400}',
    "negative": '{"val_bpb": -1.2, "val_loss": -2, "bytes_total": -15000000, "steps": -5, "train_time": -600}',
    "NaN": '{"val_bpb": NaN, "val_loss": Infinity}',
    "numbers in strings": '{"val_bpb": "1e999", "val_loss": "' + "9" * 39 + '", "bytes_total": "~<>9e99 GiB"}',
    "lone surrogates": '{"name": "\\ud800 \\udfff", "val_bpb": 1.2, "\\ud800_loss": {"\\udc80 bpb": 1.5}, "track": "\\udfff"}',
    "control characters": '{"name": "\\u001b[31m\\u0000\\u202e\\u0085", "val_bpb": 1.5, "\\u001b[1m\\n bpb": 1.7}',
    "raw control characters": '{"name": "\x1b[31m\x01", "val_bpb": 1.2}',
    "markup": '{"name": "[red]<script>|`@all #1", "val_bpb": 1.5, "[link=x] loss <b>": 7}',
    "dots in keys": '{"a.b.c": {"val_bpb": 1.3}, "a": {"b": {"c.val_bpb": 1.4}}, ".": {"": {"bpb": 1}}}',
    "numbers as keys": '{"1": {"2": {"3": {"val_bpb": 1}}}, "\u0661\u0662": {"val_bpb": 2}, "\u00b2": {"bpb": 1}}',
    "no object": "[1, 2]",
    "a word": '"val_bpb"',
    "nothing": "",
    "blanks": " " * 1_000_000,
    "cut": SUMMARY[:-20],
    "open brackets": "{\n" * 400_000,
    "open string": '{"val_bpb": 1.1, "a": "' + "\\u0041" * 100_000,
    "too large": SUMMARY + " " * 2**21,
    "byte-order mark": "\ufeff" + SUMMARY,
}


@pytest.mark.parametrize("text", JSON_TRICKS.values(), ids=JSON_TRICKS)
def test_tricks_in_the_summary(record: Path, text: str) -> None:
    (record / "submission.json").write_text(text)
    assert verify(record).findings


@pytest.mark.parametrize(
    "raw", [b"\xff\xfe{\x00}\x00", b'{"name": "\xff\xfe", "val_bpb": 1.2}', b"\0" * 5000, b"\x1f\x8b\x08"]
)
def test_bytes_in_the_summary(record: Path, raw: bytes) -> None:
    (record / "submission.json").write_bytes(raw)
    assert "submission.json" in messages(verify(record), "note", "fail")


def test_two_keys_and_words_for_numbers_are_said_once() -> None:
    summary = read_summary(b'{"a": 1, "a": 2, "b": [NaN, NaN], "val_bpb": 1e400}', "x.json")
    assert [problem.message for problem in summary.problems] == [
        "NaN is not a number in JSON",
        "the key 'a' stands twice",
    ]
    assert list(summary.claims) == []


def test_lines_of_keys_take_little_memory_however_long_the_paths() -> None:
    text = ('{"' + "k" * 40_000 + '":') * 9 + '{"a": 1}' + "}" * 9
    assert index_lines(text) == {}
    assert index_lines('{"a":' * 500 + "1" + "}" * 500).keys() == {".".join("a" * n) for n in range(1, 65)}


# README

README_TRICKS = {
    "rows by seed": "| Seed | BPB | Loss |\n|---|---|---|\n"
    + "".join(f"| {i} | 1.{i:05d} | 2.{i:05d} |\n" for i in range(40_000)),
    "many tables": "".join(f"| Seed | BPB |\n|---|---|\n| {i} | 1.{i:05d} |\n\n" for i in range(30_000)),
    "rows of values": "| metric | value |\n|---|---|\n" + "".join(f"| val_bpb | 1.{i:05d} |\n" for i in range(50_000)),
    "a wide table": "|Seed|" + "bpb|" * 900 + "\n|---|" + "---|" * 900 + "\n" + ("|1|" + "1.1|" * 900 + "\n") * 250,
    "separators that are none": ("| a |\n|" + " " * 1900 + "-|" + " " * 2000 + "x\n") * 250,
    "separators of blanks": ("| a |\n|" + "  |" * 1300 + "x\n") * 250,
    "blanks": (" " * 3990 + "x\n") * 260,
    "labels": "".join(f"- artifact bytes: {15_000_000 + i} bytes\n" for i in range(30_000)),
    "seeds": "".join(f"- seed: {i}\n" for i in range(60_000)),
    "differences": "".join(f"gain 0.0{i} BPB (0.0{i} nats)\n" for i in range(1000, 9999)),
    "commands": "```\n" + ("python " * 570 + "\n") * 260,
    "scripts": "```\n" + "".join(f"python x{i}.py\n" for i in range(40_000)),
    "disclosures": "".join(f"- steps: {i} re-run separately\n" for i in range(30_000)),
    "words of a partial evaluation": "# A\n" + "eval_" * 200_000,
    "an endless number": "# A\nfirst " + "1," * 500_000,
    "digits": ("- steps: " + "1" * 3900 + "\n") * 260,
    "one line": "a" * 1_040_000,
    "empty lines": "\n" * 4_000_000,
    "too large": "x" * 5_000_000,
    "fences": "```\n~~~\n" * 100_000,
    "huge numbers": "# val_bpb: 9e999\n- steps: 9e999\n- params: 1e400 M\n\n| step | val_bpb |\n|---|---|\n| 1e999 | 1.2 |\n",
    "digits of other scripts": "| Seed | val_bpb |\n|---|---|\n| \u0661\u0662 | \u0661.\u0662 |\n- seed: \u0663\n",
    "zeros": "# val_bpb: 0.0000\n- val_loss: 0.0\n- steps: 0\n\n| Seed | BPB | Loss |\n|---|---|---|\n| 0 | 0 | 0 |\n| 1 | 0 | 0 |\n",
    "escapes": "# \x1b[31mred\x1b[0m val_bpb: 1.5\n- \x07params\x00: 5\n",
}


@pytest.mark.parametrize("text", README_TRICKS.values(), ids=README_TRICKS)
@pytest.mark.parametrize("log", [LOG, "step:1/2 val_loss:3.2 train_time:100ms\n" * 5], ids=["golf", "speedrun"])
def test_tricks_in_the_readme(record: Path, text: str, log: str) -> None:
    (record / "README.md").write_text(text)
    (record / "train.log").write_text(log)
    if "val_bpb" not in log:
        (record / "submission.json").unlink()
    assert verify(record).findings


@pytest.mark.parametrize(
    "filler", ["\n" * 1_000_000, "aaa=[\n" * 160_000, "aaa = [" + "1, " * 300_000 + "]", " " * 1_000_000]
)
def test_lists_of_a_speed_run(tmp_path: Path, filler: str) -> None:
    (tmp_path / "a.log").write_text("step:1/2 val_loss:3.2 train_time:100ms\n" * 5)
    (tmp_path / "README.md").write_text("losses = [3.2, 1e999]\ntimes = [1]\n" + filler)
    assert verify(tmp_path).rows[0].kind == SpeedRun.name


def test_a_long_readme_says_that_it_was_not_read_to_its_end() -> None:
    readme = read_readme(README_TRICKS["rows by seed"].encode(), "README.md")
    assert len(readme.claims) <= submission.MAX_CLAIMS and "not all of it was read" in readme.problems[0].message


# Logs


def gzipped() -> bytes:
    return gzip.compress(b"0" * 10_000_000)


def zipped() -> bytes:
    page = io.BytesIO()
    with zipfile.ZipFile(page, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../x", "0" * 10_000_000)
    return page.getvalue()


LOG_TRICKS: dict[str, bytes] = {
    "nothing": b"",
    "NUL": b"\0" * 1_000_000,
    "one line": b"val_bpb:1.2 " * 1_000_000,
    "long lines": (b"val_bpb " * 9000 + b"\n") * 50,
    "prefixes": (b"[a] " * 4000 + b"val_loss:1.0\n") * 300,
    "empty lines": b"\n" * 3_000_000,
    "carriage returns": b"val_bpb:1.2\r" * 200_000,
    "borders": (b"=" * 50 + b"\n") * 50_000,
    "imports": b"import x\n" * 200_000,
    "borders and imports": (b"import x\nval_bpb:9\n" + b"=" * 50 + b"\n") * 30_000,
    "half lines": b"val_loss:1.0\n" * 30_000,
    "validations": b"".join(b"step:%d/9 val_loss:2.1 val_bpb:1.2 train_time:5ms\n" % i for i in range(1, 30_000)),
    "runs": b"".join(b"seed:%d\nfinal val_loss:2.1 val_bpb:1.2\n" % i for i in range(15_000)),
    "restarts": b"step:0/9 val_loss:2.1 val_bpb:1.2\n" * 20_000,
    "sizes": b"Serialized model int8: 5 bytes\nCode size: 5\nTotal submission size: 5 bytes\n" * 7000,
    "confessions": b"OVER BUDGET\nx_wallclock: 700s (must be <= 600)\n9 batches (limited)\nval_max_tokens:5\n" * 6000,
    "huge numbers": b"seed:99999999999999999999\nmodel_params:" + b"9" * 400 + b"\nstep:" + b"9" * 3900 + b"/9 val_loss:1.0\n"
    b"final val_loss:1e999 val_bpb:1e-999\nfinal val_loss:9e300 val_bpb:9e300\nGPTQ: collected x in 1e999 s\n",
    "zeros": b"step:0/0 val_loss:0 val_bpb:0\nstep:1/1 val_loss:0.0 val_bpb:0.0 train_time:0ms step_avg:0ms\nfinal val_loss:0 val_bpb:0\n",
    "escapes": b"final\x1b[31m\x1b]0;x\x07 val_loss:2.0 val_bpb:9.9\nOVER BUDGET \x1b[5m\x9b\xe2\x80\xae\n",
    "invalid UTF-8": b"final \xff\xfe\xed\xa0\x80 val_loss:2.0 val_bpb:9.9\n" * 100,
    "UTF-16": LOG.encode("utf-16"),
    "UTF-16 cut": LOG.encode("utf-16")[:-1] + b"\x00\xd8",
    "UTF-32": LOG.encode("utf-32"),
    "byte-order mark": b"\xef\xbb\xbf" + LOG.encode(),
    "gzip": gzipped(),
    "zip": zipped(),
    "pickle": b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.",
    "random": bytes((i * i * 7919 + (i >> 3)) & 255 for i in range(300_000)),
}  # fmt: skip


@pytest.mark.parametrize("raw", LOG_TRICKS.values(), ids=LOG_TRICKS)
def test_tricks_in_the_log(record: Path, raw: bytes) -> None:
    (record / "train.log").write_bytes(raw)
    (record / "train_seed7.log").write_bytes(raw + LOG.encode())
    assert verify(record).findings


def read_log(raw: bytes, **budget: int) -> RunReader:
    reader = RunReader("train.log", log_stream.LogBudget(**budget))
    reader.read(io.BytesIO(raw))
    return reader


def test_the_last_scores_of_an_endless_log_are_read() -> None:
    reader = read_log(LOG_TRICKS["validations"] + LOG.encode(), lines_left=2000)
    assert reader.run.finals[-1].text == "1.2001" and reader.run.finals[-1].line == 29_999 + len(LOG.splitlines())
    assert "in the middle" in "".join(problem.message for problem in reader.problems())


def test_a_log_that_just_fits_is_read_whole() -> None:
    lines = b"".join(b"final val_loss:2.0 val_bpb:1.%04d\n" % i for i in range(600))
    reader = read_log(lines, lines_left=100)
    assert [r.line for r in reader.run.of("bpb")][499:502] == [500, 501, 502] and len(reader.run.of("bpb")) == 600
    assert list(reader.problems()) == []


def test_training_steps_that_are_not_wanted_cost_no_line_of_the_budget() -> None:
    steps = b"".join(b"step:%d/9000 train_loss:3.1 train_time:5ms\n" % i for i in range(1, 9000))
    reader = read_log(steps + LOG.encode(), lines_left=1000)
    assert not reader.state.is_dropping and reader.state.budget.lines_left > 700


def test_of_too_many_readings_the_first_and_the_newest_are_kept() -> None:
    reader = read_log(LOG_TRICKS["validations"], readings_left=1000)
    steps = [reading.step for reading in reader.run.of("bpb")]
    assert len(reader.run.readings) == 1000 and steps[0] == 1 and steps[-1] == 29_999


def test_of_too_many_runs_the_last_is_kept() -> None:
    reader = read_log(LOG_TRICKS["runs"], runs_left=0)
    assert len(reader.runs) == 2 and reader.run.seed is not None and reader.run.seed.text == "14999"


def test_a_log_of_a_hundred_gigabytes_is_not_read(record: Path) -> None:
    with (record / "train.log").open("wb") as handle:
        handle.truncate(100 * 10**9)
    start = time.monotonic()
    report = verify(record)
    assert "up to 4 GiB" in messages(report, "unverifiable") and not messages(report, "fail")
    assert time.monotonic() - start < 5


def test_a_log_that_grows_beyond_the_limit_is_given_up(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(handle: object, state: log_stream.StreamState) -> Iterator[bytes]:
        yield b"final val_loss:9.0 val_bpb:9.0\n" * 1000
        raise RecordError("too large")

    monkeypatch.setattr(log_stream, "_chunks", endless)
    assert "9.0" not in messages(verify(record), "fail", "pass")


def test_thousands_of_logs_and_claims(record: Path) -> None:
    for i in range(1500):
        (record / f"train_seed{i}.log").write_text(LOG.replace("2001", f"{i:04d}"))
    results = {str(i): {"val_bpb": 1.2 + i / 1e4, "artifact_bytes": 15_000_000 + i} for i in range(1500)}
    (record / "submission.json").write_text(json.dumps({"val_bpb": 1.2, "seed_results": results}))
    assert "more than the 200 logs" in messages(verify(record), "unverifiable")


def test_many_summaries_and_readmes(record: Path) -> None:
    for i in range(500):
        (record / f"submission_{i}.json").write_text(SUMMARY)
        (record / f"README.{i}").write_text(README)
    text = messages(verify(record), "unverifiable")
    assert "more than the 10 summaries" in text and "more than the 10 READMEs" in text


# Numbers


@pytest.mark.parametrize("text", ["1e999", "-1e999", "9" * 60, "1e400 MB", "~" + "9" * 40])
def test_numbers_beyond_all_records_are_none(text: str) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize("text", ["1e99999", "0e" + "9" * 390, "1e-99999", "1." + "0" * 390])
def test_the_last_place_of_any_number_is_a_number(text: str) -> None:
    assert 0 <= last_place(text) <= MAX_VALUE


def test_a_reader_that_raises_is_one_internal_error(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise LookupError("of a plugin")

    monkeypatch.setattr(SpeedRun, "read", broken)
    other = record.parent / "speedrun"
    other.mkdir()
    (other / "a.log").write_text("step:1/2 val_loss:3.2 train_time:100ms\n" * 5)
    report = run.verify_paths([record.parent])
    assert report.exit_code == 3 and len(report.rows) == 2 and "of a plugin" in report.internal_errors[0].message
