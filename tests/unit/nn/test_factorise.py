"""Chains of cores against numpy einsum, singular values and sums by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.errors import UsageError
from harness.nn.factorise import Modes, TensorTrain, balanced_factors, balanced_modes, contract, rebuild

SHAPES = [
    Modes((2, 3), (3, 2)),
    Modes((8, 16), (8, 16)),
    Modes((5, 13), (8, 16)),
    Modes((8, 8, 8), (4, 4, 8)),
    Modes((4, 4, 8), (8, 8, 8)),
    Modes((2, 1, 3, 5), (3, 2, 1, 2)),
]


def draw_matrix(modes: Modes, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(math.prod(modes.outs), math.prod(modes.ins), generator=generator, dtype=torch.float64)


def draw_cores(modes: Modes, chi: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    bonds = [1, *[chi] * (modes.num_sites - 1), 1]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in modes.core_shapes(bonds)]


def einsum_matrix(cores: Sequence[Tensor]) -> np.ndarray:
    """The matrix by one einsum over all bonds: an independent route."""
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    bond, outs, ins, terms = next(letters), "", "", []
    first = bond
    for _ in cores:
        out, inside, right = next(letters), next(letters), next(letters)
        terms.append(f"{bond}{out}{inside}{right}")
        outs, ins, bond = outs + out, ins + inside, right
    full = np.einsum(f"{','.join(terms)}->{first}{outs}{ins}{bond}", *[core.numpy() for core in cores])
    return full.reshape(math.prod(core.size(1) for core in cores), -1)


def test_two_sites_by_hand() -> None:
    # W[(o0 o1), (i0 i1)] = sum_a A[o0, i0, a] B[a, o1, i1] with one in feature in all: rows o0 o1 of a 2 x 1 by 2 x 1.
    first = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 1, 2)
    second = torch.tensor([[5.0, 6.0], [7.0, 8.0]]).reshape(2, 2, 1, 1)
    # rows: 1*5 + 2*7 = 19, 1*6 + 2*8 = 22, 3*5 + 4*7 = 43, 3*6 + 4*8 = 50
    assert rebuild([first, second]).flatten().tolist() == [19, 22, 43, 50]
    assert contract([first, second], torch.tensor([[2.0]])).tolist() == [[38, 44, 86, 100]]


@pytest.mark.parametrize("modes", SHAPES)
@pytest.mark.parametrize("chi", [1, 3, 8])
def test_matrix_and_products_equal_einsum(modes: Modes, chi: int) -> None:
    cores = draw_cores(modes, chi)
    expected = einsum_matrix(cores)
    np.testing.assert_allclose(rebuild(cores).numpy(), expected, rtol=1e-12, atol=1e-12)
    for num_rows in (1, 7):
        x = torch.randn(num_rows, expected.shape[1], dtype=torch.float64)
        for from_left in (True, False):
            y = contract(cores, x, from_left=from_left)
            assert y.is_contiguous()
            np.testing.assert_allclose(y.numpy(), x.numpy() @ expected.T, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("modes", SHAPES)
def test_a_chain_of_full_bonds_is_the_matrix(modes: Modes) -> None:
    weight = draw_matrix(modes)
    train = TensorTrain.of(weight, modes, max_bond=10**9)
    assert [tuple(core.shape) for core in train.cores] == modes.core_shapes(modes.bonds(10**9))
    np.testing.assert_allclose(einsum_matrix(train.cores), weight.numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(rebuild(train.cores).numpy(), weight.numpy(), rtol=0, atol=1e-12)
    assert train.error == 0


@pytest.mark.parametrize("modes", SHAPES)
def test_left_cores_are_orthogonal(modes: Modes) -> None:
    for core in TensorTrain.of(draw_matrix(modes), modes, max_bond=4).cores[:-1]:
        columns = core.reshape(-1, core.size(-1))
        torch.testing.assert_close(columns.T @ columns, torch.eye(core.size(-1), dtype=torch.float64))


def unfolding_tails(weight: Tensor, modes: Modes, chi: int) -> list[float]:
    """Norm of the singular values beyond the first chi of each unfolding of the matrix itself, by numpy."""
    tensor = weight.numpy().reshape(*modes.outs, *modes.ins)
    digits = [axis for site in range(modes.num_sites) for axis in (site, modes.num_sites + site)]
    tensor = tensor.transpose(digits)
    tails = []
    for cut in range(1, modes.num_sites):
        rows = math.prod(modes.outs[:cut]) * math.prod(modes.ins[:cut])
        values = np.linalg.svd(tensor.reshape(rows, -1), compute_uv=False)
        tails.append(float(np.linalg.norm(values[chi:])))
    return tails


@pytest.mark.parametrize("modes", SHAPES)
def test_the_error_is_what_was_cut_and_within_the_bound(modes: Modes) -> None:
    weight, errors = draw_matrix(modes), []
    for chi in (1, 2, 4, 8, 16, 32):
        train = TensorTrain.of(weight, modes, max_bond=chi)
        errors.append(float(np.linalg.norm(weight.numpy() - einsum_matrix(train.cores))))
        assert train.error == pytest.approx(errors[-1], rel=1e-9, abs=1e-11)
        tails = unfolding_tails(weight, modes, chi)
        # Oseledets 2011, theorem 2.2; no chain of these bonds is better than the worst single unfolding.
        assert max(tails) - 1e-9 <= errors[-1] <= math.hypot(*tails) + 1e-9
    assert all(later <= earlier + 1e-11 for earlier, later in zip(errors, errors[1:], strict=False))


def test_with_two_sites_it_is_the_best_low_rank_matrix() -> None:
    modes, chi = Modes((8, 16), (8, 16)), 5
    weight = draw_matrix(modes)
    assert TensorTrain.of(weight, modes, chi).error == pytest.approx(unfolding_tails(weight, modes, chi)[0], rel=1e-12)


def test_more_sites_never_fit_better_at_equal_bonds() -> None:
    # The three-site chain is a two-site chain whose right core is itself factorised: the sets are nested.
    weight = draw_matrix(Modes((8, 64), (8, 64)))
    for chi in (2, 4, 8, 16):
        two = TensorTrain.of(weight, Modes((8, 64), (8, 64)), chi).error
        assert two <= TensorTrain.of(weight, Modes((8, 8, 8), (8, 8, 8)), chi).error


def test_gradients_are_those_of_the_matrix() -> None:
    modes = Modes((3, 4, 2), (2, 3, 4))
    cores = [core.requires_grad_() for core in draw_cores(modes, 3)]
    x = torch.randn(5, 24, dtype=torch.float64, requires_grad=True)
    for from_left in (True, False):
        assert torch.autograd.gradcheck(
            lambda x, *cores, side=from_left: contract(cores, x, from_left=side), (x, *cores)
        )
    assert torch.autograd.gradcheck(lambda *cores: rebuild(cores), tuple(cores))


def test_modes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match=r"modes \(2, 3\) x \(2, 2\) do not multiply to a 5 x 4 matrix"):
        TensorTrain.of(torch.zeros(5, 4), Modes((2, 3), (2, 2)), 2)


@pytest.mark.parametrize(
    ("number", "num_factors", "expected"),
    [(128, 2, (8, 16)), (128, 3, (4, 4, 8)), (512, 3, (8, 8, 8)), (65, 2, (5, 13)), (360, 4, (3, 4, 5, 6))]
    + [(257, 2, None), (1, 2, None), (6, 3, None), (7, 1, (7,)), (4096, 2, (64, 64)), (4096, 4, (8, 8, 8, 8))],
)
def test_balanced_factors(number: int, num_factors: int, expected: tuple[int, ...] | None) -> None:
    assert balanced_factors(number, num_factors) == expected


def test_balanced_modes_take_the_first_number_of_sites_that_is_narrow_enough() -> None:
    assert balanced_modes(128, 128, (2, 3, 4), 16) == Modes((8, 16), (8, 16))
    assert balanced_modes(128, 512, (2, 3, 4), 16) == Modes((8, 8, 8), (4, 4, 8))
    # 514 = 2 * 257 has two factors only, one of them wide.
    assert balanced_modes(64, 514, (2, 3, 4), 16) == Modes((2, 257), (8, 8))
    assert balanced_modes(64, 257, (2, 3, 4), 16) is None
    assert balanced_modes(64, 64, (3,), 16) == Modes((4, 4, 4), (4, 4, 4))


def test_bonds_are_capped_at_the_useful_rank() -> None:
    assert Modes((8, 8, 8), (4, 4, 8)).bonds(100) == (1, 32, 64, 1)
    assert Modes((5, 13), (8, 16)).bonds(100) == (1, 40, 1)
    assert Modes((8, 16), (8, 16)).bonds(16) == (1, 16, 1)
