"""A dialect of another distribution: found through its entry point, judged by the same rules, refused clearly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli import run_command
from harness.errors import UsageError
from harness.records.formats import ENTRY_POINT_GROUP, record_formats

MODULE = """
from harness.records.submission import LoggedRun, Reading, Submission


class Notebook:
    name = "lab-notebook"

    def is_surely_record(self, names):
        return "notebook.txt" in names

    def may_be_record(self, names):
        return False

    def is_record(self, folder):
        return False

    def read(self, folder):
        submission = Submission(format=self.name, folder=folder.path, name=folder.name, files=folder.files)
        run = LoggedRun(path="notebook.txt")
        for line, text in enumerate(folder.read("notebook.txt", 10_000).decode().splitlines(), 1):
            kind, number = text.split()
            reading = Reading(quantity="bpb", value=float(number), origin=kind, source="log", path="notebook.txt",
                              line=line, text=number, last_place=1e-4, is_headline=kind == "claimed")
            (run.readings if kind == "logged" else submission.claims).append(reading)
        submission.runs = [run]
        submission.summaries = submission.readmes = submission.logs = ["notebook.txt"]
        return submission


class Half:
    name = "half"


class Angry(Notebook):
    def __init__(self):
        raise RuntimeError("no licence")
"""


@pytest.fixture(autouse=True)
def fresh_formats() -> Iterator[None]:
    record_formats.cache_clear()
    yield
    record_formats.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make a distribution with an entry point importable, as an installer leaves it."""

    def write(target: str) -> None:
        site = tmp_path / "site"
        info = site / "lab_notebook-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "lab_notebook.py").write_text(MODULE)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-notebook\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\nnotebook = {target}\n")
        monkeypatch.syspath_prepend(site)

    return write


def write_record(folder: Path, claimed: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "notebook.txt").write_text(f"logged 1.2345\nclaimed {claimed}\n")
    return folder


def test_a_dialect_of_another_distribution_is_judged_by_the_same_rules(
    install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install("lab_notebook:Notebook")
    write_record(tmp_path / "records" / "good", "1.2345")
    assert run_command(["verify", str(tmp_path / "records"), "--format", "json"]) == 0
    write_record(tmp_path / "records" / "bad", "1.1345")
    assert run_command(["verify", str(tmp_path / "records")]) == 1
    out = capsys.readouterr().out
    assert "lab-notebook" in out or "notebook" in out
    assert "XM1" in out
    assert "1.1345" in out


def test_shipped_dialects_come_first(install) -> None:
    install("lab_notebook:Notebook")
    assert [record_format.name for record_format in record_formats()][:2] == ["parameter-golf", "speed-run"]
    assert "lab-notebook" in [record_format.name for record_format in record_formats()]


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("lab_notebook:Missing", "cannot be loaded"), ("no_such_module:Notebook", "no_such_module"), ("lab_notebook:Angry", "no licence"),
        ("lab_notebook:Half", "is_surely_record"), ("lab_notebook:__name__", "cannot be loaded"), ("lab_notebook", "cannot be loaded"),
    ],
)  # fmt: skip
def test_a_broken_entry_point_is_one_clear_error(
    install, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, part: str
) -> None:
    install(target)
    record = write_record(tmp_path / "record", "1.2345")
    assert run_command(["verify", str(record)]) == 2
    error = capsys.readouterr().err
    assert "record format notebook" in error
    assert part in error
    assert "Traceback" not in error


def test_without_the_distribution_the_folder_is_no_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = write_record(tmp_path / "record", "1.2345")
    assert run_command(["verify", str(record)]) == 2
    assert "no record found" in capsys.readouterr().err


def test_an_error_names_the_entry_point(install) -> None:
    install("lab_notebook:Missing")
    with pytest.raises(UsageError, match=r"record format notebook \(lab_notebook:Missing\)"):
        record_formats()
