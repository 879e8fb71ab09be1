"""Files that fill a size: within 2% below it, after at most three corrections; sizes that cannot be filled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from harness.artifact.container import Artifact
from harness.artifact.writer import ArtifactSummary, PlannedTensor, write_artifact
from harness.cli import run_command
from harness.errors import RunError
from harness.rated import MAX_CORRECTIONS, RatedTensors, fill_bytes, moment_of
from harness.records.native import read_record

Write = Callable[[Sequence[PlannedTensor]], ArtifactSummary]


def make_planned(num_rows: int = 200) -> list[PlannedTensor]:
    rng = np.random.default_rng(0)
    return [
        PlannedTensor(name="a.weight", value=rng.normal(size=(num_rows, 64)) * 0.1, scheme="fp32", part="blocks"),
        PlannedTensor(name="b.weight", value=rng.standard_t(3, size=(num_rows, 32)), scheme="fp32", part="blocks"),
        PlannedTensor(name="table", value=rng.normal(size=(50, 8)), scheme="int8-row", part="embedding"),
    ]


@pytest.fixture
def sizes() -> list[int]:
    return []


@pytest.fixture
def write(tmp_path: Path, sizes: list[int]) -> Write:
    def write_all(tensors: Sequence[PlannedTensor]) -> ArtifactSummary:
        summary = write_artifact(tmp_path / "a.bin", meta={}, tensors=tensors, blobs={})
        sizes.append(summary.artifact_bytes)
        return summary

    return write_all


@pytest.mark.parametrize(
    ("target_bytes", "has_moments"), [(6_000, False), (9_000, True), (14_000, False), (20_000, True)]
)
def test_a_file_fills_its_size(target_bytes: int, has_moments: bool, write: Write, sizes: list[int]) -> None:
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(300, 64)) @ rng.normal(size=(64, 64))
    rated = RatedTensors(
        make_planned(), {"a.weight", "b.weight"}, {"a": inputs.T @ inputs / 300} if has_moments else {}
    )
    assert rated.num_weights == 200 * 96
    assert rated.without_moments == ({"b.weight"} if has_moments else {"a.weight", "b.weight"})
    summary = fill_bytes(rated, target_bytes, write)
    assert 0.98 * target_bytes <= summary.artifact_bytes <= target_bytes
    assert len(sizes) <= 1 + MAX_CORRECTIONS
    assert summary.path.stat().st_size == summary.artifact_bytes


def test_a_matrix_that_pruning_left_empty_is_stored_as_it_is(write: Write) -> None:
    empty = PlannedTensor(name="c.weight.values", value=np.empty((0,)), scheme="fp32", part="blocks")
    rated = RatedTensors([*make_planned(), empty], {"a.weight", "b.weight", "c.weight.values"}, {})
    summary = fill_bytes(rated, 9_000, write)
    assert 0.98 * 9_000 <= summary.artifact_bytes <= 9_000
    assert Artifact.open(summary.path).decode_tensor("c.weight.values").shape == (0,)


def test_a_size_that_is_too_large_gets_the_finest_file(write: Write, sizes: list[int]) -> None:
    rated = RatedTensors(make_planned(num_rows=20), {"a.weight", "b.weight"}, {})
    summary = fill_bytes(rated, 1_000_000, write)
    assert summary.artifact_bytes == max(sizes) < 100_000


@pytest.mark.parametrize("target_bytes", [300, 700, 1_000])
def test_a_size_about_that_of_all_else_is_refused_or_kept(target_bytes: int, write: Write) -> None:
    # where all symbols are zero, sizes differ by the digits of a step only
    rated = RatedTensors(make_planned(), {"a.weight", "b.weight"}, {})
    try:
        assert fill_bytes(rated, target_bytes, write).artifact_bytes <= target_bytes
    except RunError as error:
        assert "the smallest file that was tried has" in str(error) and "\n" not in str(error)


def test_a_size_below_all_else_is_refused(write: Write) -> None:
    with pytest.raises(RunError, match="export.target_bytes=300: the smallest file that was tried has"):
        fill_bytes(RatedTensors(make_planned(), {"a.weight", "b.weight"}, {}), 300, write)


def test_a_moment_belongs_to_the_map_of_its_name_and_shape() -> None:
    tensor = make_planned()[0]
    assert moment_of(tensor, {"a": np.eye(64)}) is not None
    assert moment_of(tensor, {"a": np.eye(32)}) is None
    assert moment_of(tensor, {"b": np.eye(64)}) is None


def test_a_run_fills_its_size_and_verifies(tmp_path: Path, capsys) -> None:
    base = ["run", "--method", "dense", "--preset", "tiny", "--data", "synthetic", "--budget", "2steps"]
    small = ["--device", "cpu", "--eval-stride", "64", "--set", "num_layers=1", "--set", "export.target_bytes=40kB"]
    assert run_command([*base, *small, "--out", str(tmp_path / "a")]) == 2  # sizes with units are those of --target
    small[-1] = "export.target_bytes=40000"
    assert run_command([*base, *small, "--out", str(tmp_path / "a")]) == 0
    record = read_record(tmp_path / "a")
    assert record.artifact is not None and 39_200 <= record.artifact.artifact_bytes <= 40_000
    assert run_command(["verify", str(tmp_path / "a"), "--level", "decode"]) == 0
    capsys.readouterr()
    assert run_command([*base, *small, "--set", "qat_start=1", "--out", str(tmp_path / "b")]) == 2
    assert "export.target_bytes chooses other steps" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
