"""Where record folders are found: native and foreign, at any depth, each once, none swallowed by another."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records import discovery
from harness.records.discovery import find_records, scan_records
from harness.records.native import RECORD_FILE

GOLF_LOG = "step:5/5 val_loss:2.5 val_bpb:1.48\nfinal_roundtrip val_loss:1.9 val_bpb:1.14\n"
SPEED_LOG = "step:5/5 val_loss:3.2786 train_time:648063ms step_avg:141.8ms\n"
GOLF = {"submission.json": '{"val_bpb": 1.14}', "train.log": GOLF_LOG, "README.md": "# A\n"}
SPEED = {"README.md": "# New record\n", "0e3f0af5-ad08.txt": SPEED_LOG}


def put(root: Path, folder: str, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def found(root: Path, path: str = "") -> dict[str, str]:
    tree = scan_records(root / path, with_foreign=True)
    assert tree.is_complete
    native = {folder.relative_to(root).as_posix(): "native" for folder in tree.folders}
    return native | {f.folder.path.relative_to(root).as_posix(): f.format.name for f in tree.foreign}


def test_native_and_foreign_records_at_any_depth(tmp_path: Path) -> None:
    put(tmp_path, "own/a", {RECORD_FILE: "{}"})
    put(tmp_path, "track_10min/2026-04-01_x", GOLF)
    put(tmp_path, "deep/er/and/deeper/y", {"submission_ternary.json": "{}"})
    put(tmp_path, "z", {"README.md": "# bpb\n", "train.log": GOLF_LOG})
    put(tmp_path, "speed/s", SPEED)
    put(tmp_path, "docs", {"README.md": "# Notes\n", "a.txt": "nothing\n"})
    assert found(tmp_path) == {
        "own/a": "native", "track_10min/2026-04-01_x": "parameter-golf", "deep/er/and/deeper/y": "parameter-golf",
        "z": "parameter-golf", "speed/s": "speed-run",
    }  # fmt: skip
    assert find_records(tmp_path) == [tmp_path / "own/a"]


@pytest.mark.parametrize(
    "record", [GOLF, {"README.md": "# b\n", "train.log": GOLF_LOG}, SPEED, {RECORD_FILE: "{}"}, {"a.txt": SPEED_LOG}]
)
def test_a_repository_root_with_readme_and_script_swallows_no_record(tmp_path: Path, record: dict[str, str]) -> None:
    put(tmp_path, "", {"README.md": "# The contest, in bpb\n", "train_gpt.py": "#\n", "requirements.txt": "torch\n"})
    put(tmp_path, "records/track/a", record)
    put(tmp_path, "records/track/b", record)
    assert list(found(tmp_path)) == ["records/track/a", "records/track/b"]


def test_folders_inside_a_record_belong_to_it(tmp_path: Path) -> None:
    put(tmp_path, "golf", GOLF)
    put(tmp_path, "golf/logs", {"README.md": "# bpb\n", "seed_1.log": GOLF_LOG})
    put(tmp_path, "plain", {"README.md": "# b\n", "train.log": GOLF_LOG})
    put(tmp_path, "plain/more", {"seed_1.log": GOLF_LOG})
    put(tmp_path, "speed", SPEED)
    put(tmp_path, "speed/without-the-trick", {"1.txt": SPEED_LOG, "2.txt": SPEED_LOG})
    assert list(found(tmp_path)) == ["golf", "plain", "speed"]


def test_a_record_inside_a_record_is_one_of_its_own(tmp_path: Path) -> None:
    put(tmp_path, "outer", GOLF)
    put(tmp_path, "outer/inner", {"submission.json": "{}", "train.log": GOLF_LOG})
    put(tmp_path, "outer/own", {RECORD_FILE: "{}", "log.jsonl": ""})
    assert found(tmp_path) == {"outer/own": "native", "outer": "parameter-golf", "outer/inner": "parameter-golf"}
    tree = scan_records(tmp_path, with_foreign=True)
    outer = next(f.folder for f in tree.foreign if f.folder.path.name == "outer")
    assert [entry.path for entry in outer.files] == ["README.md", "submission.json", "train.log"]


def test_hidden_folders_are_not_entered(tmp_path: Path) -> None:
    put(tmp_path, ".git/a", GOLF)
    put(tmp_path, "b/.cache", GOLF)
    put(tmp_path, "b", {"train.log": "no\n"})
    assert found(tmp_path) == {}


def test_links_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path, "a", GOLF)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    (tmp_path / "round").symlink_to(tmp_path)
    assert list(found(tmp_path)) == ["a"]


@pytest.mark.parametrize("name", ["submission.json", "README.md", "train.log"])
def test_a_file_stands_for_its_folder(tmp_path: Path, name: str) -> None:
    put(tmp_path, "a", GOLF)
    put(tmp_path, "b", GOLF)
    assert list(found(tmp_path, f"a/{name}")) == ["a"]


def test_a_file_of_a_native_record(tmp_path: Path) -> None:
    put(tmp_path, "a", {RECORD_FILE: "{}"})
    assert found(tmp_path, f"a/{RECORD_FILE}") == {"a": "native"}
    assert scan_records(tmp_path / "a" / RECORD_FILE).folders == (tmp_path / "a",)


def test_a_record_itself_may_be_given(tmp_path: Path) -> None:
    put(tmp_path, "speed", SPEED)
    assert found(tmp_path, "speed") == {"speed": "speed-run"}


@pytest.mark.parametrize(
    "files",
    [
        {"README.md": "# no numbers\n", "train.py": "#\n"}, {"train.log": GOLF_LOG}, {"README.md": "# x\n", "train.log": "done\n"},
        {"requirements.txt": "val_loss train_time\n"}, {"results.json": '{"val_bpb": 1.1}'}, {"notes.txt": "val_loss only\n"},
    ],
)  # fmt: skip
def test_what_is_no_record(tmp_path: Path, files: dict[str, str]) -> None:
    put(tmp_path, "a", files)
    assert found(tmp_path) == {}


def test_a_tree_that_is_too_large_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(5):
        put(tmp_path, f"r{n}", GOLF)
    assert not scan_records(tmp_path, max_entries=8, with_foreign=True).is_complete
    monkeypatch.setattr(discovery, "MAX_TREE_DEPTH", 0)
    assert not scan_records(tmp_path, with_foreign=True).is_complete


def test_the_order_is_that_of_the_paths(tmp_path: Path) -> None:
    for name in ("b", "a/z", "a", "c"):
        put(tmp_path, name, GOLF)
    assert list(found(tmp_path)) == ["a", "a/z", "b", "c"]
