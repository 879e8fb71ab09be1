"""Weighted rotations: never worse, better than alternation, narrow members; whole models; moments; perplexity."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.pretrained.moments import Moments, measure_moments
from harness.pretrained.perplexity import window_perplexity
from harness.pretrained.residual import Place, ResidualModel
from methods.procrustes.classes import BlockLowRank, Exact, Kronecker, LowRank, Monarch, StructuredClass
from methods.procrustes.compress import (
    by_alternation,
    by_descent,
    by_principal_basis,
    compress,
    weighted_basis,
    without_rotation,
)
from methods.procrustes.descent import DescentOptions, descend
from methods.procrustes.layer import StructuredLinear
from methods.procrustes.member import Member
from methods.procrustes.solver import PUBLISHED, solve_rotation

transformers = pytest.importorskip("transformers", reason="needs the extra hf")

SHORT = DescentOptions(max_rounds=2, num_steps=15)
IDENTITY = torch.eye(8, dtype=torch.float64)
TOKENS = torch.randint(0, 61, (6, 16), generator=torch.Generator().manual_seed(3))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_metric(size: int, seed: int) -> Tensor:
    root = draw(size, size + 2, seed=seed) * torch.linspace(0.2, 2, size)[:, None]
    return root @ root.T / size


def make_members(make: type, seed: int = 0) -> list[Member]:
    return [
        Member(weight=draw(8, 12, seed=seed), structure=make(12), row_metric=draw_metric(8, seed + 1)),
        Member(weight=draw(8, 6, seed=seed + 2), structure=make(6), column_metric=draw_metric(6, seed + 3), share=2.0),
        Member(weight=draw(8, 4, seed=seed + 4), structure=Exact(8, 4)),
    ]


STRUCTURES = [
    lambda n: Kronecker(8, n, terms=3, left_rows=4, left_columns=1),
    lambda n: Kronecker(8, n, terms=2, left_rows=2, left_columns=2),
    lambda n: LowRank(8, n, rank=3),
    lambda n: BlockLowRank(8, n, row_blocks=2, column_blocks=2, rank=1),
    lambda n: Monarch(8, n, 2, 2, 2),
]


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(STRUCTURES), st.integers(0, 999))
def test_no_round_raises_the_error_and_the_rest_is_consistent(make: type, seed: int) -> None:
    members = make_members(make, seed)
    found = descend(members, IDENTITY, SHORT)
    assert list(found.errors) == sorted(found.errors, reverse=True)
    torch.testing.assert_close(found.matrix @ found.matrix.T, IDENTITY)
    total = sum(
        member.error(found.matrix, factors).item() for member, factors in zip(members, found.factors, strict=True)
    )
    assert total == pytest.approx(found.errors[-1], rel=1e-6, abs=1e-9)
    torch.testing.assert_close(found.factors[2][0], found.matrix @ members[2].weight)


def test_descent_goes_below_ten_iterations_of_alternation() -> None:
    members = [Member(weight=draw(8, 12, seed=seed), structure=Kronecker(8, 12, 3, 4, 1)) for seed in range(3)]
    alternated = solve_rotation(members, PUBLISHED)
    found = descend(members, alternated.matrix)
    start = sum(member.error(alternated.matrix, member.fit(alternated.matrix)).item() for member in members)
    assert found.errors[0] == pytest.approx(start)
    assert found.errors[-1] < 0.97 * found.errors[0]


@pytest.mark.parametrize("make", STRUCTURES)
def test_a_narrow_member_has_the_same_error(make: type) -> None:
    member = Member(
        weight=draw(8, 12), structure=make(12), row_metric=draw_metric(8, 1), column_metric=draw_metric(12, 2)
    )
    narrow = member.narrow()
    assert narrow.weight.shape == ((8, 8) if member.structure.is_free_on_the_right else (8, 12))
    rotation = torch.linalg.qr(draw(8, 8, seed=5)).Q
    leading = member.structure.project(member.weight)[:-1]
    errors = []
    for one in (member, narrow):
        last = one.structure.project(rotation @ one.weight)[-1]
        errors.append(one.error(rotation, one.complete(rotation, (*leading, last))).item())
    assert errors[1] == pytest.approx(errors[0], rel=1e-9)


def test_what_a_direction_costs_by_hand() -> None:
    # One row of weight 3 and error metric 2 costs 2 * 3^2, another one of weight 4 and metric 1 costs 4^2.
    member = Member(
        weight=torch.diag(torch.tensor([4.0, 3.0])).double(),
        structure=LowRank(2, 2, rank=1),
        row_metric=torch.diag(torch.tensor([1.0, 2.0])).double(),
    )
    assert member.energy().item() == pytest.approx(16 + 18)
    # R W W^T R = diag(16, 36): the second direction comes first.
    assert weighted_basis([member])[0].abs().tolist() == [0, 1]


def make_model(family: str) -> ResidualModel:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 61,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "attn_implementation": "sdpa",
    }
    configs = {
        "opt": lambda: transformers.OPTConfig(**sizes, ffn_dim=24, word_embed_proj_dim=16),
        "llama": lambda: transformers.LlamaConfig(**sizes, intermediate_size=24, num_key_value_heads=2),
    }
    model = transformers.AutoModelForCausalLM.from_config(configs[family]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return ResidualModel(model)


def one_sided(place: Place, rows: int, columns: int) -> StructuredClass:
    return Exact(rows, columns) if place.role == "value" else Kronecker(rows, columns, 3, 4, 1)


def nothing(place: Place, rows: int, columns: int) -> StructuredClass:
    return LowRank(rows, columns, rank=min(rows, columns))


@torch.no_grad()
def logits_of(residual: ResidualModel) -> Tensor:
    return residual.model(input_ids=TOKENS).logits


@pytest.mark.parametrize("family", ["opt", "llama"])
@pytest.mark.parametrize("solve", [by_descent(SHORT), by_alternation(PUBLISHED), by_principal_basis])
def test_classes_of_all_matrices_change_nothing(family: str, solve: object) -> None:
    before = logits_of(make_model(family))
    residual = make_model(family)
    done = compress(residual, nothing, solve)
    assert max(done.relative_errors.values()) < 1e-6
    torch.testing.assert_close(logits_of(residual), before, rtol=0, atol=1e-4 * before.abs().max().item())
    assert isinstance(residual.module(Place(block=0, role="down", reads=False)), StructuredLinear)


def test_parameters_of_a_compressed_model_counted_by_hand() -> None:
    residual = make_model("llama")
    compress(residual, one_sided, by_principal_basis)
    d, f, v = 16, 24, 61
    square, wide = 3 * (4 + d // 4 * d), 3 * (4 + d // 4 * f)
    # query, key, output; value; gate, up, down; two skip matrices
    block = 3 * square + d * d + 3 * wide + 2 * d * d
    assert residual.num_params() == 2 * v * d + 2 * block


@pytest.mark.parametrize("weighting", ["weights", "activations", "gradients"])
@pytest.mark.parametrize("family", ["opt", "llama"])
def test_every_weighting_brings_the_model_nearer_than_plain_projection(family: str, weighting: str) -> None:
    before = logits_of(make_model(family)).log_softmax(-1)
    moments = measure_moments(make_model(family), TOKENS, with_gradients=True)

    def divergence(residual: ResidualModel) -> float:
        return F.kl_div(logits_of(residual).log_softmax(-1), before, log_target=True, reduction="batchmean").item()

    plain, weighted = make_model(family), make_model(family)
    compress(plain, one_sided, without_rotation, skips="none")
    compress(weighted, one_sided, by_descent(SHORT), weighting=weighting, moments=moments)
    assert divergence(weighted) < 0.7 * divergence(plain)


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_skips_by_cayley_run_alike_and_count_less(family: str) -> None:
    dense, cayley = make_model(family), make_model(family)
    compress(dense, one_sided, by_principal_basis)
    compress(cayley, one_sided, by_principal_basis, skips="cayley")
    expected = logits_of(dense)
    torch.testing.assert_close(logits_of(cayley), expected, rtol=0, atol=1e-3 * expected.abs().max().item())
    skips = [skip for block in cayley.blocks for skip in (block.attention_skip, block.mlp_skip)]
    reflections = sum(skip.reflections.numel() for skip in skips)
    assert dense.num_params() - cayley.num_params() == 4 * (16 * 16 - 16 * 15 // 2) - reflections


def test_a_shared_basis_needs_no_skip_matrices() -> None:
    before = logits_of(make_model("llama")).log_softmax(-1)
    residual = make_model("llama")
    done = compress(residual, nothing, by_descent(SHORT), skips="shared")
    assert len(done.errors) == 1
    assert all(isinstance(block.attention_skip, torch.nn.Identity) for block in residual.blocks)
    assert not torch.equal(residual.embeddings[0].weight, make_model("llama").embeddings[0].weight)
    torch.testing.assert_close(logits_of(residual).log_softmax(-1), before, rtol=0, atol=1e-3)


def test_without_rotation_no_skip_matrices_are_stored() -> None:
    residual = make_model("opt")
    before = residual.num_params()
    compress(residual, nothing, without_rotation, skips="none")
    factors = sum(16 * 2 * 16 * 4 - 4 * 16 * 16 + 2 * (16 * (16 + 24) - 16 * 24) for _ in range(2))
    assert residual.num_params() == before + factors


def test_biases_take_up_the_mean_of_the_error() -> None:
    moments = measure_moments(make_model("opt"), TOKENS, with_gradients=False)
    means = []
    for known in (moments, None):
        residual = make_model("opt")
        compress(residual, one_sided, without_rotation, skips="none", moments=known)
        place = Place(block=0, role="query", reads=True)
        seen: list[Tensor] = []
        residual.module(place).register_forward_hook(lambda module, x, y, seen=seen: seen.append(y))
        dense = make_model("opt")
        dense.module(place).register_forward_hook(lambda module, x, y, seen=seen: seen.append(y))
        logits_of(residual), logits_of(dense)
        means.append((seen[0] - seen[1]).mean((0, 1)).abs().max().item())
    assert means[0] < 1e-5 < 1e-2 < means[1]


def test_moments_are_those_of_the_tokens() -> None:
    residual = make_model("llama")
    place = Place(block=1, role="down", reads=False)
    seen: list[Tensor] = []
    handle = residual.module(place).register_forward_pre_hook(lambda module, x: seen.append(x[0].detach()))
    moments = measure_moments(residual, TOKENS, with_gradients=False, batch_size=4)[place]
    handle.remove()
    x = torch.cat([part.flatten(0, 1) for part in seen]).double()
    assert len(x) == moments.num_tokens == TOKENS.numel()
    torch.testing.assert_close(moments.second, x.T @ x / len(x))
    torch.testing.assert_close(moments.covariance, torch.cov(x.T, correction=0))
    assert moments.gradient is None


def test_gradients_foretell_what_a_small_change_costs() -> None:
    residual = make_model("opt")
    place = Place(block=0, role="down", reads=False)
    tokens = torch.randint(0, 61, (200, 16), generator=torch.Generator().manual_seed(4))
    moments = measure_moments(residual, tokens, with_gradients=True)[place]
    with torch.no_grad():
        before = residual.model(input_ids=tokens).logits.log_softmax(-1)
        # Changes of one bias act on each token alone, as the factor assumes.
        change = 0.01 * torch.randn(16, generator=torch.Generator().manual_seed(5))
        residual.module(place).bias += change
        after = residual.model(input_ids=tokens).logits.log_softmax(-1)
    nats = F.kl_div(after, before, log_target=True, reduction="sum").item() / tokens.numel()
    assert nats > 0
    assert moments.gradient is not None
    assert 0.5 * (change.double() @ moments.gradient @ change.double()).item() == pytest.approx(nats, rel=0.5)


def test_moments_add_up_by_hand() -> None:
    moments = Moments()
    moments.add_inputs(torch.tensor([[[1.0, 2.0]]]))
    moments.add_inputs(torch.tensor([[3.0, 0.0]]))
    assert moments.mean.tolist() == [2, 1]
    assert moments.second.tolist() == [[5, 1], [1, 2]]
    assert moments.covariance.tolist() == [[1, -1], [-1, 1]]


def test_perplexity_by_hand() -> None:
    # Windows 0 1 1 and 1 0 0; each token gets 3/4 of the next position's probability if it is a 1.
    def model(input_ids: Tensor) -> SimpleNamespace:
        logits = torch.tensor([1 / 4, 3 / 4]).log().expand(*input_ids.shape, 2)
        return SimpleNamespace(logits=logits)

    tokens = torch.tensor([[0, 1, 1], [1, 0, 0]])
    expected = math.exp(-(2 * math.log(3 / 4) + 2 * math.log(1 / 4)) / 4)
    assert window_perplexity(model, tokens, batch_size=1) == pytest.approx(expected)
