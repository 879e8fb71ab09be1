"""Cells on Ray: what they ask for, killed workers, failures, stops, records through a storage; wrong use."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from record_factory import make_record

from harness.cell_process import Outcome, last_step
from harness.cli import run_command
from harness.engines import ProcessEngine
from harness.errors import RunError, UsageError
from harness.grid import Cell, Contender, Grid, open_grid
from harness.ray_cluster import Need, cell_need, connected
from harness.ray_engine import RayEngine
from harness.ray_task import Ended, Order, run_cell
from harness.records.logs import read_log
from harness.records.native import read_record
from harness.storage import Storage

ONE_THREAD = Need(num_cpus=1, num_gpus=0, num_threads=1, device="cpu")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of two processors on this machine, which everything in this process then uses."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.cpu_count", lambda: 2)
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_AUTH_TOKEN", uuid4().hex)  # or Ray would write one into the home of whoever tests
        with connected(None):
            yield


class Heard:
    """Remembers what it is told, and calls back when a cell begins."""

    def __init__(self, on_begin: Callable[[Cell], None] = lambda cell: None) -> None:
        self.begun: list[int] = []
        self.ended_with: list[tuple[int, str]] = []
        self._on_begin = on_begin

    def began(self, cell: Cell) -> None:
        self.begun.append(cell.seed)
        self._on_begin(cell)

    def ended(self, outcome: Outcome) -> None:
        self.ended_with.append((outcome.cell.seed, outcome.reason))


def make_grid(data: str, seeds: tuple[int, ...], num_steps: int) -> Grid:
    return Grid(
        contenders=(Contender(method="dense", preset="tiny"),),
        seeds=seeds,
        budget=f"{num_steps}steps",
        data=data,
        tokenizer="bytes",
        overrides=("batch_tokens=256", "micro_batch_tokens=64", "num_layers=1", "mlp_width=16"),
    )


def when_at_step(step: int, act: Callable[[Cell], None], seed: int = 0) -> Callable[[Cell], None]:
    """Return a callback that acts once the cell of a seed has done some steps."""
    acted = threading.Event()

    def watch(cell: Cell) -> None:
        deadline = time.monotonic() + 120
        while last_step(cell.folder) < step and time.monotonic() < deadline:
            time.sleep(0.02)
        act(cell)

    def on_begin(cell: Cell) -> None:
        if cell.seed == seed and not acted.is_set():
            acted.set()
            threading.Thread(target=watch, args=(cell,), daemon=True).start()

    return on_begin


def kill_worker(cell: Cell) -> None:
    """Kill the worker of Ray that runs a cell: the parent of the cell's own process."""
    for process in psutil.Process().children(recursive=True):
        if str(cell.folder) in process.cmdline():
            process.parent().kill()
            return
    raise AssertionError(f"no process of {cell.name}")


def test_a_killed_worker_costs_only_its_cell_and_no_number(cluster: None, small_text: str, tmp_path: Path) -> None:
    grid = make_grid(small_text, (0, 1), 200)
    here, there = tmp_path / "processes", tmp_path / "ray"
    open_grid(there, grid)
    heard = Heard(when_at_step(20, kill_worker))
    outcomes = RayEngine(grid, folder=there, need=ONE_THREAD).run(list(grid.cells(there)), heard)
    assert sorted((outcome.cell.seed, outcome.exit_code) for outcome in outcomes) == [(0, 0), (1, 0)]
    assert sorted(heard.begun) == [0, 0, 1]
    assert heard.ended_with.count((0, "killed with its worker (WorkerCrashedError), it is run again")) == 1
    killed, other = (cell.folder for cell in grid.cells(there))
    assert read_log(killed).count("resume") == 1
    assert read_log(other).count("resume") == 0
    same = next(grid.cells(here))
    ProcessEngine(grid, num_jobs=1, device="cpu", data_dir=None).run([same], Heard())
    assert read_record(same.folder).artifact.sha256 == read_record(killed).artifact.sha256
    assert (same.folder / "scores.npz").read_bytes() == (killed / "scores.npz").read_bytes()


def test_records_come_home_from_the_storage_and_are_not_repeated(
    cluster: None, small_text: str, tmp_path: Path
) -> None:
    grid = make_grid(small_text, (0,), 5)
    storage = Storage(f"file://{tmp_path}/storage")
    folder = tmp_path / "a"
    (cell,) = grid.cells(folder)
    (outcome,) = RayEngine(grid, folder=folder, need=ONE_THREAD, storage=storage).run([cell], Heard())
    assert outcome.exit_code == 0 and cell.is_complete
    assert sorted(path.name for path in folder.rglob("*")) == [
        "artifact.bin", "config.toml", "dense-tiny", "log.jsonl", "record.json", "scores.npz", "seed0",
    ]  # fmt: skip
    assert not list((tmp_path / "storage").rglob("checkpoint.pt*"))
    (again,) = grid.cells(tmp_path / "b")
    storage.level([again], tmp_path / "b")
    assert again.is_complete
    assert (again.folder / "record.json").read_bytes() == (cell.folder / "record.json").read_bytes()


def test_a_cell_whose_worker_is_lost_every_time_is_given_up(cluster: None, tmp_path: Path, monkeypatch) -> None:
    def die(order: Order) -> Iterator[None]:
        yield None
        time.sleep(1)  # or the word that it began is lost with it
        os._exit(1)

    monkeypatch.setattr("harness.ray_engine.run_cell", die)
    grid, heard = make_grid("synthetic", (0,), 5), Heard()
    (outcome,) = RayEngine(grid, folder=tmp_path, need=ONE_THREAD).run(list(grid.cells(tmp_path)), heard)
    assert heard.begun == [0, 0, 0]
    assert len(heard.ended_with) == 3
    assert outcome.exit_code == 4 and outcome.reason == "killed with its worker (WorkerCrashedError), given up after 3"


def test_cells_that_fail_are_rows_and_not_run_again(cluster: None, tmp_path: Path, capsys) -> None:
    out = tmp_path / "grid"
    arguments = ["compare", "--methods", "dense,mpo", "--preset", "tiny", "--budget", "5steps", "--seeds", "1"]
    arguments += ["--data", f"text:{tmp_path}/nowhere", "--out", str(out), "--format", "json"]
    assert run_command([*arguments, "--engine", "ray", "--storage", f"file://{tmp_path}/storage"]) == 4
    output = capsys.readouterr()
    found = json.loads(output.out)["incomplete"]
    assert sorted(found) == ["dense-tiny/seed0", "mpo-tiny/seed0"]
    assert all("nowhere" in reason for reason in found.values())
    assert output.err.count("seed 0: begins") == 2
    assert "error: " in (out / "mpo-tiny" / "seed0.out").read_text()
    assert [path.name for path in (tmp_path / "storage").iterdir()] == ["grid.json"]


def test_a_stop_leaves_records_that_go_on(cluster: None, small_text: str, tmp_path: Path) -> None:
    grid = make_grid(small_text, (0, 1), 3000)
    open_grid(tmp_path, grid)
    heard = Heard(when_at_step(2, lambda cell: os.kill(os.getpid(), signal.SIGTERM)))
    cells = list(grid.cells(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        RayEngine(grid, folder=tmp_path, need=ONE_THREAD, num_jobs=1).run(cells, heard)
    assert heard.begun == [0]
    assert read_record(cells[0].folder).status == "interrupted"
    assert (cells[0].folder / "checkpoint.pt").exists()
    assert not cells[1].folder.exists()


def make_order(folder: Path, storage_url: str | None = None) -> Order:
    grid = make_grid("synthetic", (0,), 5)
    (cell,) = grid.cells(folder)
    return Order(
        grid=grid,
        cell=cell,
        name="dense-tiny/seed0",
        device="cpu",
        data_dir=None,
        num_threads=1,
        cwd=folder.parent,
        storage_url=storage_url,
    )


def test_a_node_that_does_not_share_the_folder_says_so(tmp_path: Path) -> None:
    began, ended = run_cell(make_order(tmp_path / "grid"))
    assert began is None and ended is not None
    assert ended.exit_code == 2 and f"sees no {tmp_path / 'grid'}" in ended.said and "--storage URL" in ended.said


CHECKPOINTS = """
import pathlib, sys, time
for step in range(4):
    pathlib.Path(sys.argv[1], "checkpoint.pt").write_text(str(step))
    time.sleep(0.5)
"""


def test_a_task_goes_on_from_the_storage_and_sends_what_is_new(tmp_path: Path, monkeypatch) -> None:
    storage = Storage(f"file://{tmp_path}/storage")
    make_record(tmp_path / "record", 0)
    record = json.loads((tmp_path / "record" / "record.json").read_text())
    (tmp_path / "record" / "record.json").write_text(json.dumps(record | {"status": "running"}))
    storage.store("dense-tiny/seed0", tmp_path / "record")
    sent: list[str] = []
    store = Storage.store

    def send(self: Storage, name: str, folder: Path) -> None:
        sent.append((folder / "checkpoint.pt").read_text())
        if len(sent) == 1:
            raise RunError("the line is down")
        store(self, name, folder)

    def command(grid: Grid, cell: Cell, **place: object) -> list[str]:
        assert cell.has_record and tmp_path not in cell.folder.parents
        return [sys.executable, "-c", CHECKPOINTS, str(cell.folder)]

    monkeypatch.setattr("harness.ray_task.STORE_SECONDS", 0.1)
    monkeypatch.setattr("harness.ray_task.cell_command", command)
    monkeypatch.setattr(Storage, "store", send)
    assert list(run_cell(make_order(tmp_path / "grid", storage.url))) == [None, Ended(exit_code=0)]
    assert len(sent) > 2 and sent[-1] == "3" and sent == sorted(sent)
    assert (tmp_path / "storage" / "dense-tiny" / "seed0" / "checkpoint.pt").read_text() == "3"


NODE, BIG, GPUS = {"CPU": 8.0}, {"CPU": 64.0}, {"CPU": 32.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([NODE, NODE], {}, (8, 0, 8)),  # one a node
        ([NODE, NODE], {"num_threads": 1}, (1, 0, 1)),
        ([NODE, NODE], {"num_jobs": 4}, (4, 0, 4)),
        ([NODE, NODE], {"num_jobs": 100}, (1, 0, 1)),
        ([NODE, BIG], {}, (8, 0, 8)),
        ([{"CPU": 0.0}, NODE], {}, (8, 0, 8)),  # a head that takes no work
        ([GPUS], {}, (8, 1, 8)),  # a quarter of the node with each GPU
        ([GPUS], {"device": "cpu"}, (32, 0, 32)),
        ([NODE, GPUS], {"device": "cuda", "num_threads": 2}, (2, 1, 2)),
        # alone on the device, whatever else is asked for
        ([NODE, NODE], {"is_timed": True, "num_jobs": 4, "num_threads": 1}, (8, 0, 1)),
        ([GPUS, GPUS], {"is_timed": True}, (8, 1, 8)),
    ],
)
def test_what_a_cell_asks_of_a_node(nodes: list, asked: dict, expected: tuple[int, int, int]) -> None:
    defaults = {"device": "auto", "is_timed": False, "num_jobs": None, "num_threads": None}
    need = cell_need(nodes, **defaults | asked)
    assert (need.num_cpus, need.num_gpus, need.num_threads) == expected
    assert need.device == ("cuda" if need.num_gpus else "cpu")


@pytest.mark.parametrize(
    ("nodes", "asked", "said"),
    [
        ([], {}, "no node of the Ray cluster offers a processor"),
        ([NODE], {"device": "cuda"}, "no node of the Ray cluster offers a GPU"),
        ([NODE, BIG], {"is_timed": True}, "run on like nodes"),
        ([NODE], {"num_threads": 9}, "no node has more than 8 processors"),
    ],
)
def test_what_no_node_offers_is_refused(nodes: list, asked: dict, said: str) -> None:
    defaults = {"device": "auto", "is_timed": False, "num_jobs": None, "num_threads": None}
    with pytest.raises(UsageError, match=said):
        cell_need(nodes, **defaults | asked)


COMPARE = ["compare", "--methods", "dense,mpo", "--preset", "tiny", "--budget", "2steps", "--data", "synthetic"]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "rubbish", "ray://127.0.0.1:10001"])
def test_an_address_where_no_cluster_is(address: str, tmp_path: Path, capsys, monkeypatch) -> None:
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    out = tmp_path / "grid"
    assert run_command([*COMPARE, "--engine", "ray", "--address", address, "--out", str(out)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: --address {address}: no Ray cluster there (") and "\n" not in error
    assert not out.exists()


def test_without_ray_the_extra_is_named(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("harness.ray_cluster.has_module", lambda name: False)
    assert run_command([*COMPARE, "--engine", "ray", "--out", str(tmp_path / "grid")]) == 2
    assert "pip install 'claims-harness[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "grid").exists()
