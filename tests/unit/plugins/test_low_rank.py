"""Low-rank factors: optimal in the norm that each SVD promises, counted, carried through a run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from baselines.low_rank.factorise import LowRankLinear, truncated_svd, whitened_svd
from baselines.low_rank.method import LowRank
from harness.errors import UsageError
from harness.method import Method
from harness.nn.layers import Linear

MakeMethod = Callable[..., Method]
SHAPES = [(1, 1), (1, 5), (7, 1), (5, 7), (13, 6)]


def random_moment(features: int, seed: int = 0, num_samples: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-1, 1, features, dtype=torch.float64)
    x_NI = torch.randn(num_samples, features, generator=generator, dtype=torch.float64) * scale
    mixing = torch.randn(features, features, generator=generator, dtype=torch.float64)
    return (x_NI @ mixing).T @ (x_NI @ mixing) / num_samples


def weighted_error(weight: np.ndarray, product: np.ndarray, moment: np.ndarray) -> float:
    """E |W x - P x|^2 = trace((W - P) M (W - P)^T)."""
    difference = weight - product
    return float(np.einsum("oi,ij,oj->", difference, moment, difference))


def descend(weight: torch.Tensor, moment: torch.Tensor, rank: int, seed: int) -> float:
    """The least weighted error that alternating least squares finds from a random start: no SVD is used."""
    generator = torch.Generator().manual_seed(seed)
    v_RI = torch.randn(rank, weight.size(1), generator=generator, dtype=torch.float64)
    for _ in range(300):
        u_OR = weight @ moment @ v_RI.T @ torch.linalg.pinv(v_RI @ moment @ v_RI.T)
        v_RI = torch.linalg.pinv(u_OR.T @ u_OR) @ u_OR.T @ weight
    return weighted_error(weight.numpy(), (u_OR @ v_RI).numpy(), moment.numpy())


@pytest.mark.parametrize("shape", SHAPES)
def test_full_rank_rebuilds_the_matrix(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    rank = min(shape)
    for u_OR, v_RI in (
        truncated_svd(weight, rank),
        whitened_svd(weight, random_moment(shape[1]), rank, damping=1e-9),
    ):
        assert u_OR.shape == (shape[0], rank)
        assert v_RI.shape == (rank, shape[1])
        torch.testing.assert_close(u_OR @ v_RI, weight.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_plain_svd_has_the_error_of_eckart_and_young_and_nothing_found_by_search_is_better(rank: int) -> None:
    weight = torch.randn(9, 6, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)
    u_OR, v_RI = truncated_svd(weight, rank)
    error = float(((weight - u_OR @ v_RI) ** 2).sum())
    # The sum of the squares of the values left out, from the eigenvalues of W^T W.
    assert error == pytest.approx(np.sort(np.linalg.eigvalsh(weight.numpy().T @ weight.numpy()))[:-rank].sum())
    searched = min(descend(weight, torch.eye(6, dtype=torch.float64), rank, seed) for seed in range(5))
    assert error <= searched * (1 + 1e-9)
    assert searched == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_whitened_svd_has_the_least_error_on_the_inputs(rank: int) -> None:
    weight = torch.randn(9, 6, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)
    moment = random_moment(6, seed=rank)
    u_OR, v_RI = whitened_svd(weight, moment, rank, damping=1e-12)
    error = weighted_error(weight.numpy(), (u_OR @ v_RI).numpy(), moment.numpy())
    # By another way: outputs y = W x have the covariance W M W^T, and keeping its leading eigenvectors is best.
    covariance = weight.numpy() @ moment.numpy() @ weight.numpy().T
    values, vectors = np.linalg.eigh(covariance)
    kept = vectors[:, -rank:]
    np.testing.assert_allclose((u_OR @ v_RI).numpy(), kept @ kept.T @ weight.numpy(), rtol=1e-5, atol=1e-7)
    assert error == pytest.approx(values[:-rank].sum(), rel=1e-6)
    assert error <= min(descend(weight, moment, rank, seed) for seed in range(5)) * (1 + 1e-6)
    plain_u, plain_v = truncated_svd(weight, rank)
    assert error < weighted_error(weight.numpy(), (plain_u @ plain_v).numpy(), moment.numpy())


def test_with_white_inputs_both_svds_are_one() -> None:
    weight = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    plain, white = truncated_svd(weight, 3), whitened_svd(weight, 2.5 * torch.eye(8), 3, damping=1e-9)
    torch.testing.assert_close(plain[0] @ plain[1], white[0] @ white[1])


def test_features_that_are_never_used_do_not_break_the_whitening() -> None:
    weight = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    moment = torch.diag(torch.tensor([1.0, 0.0, 2.0, 0.0]))
    u_OR, v_RI = whitened_svd(weight, moment, 2, damping=1e-4)
    # Two features are used, so two ranks are enough for them.
    torch.testing.assert_close((u_OR @ v_RI)[:, [0, 2]], weight[:, [0, 2]].double(), rtol=1e-3, atol=1e-3)
    for factor in whitened_svd(weight, torch.zeros(4, 4), 2, damping=1e-4):
        assert factor.isfinite().all()


def test_the_chain_is_the_product() -> None:
    torch.manual_seed(0)
    linear = LowRankLinear(6, 5, 3, std=0.1, bias=True)
    torch.nn.init.normal_(linear.bias)
    x = torch.randn(2, 7, 6)
    torch.testing.assert_close(linear(x), x @ (linear.u @ linear.v).T + linear.bias)


def test_initial_products_have_the_deviation_of_the_dense_matrix() -> None:
    torch.manual_seed(0)
    linear = LowRankLinear(400, 300, 64, std=0.05)
    assert (linear.u @ linear.v).std().item() == pytest.approx(0.05, rel=0.03)
    assert LowRankLinear(400, 300, 64, std=0.0).u.abs().max() == 0


def test_parameters_by_hand(make_method: MakeMethod) -> None:
    method = make_method(LowRank, "small")
    assert isinstance(method, LowRank)
    # Half of 192 x 192, 192 x 96 and 192 x 384: 18,432 / 384, 9,216 / 288 and 36,864 / 576.
    roles = ("query", "key", "value", "output", "up", "down")
    assert [method.settings.rank(role) for role in roles] == [48, 32, 32, 48, 64, 64]
    with torch.device("meta"):
        counts = method.count_params(method.build())
        dense = make_method(LowRank, "small", share=8.0)
    assert counts.parts["blocks"] == 8 * (2 * 18_432 + 2 * 9_216 + 2 * 36_864) == 4 * 258_048
    assert counts.active == sum(counts.parts.values())
    assert counts.effective - counts.active == 8 * 258_048 - counts.parts["blocks"]
    assert dense.settings.rank("up") == 192


def test_ranks_of_single_roles(make_method: MakeMethod) -> None:
    method = make_method(LowRank, "tiny", ranks={"query": 3})
    network = method.build()
    assert network.blocks[0].attention.query.v.shape == (3, 64)
    assert network.blocks[0].attention.output.v.shape == (16, 64)
    with pytest.raises(UsageError, match="query has rank 64 at most, got 65"):
        make_method(LowRank, "tiny", ranks={"query": 65})
    with pytest.raises(UsageError, match="no matrix 'gate'"):
        make_method(LowRank, "tiny", ranks={"gate": 3})


@pytest.mark.parametrize("preset", ["tiny", "picogpt-chi16"])
def test_a_dense_network_factorised_at_full_rank_is_itself(make_method: MakeMethod, preset: str) -> None:
    torch.manual_seed(0)
    method = make_method(LowRank, preset, vocab_size=65, share=4.0, zero_outputs=False)
    dense = method._build(method._dense_factory()).eval()
    for name, parameter in dense.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    moments = {
        name: random_moment(module.weight.size(1))
        for name, module in dense.named_modules()
        if isinstance(module, Linear)
    }
    tokens = torch.randint(65, (2, 16))
    for given in ({}, moments):
        torch.testing.assert_close(method.factorise(dense, given).eval()(tokens), dense(tokens), rtol=2e-4, atol=2e-5)


def test_picogpt_has_the_parameters_of_the_tensor_chain_it_is_compared_with(make_method: MakeMethod) -> None:
    method = make_method(LowRank, "picogpt-chi16", vocab_size=65)
    # MPO of bond 16 by its shapes: four maps of 5,120, two of 9,728 in each of 4 blocks, the head 3,968.
    matched = 4 * (4 * 5_120 + 2 * 9_728) + 3_968 + 8_320 + 5_376
    with torch.device("meta"):
        total = sum(method.count_params(method.build()).parts.values())
    assert total == pytest.approx(matched, rel=2e-3)
