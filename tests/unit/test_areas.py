"""The area between rate-distortion frontiers: by hand, over seeds, and what the files may hold."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.areas import group_sweeps, read_sweep, relate
from harness.cli import run_command
from harness.envelope import area_between
from harness.errors import RecordError, UsageError

Points = Sequence[tuple[float, float]]
CURVE: Points = [(100, 3.0), (1_000, 2.0), (10_000, 1.8)]


def test_equal_curves_have_no_area() -> None:
    area = area_between(CURVE, CURVE)
    assert area.bpb == pytest.approx(0)
    assert area.bytes_ratio == pytest.approx(1)


def test_a_shift_is_the_area() -> None:
    twice = area_between([(2 * size, bpb) for size, bpb in CURVE], CURVE)
    assert twice.bytes_ratio == pytest.approx(2)
    worse = area_between([(size, bpb + 0.1) for size, bpb in CURVE], CURVE)
    assert worse.bpb == pytest.approx(0.1)


def test_by_hand_over_what_both_cover() -> None:
    # A falls from 2.0 at 10^3 bytes to 1.8 at 10^4; B stays at 1.9 until 10^3.5, then falls to 1.5 at 10^4.5.
    second = [(10, 1.9 + 1e-9), (10**3.5, 1.9), (10**4.5, 1.5)]
    # A - B over log10: 0.1 at 3, 0 at 3.5, 0.1 at 4; and two triangles of it are 0.05 wide on the mean
    assert area_between(CURVE[1:], second).bpb == pytest.approx(0.05, abs=1e-6)


def test_points_that_a_smaller_file_beats_play_no_part() -> None:
    assert area_between([*CURVE, (5_000, 2.5)], CURVE).bpb == pytest.approx(0)


def test_curves_apart_have_no_area() -> None:
    area = area_between(CURVE, [(100_000, 1.5), (1_000_000, 1.4)])
    assert area.bpb is None
    assert area.bytes_ratio is None


@given(
    st.lists(st.tuples(st.integers(10, 10**6), st.floats(1.0, 4.0)), min_size=2, max_size=8, unique_by=lambda p: p[0])
)
def test_the_other_way_round_has_the_other_sign(points: Points) -> None:
    there, back = area_between(points, CURVE), area_between(CURVE, points)
    assert (there.bpb is None) == (back.bpb is None)
    if there.bpb is not None and back.bpb is not None:
        assert back.bpb == pytest.approx(-there.bpb, abs=1e-9)
    if there.bytes_ratio is not None and back.bytes_ratio is not None:
        assert math.log(there.bytes_ratio) == pytest.approx(-math.log(back.bytes_ratio), abs=1e-9)


def put_sweep(folder: Path, method: str, seed: int, points: Points, **changes: Any) -> Path:
    stored = [{"stored": {"artifact_bytes": size, "val_bpb": bpb, "scheme": "step"}} for size, bpb in points]
    content = {
        "record": f"records/{method}-{seed}",
        "method": method,
        "preset": "small",
        "budget": "200steps",
        "seed": seed,
        "settings_key": "ef" * 32,
        "split": "tune",
        "split_sha256": "ab" * 32,
        "eval_mode": {"mode": "sliding", "context": 32, "stride": 16},
        "frontier": {"points": stored, "baselines": []},
        "notes": [],
    }
    path = folder / f"{method}-{seed}.json"
    path.write_text(json.dumps({**content, **changes}))
    return path


def shifted(by: float) -> Points:
    return [(size, bpb + by) for size, bpb in CURVE]


def test_pairs_over_seeds(tmp_path: Path, capsys) -> None:
    paths = [put_sweep(tmp_path, "dense", seed, shifted(0.001 * seed)) for seed in range(3)]
    paths += [put_sweep(tmp_path, "mpo", seed, shifted(0.1 + 0.0011 * seed)) for seed in range(3)]
    (found,) = relate(group_sweeps([read_sweep(path) for path in paths]))
    assert found.bpb == pytest.approx(-0.1001)
    assert found.bytes_ratio is not None
    assert found.bytes_ratio < 1
    assert found.verdict == "dense/small, 200steps is better"
    assert run_command(["compare", "--frontiers", *map(str, paths), "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["relations"][0]["bpb"] == pytest.approx(-0.1001)
    assert [each["seeds"] for each in said["contenders"]] == [[0, 1, 2], [0, 1, 2]]
    assert run_command(["compare", "--frontiers", *map(str, paths)]) == 0
    assert "area between frontiers" in capsys.readouterr().out


def test_one_seed_or_no_common_size_settles_nothing(tmp_path: Path) -> None:
    one = [read_sweep(put_sweep(tmp_path, name, 0, shifted(by))) for name, by in (("dense", 0.0), ("mpo", 0.5))]
    assert relate(group_sweeps(one))[0].verdict == "not settled: one seed"
    far = [(10**6, 1.5), (10**7, 1.4)]
    apart = [read_sweep(put_sweep(tmp_path, name, 0, points)) for name, points in (("dense", CURVE), ("mpo", far))]
    assert relate(group_sweeps(apart))[0].verdict == "no size in common"


def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys) -> None:
    first = put_sweep(tmp_path, "dense", 0, CURVE)
    other = put_sweep(tmp_path, "mpo", 0, CURVE, split_sha256="cd" * 32)
    assert run_command(["compare", "--frontiers", str(first), str(other)]) == 2
    assert "scored on other text" in " ".join(capsys.readouterr().err.split())
    assert run_command(["compare", "--frontiers", str(first), str(first)]) == 2
    assert "seed 0 of dense/small, 200steps is there already" in " ".join(capsys.readouterr().err.split())
    unlike = put_sweep(tmp_path, "dense", 1, CURVE, settings_key="00" * 32)
    assert run_command(["compare", "--frontiers", str(first), str(unlike)]) == 2
    assert "at other settings" in " ".join(capsys.readouterr().err.split())
    assert run_command(["compare", "--frontiers"]) == 2
    assert run_command(["compare", "--frontiers", str(first), "--budget", "2steps"]) == 2
    assert "drop --budget" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        {"frontier": None},
        {"frontier": {"points": []}},
        {"frontier": {"points": [{"stored": {"artifact_bytes": 0, "val_bpb": 1.0}}] * 2}},
        {"frontier": {"points": [{"stored": {"artifact_bytes": 5, "val_bpb": "low"}}] * 2}},
        {"budget": 3},
        {"split": "test"},
    ],
)
def test_other_files_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    path = put_sweep(tmp_path, "dense", 0, CURVE, **changes)
    with pytest.raises(RecordError, match=r"dense-0.json.*harness quantise RECORD --sweep"):
        read_sweep(path)
    with pytest.raises(UsageError, match="no such file"):
        read_sweep(tmp_path / "none.json")
