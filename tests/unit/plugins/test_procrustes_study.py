"""The table at equal totals: rows, counts, refusals; the command line."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.errors import UsageError
from methods.procrustes import study as study_module
from methods.procrustes.study import WAYS, Study, low_rank, main, many_parts, one_sided

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
    np.savez(path / "windows.npz", calib=windows, val=windows)
    return path


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    with np.load(folder / "windows.npz") as stored:
        return Study(str(folder), torch.from_numpy(stored["calib"]), torch.from_numpy(stored["val"]))


@pytest.mark.parametrize("name", ["principal basis", "descent, by gradients, Cayley", "whitened SVD", "no rotation"])
def test_counts_made_before_are_those_of_the_model(study: Study, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    way, fraction = WAYS[name], Fraction(3, 4)
    total = study.total_params(one_sided(fraction), "dense")
    choose = one_sided(fraction) if way.choose is None else study.largest(way.choose, way.skips, total)
    residual = study.folded()
    study.run(residual, way, fraction, total)
    skips = [getattr(block, part) for block in residual.blocks for part in ("attention_skip", "mlp_skip")]
    reflections = sum(skip.reflections.numel() for skip in skips if hasattr(skip, "reflections"))
    expected = study.total_params(choose, way.skips)
    if way.skips == "cayley":
        expected += reflections - len(skips) * study_module.EXPECTED_REFLECTIONS * residual.width
    assert residual.num_params() == expected
    assert expected <= total or reflections


@pytest.mark.parametrize("make", [low_rank, many_parts])
def test_the_largest_choice_has_no_room_left(study: Study, make: type) -> None:
    total = study.total_params(one_sided(Fraction(1, 2)), "dense")
    found = study.total_params(study.largest(make, "none", total), "none")
    # One more rank or term in every map is at most a tenth here.
    assert 0.9 * total < found <= total
    with pytest.raises(UsageError, match="no class has as few as 100 parameters. Give a larger fraction"):
        study.largest(make, "none", 100)


def test_the_command_prints_every_row_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(folder), "--windows", str(folder / "windows.npz"), "--fractions", "1/2", "--rows", *NAMES]
    monkeypatch.setattr(sys, "argv", ["study", *arguments])
    main()
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("|")[1].strip(): line.split("|")[2:] for line in lines if line.startswith("|")}
    assert set(NAMES) <= set(rows)
    total = int(lines[0].split(":")[1].split()[0].replace(",", ""))
    assert all(int(rows[name][0].replace(",", "")) <= total for name in NAMES)
    # Weights drawn at random are the null control of themselves.
    trained, gaussian = ([float(cell) for cell in rows[name][:3]] for name in ("trained", "Gaussian"))
    assert trained == pytest.approx(gaussian, abs=0.03)
    assert trained[0] > trained[1] > trained[2]
