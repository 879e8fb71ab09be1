"""Fair tuning: the same points for everyone, judged on the tune split, all trials counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_record

from harness.grid import Cell, Contender, Grid
from harness.tuning import MAX_FACTOR, factors, rates_of, read_tuned, trial_cells, tuned_cells

TWO = (Contender(method="dense", preset="tiny"), Contender(method="mpo", preset="tiny"))
GRID = Grid(contenders=TWO, seeds=(0, 1), budget="5steps", num_trials=3)


@given(st.integers(1, 40))
def test_points_are_in_the_space_and_begin_with_the_preset(num_trials: int) -> None:
    found = factors(num_trials)
    assert len(found) == num_trials
    assert found[0] == (1.0, 1.0, 1.0)
    assert all(1 / MAX_FACTOR <= factor <= MAX_FACTOR for point in found for factor in point)
    assert len(set(found)) == num_trials
    assert factors(num_trials) == found


def test_more_trials_begin_with_the_same_points() -> None:
    assert factors(9)[:5] == factors(5)


def test_every_contender_gets_the_same_factors_of_its_own_rates() -> None:
    dense, mpo = (rates_of(GRID, contender) for contender in TWO)
    assert len(dense) == len(mpo) == 3
    for ours, theirs in zip(dense, mpo, strict=True):
        for first, second, own, other in zip(ours, theirs, dense[0], mpo[0], strict=True):
            ratios = [float(a.split("=")[1]) / float(b.split("=")[1]) for a, b in ((first, own), (second, other))]
            assert ratios[0] == pytest.approx(ratios[1], rel=2e-3)  # rates are written with four digits


def test_the_best_trial_gives_the_rates_of_all_seeds(tmp_path: Path) -> None:
    trials = list(trial_cells(GRID, tmp_path))
    assert [cell.folder.name for cell in trials] == ["trial0", "trial0", "trial1", "trial1", "trial2", "trial2"]
    assert len({cell.seed for cell in trials} | set(GRID.seeds)) == 3
    for cell, tune_bpb in zip(trials, [2.0, 2.3, 1.9, None, 1.95, 2.5], strict=True):
        if tune_bpb is not None:
            complete(cell, tune_bpb)
    tuned = read_tuned(trials)
    assert (tuned[TWO[0]].best, tuned[TWO[0]].scores) == (1, {0: 2.0, 1: 1.9, 2: 1.95})
    assert (tuned[TWO[1]].best, tuned[TWO[1]].num_trials) == (0, 3)
    cells = tuned_cells(GRID, tmp_path, trials)
    assert [cell.overrides for cell in cells] == [trials[2].overrides, trials[1].overrides] * 2


def test_a_contender_without_a_trial_is_left_out(tmp_path: Path) -> None:
    trials = list(trial_cells(GRID, tmp_path))
    complete(trials[0], 2.0)
    assert {cell.contender for cell in tuned_cells(GRID, tmp_path, trials)} == {TWO[0]}


def complete(cell: Cell, tune_bpb: float) -> None:
    """Write the record of a trial; its test score says the opposite of its tune score."""
    make_record(cell.folder)
    path = cell.folder / "record.json"
    fields = json.loads(path.read_text())
    fields["metrics"]["tune"]["val_bpb"] = tune_bpb
    fields["metrics"]["test"]["val_bpb"] = 10 - tune_bpb
    path.write_text(json.dumps(fields))
