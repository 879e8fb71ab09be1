"""The table at equal totals: rows, counts, refusals; the command line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.errors import UsageError
from methods.procrustes import differences
from methods.procrustes.budgets import (
    EXPECTED_REFLECTIONS,
    compressed_params,
    largest_choice,
    low_rank,
    many_parts,
    one_sided,
)
from methods.procrustes.study import WAYS, Study, main, read_rows

transformers = pytest.importorskip("transformers", reason="needs the extra hf")

NAMES = ["slicing", "published", "descent, by weights", "whitened SVD", "no rotation"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=40,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=True,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(path)
    windows = np.random.default_rng(0).integers(0, 40, (4, 12))
    np.savez(path / "windows.npz", calib=windows, val=windows, tune=windows[:3])
    return path


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    with np.load(folder / "windows.npz") as stored:
        return Study(str(folder), torch.from_numpy(stored["calib"]), {"val": torch.from_numpy(stored["val"])})


@pytest.mark.parametrize("name", ["principal basis", "descent, by gradients, Cayley", "whitened SVD", "no rotation"])
def test_counts_made_before_are_those_of_the_model(study: Study, name: str) -> None:
    way, fraction = WAYS[name], Fraction(3, 4)
    total, residual = study.total_params(fraction), study.folded()
    choose = one_sided(fraction) if way.choose is None else largest_choice(residual, way.choose, way.skips, total)
    expected = compressed_params(residual, choose, way.skips)
    study.run(residual, way, fraction)
    skips = [getattr(block, part) for block in residual.blocks for part in ("attention_skip", "mlp_skip")]
    reflections = sum(skip.reflections.numel() for skip in skips if hasattr(skip, "reflections"))
    if way.skips == "cayley":
        expected += reflections - len(skips) * EXPECTED_REFLECTIONS * residual.width
    assert residual.num_params() == expected
    assert expected <= total or reflections


@pytest.mark.parametrize("make", [low_rank, many_parts])
def test_the_largest_choice_has_no_room_left(study: Study, make: type) -> None:
    total, residual = study.total_params(Fraction(1, 2)), study.folded()
    found = compressed_params(residual, largest_choice(residual, make, "none", total), "none")
    # One more rank or term in every map is at most a tenth here.
    assert 0.9 * total < found <= total
    with pytest.raises(UsageError, match="no class has as few as 100 parameters. Give a larger fraction"):
        largest_choice(residual, make, "none", 100)


def test_the_command_prints_every_row_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(folder), "--windows", str(folder / "windows.npz"), "--fractions", "1/2", "--rows", *NAMES]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("|")[1].strip(): line.split("|")[2:] for line in lines if line.startswith("|")}
    assert set(NAMES) <= set(rows)
    total = int(lines[0].split(":")[1].split()[0].replace(",", ""))
    assert all(int(rows[name][0].replace(",", "")) <= total for name in NAMES)
    # Weights drawn at random are the null control of themselves.
    trained, gaussian = ([float(cell) for cell in rows[name][:3]] for name in ("trained", "Gaussian"))
    assert trained == pytest.approx(gaussian, abs=0.03)
    assert trained[0] > trained[1] > trained[2]


def test_kept_rows_are_not_computed_again_and_compared_by_pairs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "rows.jsonl"
    names = ["whitened SVD", "SVD, by gradients"]
    arguments = [str(folder), "--windows", str(folder / "windows.npz"), "--splits", "tune", "val"]
    arguments += ["--fractions", "1/2", "--seeds", "0", "1", "--no-null-control", "--out", str(out), "--rows", *names]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "SVD, by gradients, seed 1" in printed
    rows = {(row.name, row.seed): row for row in read_rows(out)}
    assert set(rows) == {("dense", 0), ("whitened SVD", 0), ("SVD, by gradients", 0), ("SVD, by gradients", 1)}
    assert rows["SVD, by gradients", 0].nats != rows["SVD, by gradients", 1].nats
    monkeypatch.setattr(Study, "row", None)
    assert main(arguments) == 0
    assert capsys.readouterr().out == printed

    def difference(seed: int) -> np.ndarray:
        return np.subtract(rows["SVD, by gradients", seed].nats["val"], rows["whitened SVD", 0].nats["val"]) * 1000

    assert differences.main([str(out), "--pairs", "SVD, by gradients", "whitened SVD"]) == 0
    cells = capsys.readouterr().out.splitlines()[-1].split(" | ")
    error = difference(0).std(ddof=1) / 2
    # Student's t of three degrees of freedom: 3.182
    expected = [difference(0).mean(), error, 3.182 * error, difference(1).mean()]
    assert [float(cell.rstrip(" |")) for cell in cells[3:]] == pytest.approx(expected, abs=0.01)
    assert differences.main([str(out), "--pairs", "a", "b"]) == 2
    message = "error: no fraction with rows of 'a' and of 'b'. Run the study with both in --rows\n"
    assert capsys.readouterr().err == message


def test_an_array_that_is_not_there_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--windows", str(folder / "windows.npz"), "--splits", "x"]) == 2
    assert capsys.readouterr().err.endswith("windows.npz: no array x. Name others with --splits\n")
    assert main([str(folder), "--windows", str(folder / "absent.npz")]) == 2
    assert "absent.npz" in capsys.readouterr().err
