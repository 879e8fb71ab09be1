"""The comparison at equal totals: rows, counts, what each row is; moments in passes are those of one pass."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch

from harness.errors import UsageError
from harness.pretrained.moments import PassedMoments, measure_moments
from harness.pretrained.perplexity import window_perplexity
from harness.pretrained.residual import ResidualModel
from harness.pretrained.unrotate import keep_means_out
from methods.procrustes import comparison
from methods.procrustes.budgets import compressed_params, largest_choice, one_sided
from methods.procrustes.comparison import ComparisonSettings, Row, fair_comparison
from methods.procrustes.compress import by_descent, by_principal_basis, compress
from methods.procrustes.descent import DescentOptions
from methods.procrustes.pretrained import PretrainedProcrustesSettings

transformers = pytest.importorskip("transformers", reason="needs the extra hf")

CALIBRATION = torch.randint(0, 61, (6, 20), generator=torch.Generator().manual_seed(1))
TEST = torch.randint(0, 61, (5, 20), generator=torch.Generator().manual_seed(2))
SHORT = by_descent(DescentOptions(max_rounds=1, num_steps=4))
HALF = one_sided(Fraction(1, 2))


def make_model(family: str = "opt") -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {
        "opt": lambda: transformers.OPTConfig(**sizes, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=32),
        "llama": lambda: transformers.LlamaConfig(**sizes, intermediate_size=48, tie_word_embeddings=False),
    }[family]()
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("structure", ["kronecker", "monarch", "low_rank", "block_low_rank"])
def test_what_needs_no_skip_matrices_may_spend_them(structure: str) -> None:
    dense = ResidualModel(make_model())
    settings = PretrainedProcrustesSettings.model_validate({"structure": structure, "parts": 4, "terms": 2})
    total = compressed_params(dense, settings.structure_of, "dense")
    spent = compressed_params(dense, largest_choice(dense, settings.by_share, "none", total), "none")
    assert 0.9 * total < spent <= total


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    settings = ComparisonSettings(choose=HALF, solve=SHORT, weighting="gradients")
    found = fair_comparison(make_model(), settings, calibration_BT=CALIBRATION, test_BT=TEST)
    return {row.name: row for row in found}


def test_every_row_is_there_and_none_has_more_parameters_than_the_rotation(rows: dict[str, Row]) -> None:
    names = ["dense", "rotation", "no rotation", "truncated SVD", "whitened SVD", "SVD, by gradients", "slicing"]
    null = ["rotation without moments", "the same of Gaussian weights"]
    assert list(rows) == names + null
    total = rows["rotation"].num_params
    assert all(0.8 * total < rows[name].num_params <= total for name in names[1:] + null)
    assert rows["slicing"].relative_error is None
    assert all(rows[name].relative_error > 0.1 for name in rows if name not in ("dense", "slicing"))
    assert all(len(rows[name].window_nats) == 5 for name in [*names, null[0]])
    assert rows[null[1]].window_nats == ()
    assert rows[null[1]].perplexity is None
    # Weights drawn at random are the null control of themselves.
    assert rows[null[0]].relative_error == pytest.approx(rows[null[1]].relative_error, abs=0.05)


def test_rows_are_what_each_way_gives_alone(rows: dict[str, Row]) -> None:
    dense = ResidualModel(make_model())
    assert rows["dense"].num_params == dense.num_params()
    assert rows["dense"].perplexity == pytest.approx(window_perplexity(dense.model, TEST))
    moments = measure_moments(dense, CALIBRATION, with_gradients=True)
    compress(dense, HALF, SHORT, weighting="gradients", moments=moments)
    keep_means_out(dense)
    assert rows["rotation"].num_params == dense.num_params()
    assert rows["rotation"].perplexity == pytest.approx(window_perplexity(dense.model, TEST), rel=1e-4)


def test_a_way_that_cannot_be_gone_says_why_and_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise torch.linalg.LinAlgError("the algorithm did not converge\nmore of it")

    monkeypatch.setattr(comparison, "slice_model", fail)
    # no skip matrices pay for low ranks, and the least of them has more numbers than this
    least = one_sided(Fraction(1, 16), ())
    settings = ComparisonSettings(choose=least, solve=by_principal_basis, weighting="none", skips="shared")
    found = {
        row.name: row
        for row in fair_comparison(make_model("llama"), settings, calibration_BT=CALIBRATION, test_BT=TEST)
    }
    assert found["slicing"].problem == "the algorithm did not converge"
    assert found["truncated SVD"].problem.startswith("no class has as few as")
    for name in ("slicing", "truncated SVD"):
        assert (found[name].num_params, found[name].perplexity) == (None, None)
    for name in ("dense", "rotation", "rotation without moments"):
        assert found[name].problem == ""
        assert found[name].num_params > 0


def test_differences_are_by_pairs_of_windows() -> None:
    def row(*nats: float) -> Row:
        return Row(name="", num_params=1, relative_error=None, window_nats=nats, seconds=0.0)

    mean, interval = row(1.0, 5.0, 3.0).more_nats_than(row(0.5, 4.0, 3.0))
    # differences 0.5, 1, 0: mean 0.5, deviation 0.5, over the root of three windows
    assert mean == pytest.approx(0.5)
    assert interval.standard_error == pytest.approx(0.5 / math.sqrt(3))
    assert row(0.0, math.log(4)).perplexity == pytest.approx(2)
    with pytest.raises(UsageError, match="one pair has no spread"):
        row(1.0).more_nats_than(row(2.0))


@pytest.mark.parametrize(("skips", "family"), [("cayley", "llama"), ("shared", "opt")])
def test_other_skips_set_other_totals(rows: dict[str, Row], skips: str, family: str) -> None:
    settings = ComparisonSettings(choose=HALF, solve=by_principal_basis, weighting="activations", skips=skips)
    model = make_model(family)
    before = [parameter.clone() for parameter in model.parameters()]
    found = fair_comparison(model, settings, calibration_BT=CALIBRATION, test_BT=TEST)
    assert all(map(torch.equal, before, model.parameters()))
    total = found[1].num_params
    assert all(row.num_params <= total for row in found[2:])
    assert "SVD, by gradients" not in {row.name for row in found}
    if family == "opt":
        assert total < rows["rotation"].num_params


@pytest.mark.parametrize("family", ["opt", "llama"])
@pytest.mark.parametrize("per_pass", [1, 2, 9])
def test_moments_in_passes_are_those_of_one(family: str, per_pass: int) -> None:
    residual = ResidualModel(make_model(family))
    whole = measure_moments(residual, CALIBRATION, with_gradients=True, batch_size=4, seed=3)
    flags = [parameter.requires_grad for parameter in residual.model.parameters()]
    passed = PassedMoments(residual, CALIBRATION, with_gradients=True, bases_per_pass=per_pass, batch_size=4, seed=3)
    assert list(passed) == list(whole)
    assert len(passed) == len(whole)
    for place, expected in whole.items():
        one = passed[place]
        assert one.num_tokens == expected.num_tokens == CALIBRATION.numel()
        for value, other in zip(
            (one.second, one.mean, one.gradient), (expected.second, expected.mean, expected.gradient), strict=True
        ):
            torch.testing.assert_close(value, other, rtol=1e-6, atol=1e-12)
    assert [parameter.requires_grad for parameter in residual.model.parameters()] == flags
    assert all(parameter.grad is None for parameter in residual.model.parameters())


def test_moments_of_few_bases_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    residual = ResidualModel(make_model("llama"))
    passed = PassedMoments(residual, CALIBRATION, with_gradients=True)
    calls: list[int] = []
    residual.model.register_forward_hook(lambda *_: calls.append(1))
    held = []

    def watch(members: Any) -> Any:
        held.append({place.block for place in passed._held})
        return by_principal_basis(members)

    compress(residual, HALF, watch, weighting="gradients", moments=passed)
    assert held == [{0}, {0}, {0, 1}, {1}, {1}]
    # one pass for each of five bases, none for what comes after
    assert len(calls) == 5
    with pytest.raises(KeyError):
        passed["nowhere"]


def test_gradients_are_those_of_plain_autograd() -> None:
    residual = ResidualModel(make_model())
    place = next(place for place in residual.places(1) if place.role == "up")
    seen = []
    handle = residual.module(place).register_full_backward_hook(lambda module, into, out: seen.append(out[0]))
    generator = torch.Generator().manual_seed(0)
    logits = residual.model(input_ids=CALIBRATION).logits.flatten(0, 1)
    drawn = torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]
    torch.nn.functional.cross_entropy(logits, drawn, reduction="sum").backward()
    handle.remove()
    g = seen[0].flatten(0, 1).double()
    found = measure_moments(residual, CALIBRATION, with_gradients=True)[place]
    torch.testing.assert_close(found.gradient, g.T @ g / len(g), rtol=1e-5, atol=1e-12)
