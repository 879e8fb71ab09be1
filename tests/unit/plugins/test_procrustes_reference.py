"""The published variant on the reference model, and what ours reach there; needs the reference data."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra hf")

from opt_small import write_folder

from harness.pretrained.perplexity import window_perplexity
from harness.pretrained.residual import ResidualModel
from methods.procrustes.budgets import one_sided
from methods.procrustes.compress import by_alternation, compress
from methods.procrustes.solver import PUBLISHED
from methods.procrustes.study import WAYS, Study

FRACTIONS = {Fraction(3, 4): 808_436, Fraction(5, 8): 718_884, Fraction(1, 2): 628_012}


@pytest.fixture(scope="module")
def reference(shared_dir: Path) -> Path:
    folder = shared_dir / "fixtures" / "procrustes"
    if not folder.is_dir():
        pytest.skip(f"no reference data of procrustes at {folder}")
    return folder


@pytest.fixture(scope="module")
def study(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("opt_small")
    write_folder(reference / "opt_small", folder)
    with np.load(reference / "opt_small" / "data_and_logits.npz") as stored:
        calibration, validation = (torch.from_numpy(stored[name].astype(np.int64)) for name in ("calib", "val"))
    return Study(str(folder), calibration, {"val": validation})


def perplexity(study: Study, residual: ResidualModel) -> float:
    return window_perplexity(residual.model, study.splits["val"])


def published(reference: Path, fraction: Fraction) -> dict[str, Any]:
    runs = json.loads((reference / "numbers.json").read_text(encoding="utf-8"))["opt_small"]["frobenius_reference"]
    return next(
        run for run in runs if run["frac"] == float(fraction) and run["dec"] == "kronecker" and run["als_iters"] == 10
    )


def test_the_dense_model_has_its_perplexity_and_its_parameters(study: Study) -> None:
    folded = study.folded()
    assert perplexity(study, folded) == pytest.approx(8.591236, abs=1e-4)
    assert folded.num_params() == 841_088


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_the_published_variant_has_the_published_errors_and_perplexity(
    study: Study, reference: Path, fraction: Fraction
) -> None:
    expected = published(reference, fraction)
    residual = study.folded()
    done = compress(residual, one_sided(fraction), by_alternation(PUBLISHED))
    names = [f"{kind}_{block}" for block in range(4) for kind in ("attn", "ffn")] + ["head"]
    for name, errors in zip(names, done.errors, strict=True):
        assert errors == pytest.approx(expected["als_errs"][name], abs=1e-3), name
    assert perplexity(study, residual) == pytest.approx(expected["ppl"], rel=1e-3)
    # The published count has one number more for the value map of each block, a factor of 1.
    assert residual.num_params() == FRACTIONS[fraction] - 4 == expected["params_full_skip"] - 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "perplexities"),
    [
        ("descent, by weights", (8.761, 8.952, 9.547)),
        ("descent, by activations", (8.600, 8.673, 8.783)),
        ("descent, by gradients", (8.600, 8.673, 8.783)),
    ],
)
def test_descents_reach_the_least_perplexities_known(study: Study, name: str, perplexities: tuple[float, ...]) -> None:
    for (fraction, total), bound in zip(FRACTIONS.items(), perplexities, strict=True):
        residual = study.folded()
        study.run(residual, WAYS[name], fraction)
        assert residual.num_params() <= total
        assert perplexity(study, residual) <= bound
