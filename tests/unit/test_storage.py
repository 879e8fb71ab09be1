"""Record folders in a storage: sent, fetched, levelled; what is cut off, altered, of another comparison or protocol."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from record_factory import make_record

from harness.errors import RecordError, RunError, UsageError
from harness.grid import Cell, Contender, Grid
from harness.records.native import read_record
from harness.storage import Storage

DENSE = Contender(method="dense", preset="tiny")
NAME = "dense-tiny/seed0"


def make_storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/storage")


def make_cell(root: Path) -> Cell:
    return Cell(contender=DENSE, seed=0, folder=root / "dense-tiny" / "seed0")


def make_unfinished(folder: Path, step: int) -> None:
    """A record that is at a step, with a checkpoint that says so."""
    make_record(folder, 0)
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"status": "interrupted", "reason": "stopped"}))
    (folder / "log.jsonl").write_text(json.dumps({"event": "step", "step": step}) + "\n")
    (folder / "checkpoint.pt").write_text(str(step))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("url", ["file://{}/storage", "{}/storage", "memory://{}/storage"])
def test_what_is_stored_comes_back(url: str, tmp_path: Path) -> None:
    storage = Storage(url.format(tmp_path))
    make_record(tmp_path / "record", 0)
    assert not storage.has(NAME)
    storage.store(NAME, tmp_path / "record")
    assert storage.has(NAME)
    Storage(storage.url).fetch(NAME, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(tmp_path / "record")


def test_a_finished_run_leaves_no_checkpoint(tmp_path: Path) -> None:
    storage, folder = make_storage(tmp_path), tmp_path / "record"
    make_unfinished(folder, 3)
    storage.store(NAME, folder)
    assert (tmp_path / "storage" / NAME / "checkpoint.pt").read_text() == "3"
    (folder / "checkpoint.pt").unlink()
    storage.store(NAME, folder)
    assert contents(tmp_path / "storage" / NAME) == contents(folder)


def test_a_record_is_sent_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = make_storage(tmp_path)
    make_record(tmp_path / "record", 0)
    put_file = storage._fs.put_file
    sent: list[str] = []

    def put(local: str, there: str) -> None:
        sent.append(Path(local).name)
        if len(sent) == 4:
            raise OSError("the line is down")
        put_file(local, there)

    monkeypatch.setattr(storage._fs, "put_file", put)
    with pytest.raises(RunError, match="the line is down"):
        storage.store(NAME, tmp_path / "record")
    assert not storage.has(NAME)
    sent.clear()
    monkeypatch.setattr(
        storage._fs, "put_file", lambda local, there: (sent.append(Path(local).name), put_file(local, there))
    )
    storage.store(NAME, tmp_path / "record")
    assert sent[-1] == "record.json"


def test_an_altered_copy_is_refused(tmp_path: Path) -> None:
    storage = make_storage(tmp_path)
    make_record(tmp_path / "record", 0)
    storage.store(NAME, tmp_path / "record")
    (tmp_path / "storage" / NAME / "artifact.bin").write_bytes(b"other")
    with pytest.raises(RecordError, match="not those of its record.json"):
        storage.fetch(NAME, tmp_path / "back")


def test_levelling_takes_what_is_further(tmp_path: Path) -> None:
    storage, here, there = make_storage(tmp_path), make_cell(tmp_path / "here"), tmp_path / "there"
    storage.level([here], tmp_path / "here")  # nothing anywhere
    make_unfinished(here.folder, 3)
    storage.level([here], tmp_path / "here")
    assert (tmp_path / "storage" / NAME / "checkpoint.pt").read_text() == "3"
    make_unfinished(there, 5)
    storage.store(NAME, there)
    storage.level([here], tmp_path / "here")
    assert (here.folder / "checkpoint.pt").read_text() == "5"
    (here.folder / "checkpoint.pt").write_text("7")
    (here.folder / "log.jsonl").write_text('{"event": "step", "step": 7}\n')
    storage.level([here], tmp_path / "here")
    assert (tmp_path / "storage" / NAME / "checkpoint.pt").read_text() == "7"
    assert (here.folder / "checkpoint.pt").read_text() == "7"
    make_record(tmp_path / "done", 0)
    storage.store(NAME, tmp_path / "done")
    storage.level([here], tmp_path / "here")
    assert contents(here.folder) == contents(tmp_path / "done")
    assert read_record(here.folder).status == "complete"
    assert [path.name for path in here.folder.parent.iterdir()] == ["seed0"]


def test_a_storage_is_of_one_comparison(tmp_path: Path) -> None:
    storage = make_storage(tmp_path)
    grid = Grid(contenders=(DENSE,), seeds=(0,), budget="5steps")
    storage.open_grid(grid)
    storage.open_grid(grid)
    with pytest.raises(UsageError, match="cells of another comparison"):
        storage.open_grid(grid.model_copy(update={"budget": "6steps"}))


@pytest.mark.parametrize("url", ["nope://bucket/x", "gopher:///x"])
def test_a_protocol_that_nothing_takes(url: str) -> None:
    with pytest.raises(UsageError, match=f"--storage {url}: ") as caught:
        Storage(url)
    assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "storage").touch()
    with pytest.raises(UsageError, match="make the place readable and writable"):
        make_storage(tmp_path).open_grid(Grid(contenders=(DENSE,), seeds=(0,), budget="5steps"))
