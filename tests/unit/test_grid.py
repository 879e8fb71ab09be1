"""A grid: its cells, its folder, whose settings are whose; wrong requests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import RecordError, UsageError
from harness.grid import Contender, Grid, check_match, open_grid, parse_contenders, parse_size, read_grid

TWO = (Contender(method="dense", preset="tiny"), Contender(method="mpo", preset="small"))


def make_grid(**changes: object) -> Grid:
    return Grid(**{"contenders": TWO, "seeds": (0, 1), "budget": "5steps", **changes})


def test_cells_come_seed_by_seed(tmp_path: Path) -> None:
    cells = list(make_grid().cells(tmp_path))
    assert [cell.name for cell in cells] == [
        "dense/tiny, seed 0",
        "mpo/small, seed 0",
        "dense/tiny, seed 1",
        "mpo/small, seed 1",
    ]
    assert cells[3].folder == tmp_path / "mpo-small" / "seed1"
    assert not any(cell.is_complete for cell in cells)


def test_a_setting_that_names_a_method_is_of_that_alone() -> None:
    grid = make_grid(overrides=("mpo.chi=4", "train.matrix_lr=0.01", "dense.num_layers=2", "ema_decay=0.5"))
    assert grid.overrides_of(TWO[0]) == ["train.matrix_lr=0.01", "dense.num_layers=2", "ema_decay=0.5"]
    assert grid.overrides_of(TWO[1]) == ["mpo.chi=4", "train.matrix_lr=0.01", "ema_decay=0.5"]


def test_methods_at_their_presets() -> None:
    assert parse_contenders("dense/tiny, mpo", "small") == TWO
    assert len(parse_contenders("dense/tiny,dense/small", "small")) == 2


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ("dense", "name at least two"),
        ("", "name at least two"),
        ("dense,dense", "names dense/small twice"),
        ("dense,denze", "denze"),
        ("dense,mpo/huge", "huge"),
    ],
)
def test_wrong_methods_are_one_line(methods: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_contenders(methods, "small")
    assert "\n" not in str(caught.value)


def test_a_folder_holds_one_grid(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "grid"
    open_grid(folder, make_grid())
    open_grid(folder, make_grid())
    assert read_grid(folder) == make_grid()
    with pytest.raises(UsageError, match="holds a grid with other seeds"):
        open_grid(folder, make_grid(seeds=(0, 1, 2)))
    with pytest.raises(UsageError, match="holds no grid.json"):
        open_grid(folder.parent, make_grid())


@pytest.mark.parametrize(
    ("change", "said"),
    [({"budget": None}, "budget"), ({"schema": 2}, "schema"), ({"extra": 1}, "extra"), ({"seeds": "x"}, "seeds")],
)
def test_an_altered_grid_is_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    open_grid(tmp_path / "grid", make_grid())
    path = tmp_path / "grid" / "grid.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RecordError, match=rf"grid.json: {said}"):
        read_grid(tmp_path / "grid")
    with pytest.raises(UsageError, match="does not exist"):
        read_grid(tmp_path / "none")


def test_what_is_matched_is_what_the_budget_fixes() -> None:
    assert check_match("steps", None, None) == {}
    assert check_match("steps", "steps", None) == {}
    assert check_match("steps", "bytes", "16MB") == {"target_bytes": 16_000_000}
    assert check_match("seconds", "params", "1.2M") == {"target_params": 1_200_000}
    with pytest.raises(UsageError, match="--match tokens needs a budget in tokens, for example --budget 50Mtok"):
        check_match("seconds", "tokens", None)
    with pytest.raises(UsageError, match="--match size: choose"):
        check_match("seconds", "size", None)
    for match in ("bytes", "params"):
        with pytest.raises(UsageError, match=f"--match {match} needs --target, for example --match {match} --target 1"):
            check_match("steps", match, None)
    for match in ("steps", None):
        with pytest.raises(UsageError, match="--target 16MB: say of what"):
            check_match("steps", match, "16MB")


@pytest.mark.parametrize(("text", "size"), [("16MB", 16_000_000), ("900 kB", 900_000), ("1.5M", 1_500_000), ("7", 7)])
def test_sizes_are_decimal(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "16MiB", "-1", "0", "MB", "9" * 30, "1e6"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write a number such as 16MB"):
        parse_size(text)


def test_the_size_is_a_setting_of_every_contender() -> None:
    grid = make_grid(target_bytes=900_000, overrides=("mpo.chi=4",))
    assert grid.overrides_of(TWO[0]) == ["export.target_bytes=900000"]
    assert grid.overrides_of(TWO[1]) == ["export.target_bytes=900000", "mpo.chi=4"]
