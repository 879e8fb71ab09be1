"""Structured classes: multiplying against the matrix, projections against brute force, sizes, weighted fits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.errors import UsageError
from methods.procrustes.classes import BlockLowRank, Exact, Kronecker, LowRank, Monarch, StructuredClass

TINY = [
    Exact(5, 3),
    LowRank(6, 5, rank=2),
    BlockLowRank(6, 4, row_blocks=3, column_blocks=2, rank=1),
    Kronecker(8, 6, terms=2, left_rows=2, left_columns=3),
    Kronecker(8, 5, terms=3, left_rows=4, left_columns=1),
    Kronecker(5, 8, terms=2, left_rows=1, left_columns=4),
    Monarch(8, 6, left_blocks=2, right_blocks=2, left_width=2),
    Monarch(6, 8, left_blocks=2, right_blocks=4, left_width=6),
]
ids = [f"{type(member).__name__}{index}" for index, member in enumerate(TINY)]


@pytest.fixture(params=TINY, ids=ids)
def structure(request: pytest.FixtureRequest) -> StructuredClass:
    return request.param


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_metric(size: int, seed: int) -> Tensor:
    root = draw(size, size + 2, seed=seed)
    return root @ root.T / size


def any_member(structure: StructuredClass, seed: int = 0) -> tuple[Tensor, ...]:
    shapes = [factor.shape for factor in structure.project(draw(structure.rows, structure.columns))]
    return tuple(draw(*shape, seed=seed + index) for index, shape in enumerate(shapes))


def distance(structure: StructuredClass, weight: Tensor, factors: tuple[Tensor, ...]) -> float:
    return (weight - structure.dense(factors)).square().sum().item()


def weighted_distance(weight: Tensor, member: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return torch.trace((weight - member).T @ rows @ (weight - member) @ columns)


def test_multiplying_agrees_with_the_matrix(structure: StructuredClass) -> None:
    factors = any_member(structure)
    x = draw(2, 3, structure.rows, seed=9)
    torch.testing.assert_close(structure.apply(factors, x), x @ structure.dense(factors), rtol=1e-12, atol=1e-12)


def test_transposed_members(structure: StructuredClass) -> None:
    factors = any_member(structure)
    mirrored, mirrored_factors = structure.transpose(factors)
    expected = structure.dense(factors).T
    torch.testing.assert_close(mirrored.dense(mirrored_factors), expected, rtol=1e-12, atol=1e-12)
    x = draw(4, structure.columns, seed=9)
    torch.testing.assert_close(mirrored.apply(mirrored_factors, x), x @ expected, rtol=1e-12, atol=1e-12)
    assert mirrored.transpose(mirrored_factors)[0] == structure


def test_num_params_counts_the_factors(structure: StructuredClass) -> None:
    assert structure.num_params == sum(factor.numel() for factor in any_member(structure))


@pytest.mark.parametrize(
    ("structure", "num_params"),
    [
        (LowRank(128, 512, rank=16), 16 * (128 + 512)),
        (Kronecker(128, 512, terms=3, left_rows=4, left_columns=1), 3 * (4 + 32 * 512)),
        (Kronecker(64, 64, terms=2, left_rows=8, left_columns=8), 2 * (64 + 64)),
        (BlockLowRank(64, 128, row_blocks=4, column_blocks=4, rank=4), 4 * (4 * 64 + 4 * 128)),
        # rho = S / H = 4 for each of 4 x 4 blocks: rho (H M + G N)
        (Monarch(64, 128, left_blocks=4, right_blocks=4, left_width=16), 4 * (4 * 64 + 4 * 128)),
    ],
)
def test_sizes_by_hand(structure: StructuredClass, num_params: int) -> None:
    assert structure.num_params == num_params


def test_members_project_to_themselves(structure: StructuredClass) -> None:
    member = structure.dense(any_member(structure))
    torch.testing.assert_close(structure.dense(structure.project(member)), member, rtol=1e-7, atol=1e-7)


def test_no_optimiser_beats_the_projection(structure: StructuredClass) -> None:
    weight = draw(structure.rows, structure.columns)
    best = distance(structure, weight, structure.project(weight))
    found = min(descend(structure, weight, seed) for seed in range(4))
    assert found >= best - 1e-9
    assert found == pytest.approx(best, abs=1e-4)


def descend(structure: StructuredClass, weight: Tensor, seed: int) -> float:
    factors = [factor.requires_grad_() for factor in any_member(structure, seed=10 * seed)]
    optimiser = torch.optim.LBFGS(factors, max_iter=300, tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = (weight - structure.dense(tuple(factors))).square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return closure().item()


def test_errors_are_the_singular_values_left_out() -> None:
    weight = draw(6, 9)
    tail = torch.linalg.svdvals(weight)[2:].square().sum().item()
    low_rank = LowRank(6, 9, rank=2)
    assert distance(low_rank, weight, low_rank.project(weight)) == pytest.approx(tail, rel=1e-12)
    blocks = BlockLowRank(6, 9, row_blocks=2, column_blocks=3, rank=1)
    tail = sum(
        torch.linalg.svdvals(weight[i : i + 3, j : j + 3])[1:].square().sum().item() for i in (0, 3) for j in (0, 3, 6)
    )
    assert distance(blocks, weight, blocks.project(weight)) == pytest.approx(tail, rel=1e-12)


def test_kronecker_of_all_terms_is_exact_and_one_term_is_by_hand() -> None:
    full = Kronecker(4, 6, terms=4, left_rows=2, left_columns=2)
    weight = draw(4, 6)
    torch.testing.assert_close(full.dense(full.project(weight)), weight, rtol=1e-12, atol=1e-12)
    left, right = draw(2, 3), draw(4, 2, seed=1)
    product = torch.kron(left, right)
    one = Kronecker(8, 6, terms=1, left_rows=2, left_columns=3)
    torch.testing.assert_close(one.dense((left[None], right[None])), product)
    assert distance(one, product, one.project(product)) < 1e-24


def test_a_monarch_is_two_block_diagonals_with_a_shuffle() -> None:
    structure = Monarch(6, 4, left_blocks=3, right_blocks=2, left_width=2)
    left, right = any_member(structure)
    # 3 groups of 2, read across: inner features 0 2 4 of the first member of each group, then 1 3 5
    shuffle = [0, 2, 4, 1, 3, 5]
    expected = torch.block_diag(*left)[:, shuffle] @ torch.block_diag(*right)
    torch.testing.assert_close(structure.dense((left, right)), expected)


def test_a_monarch_with_one_inner_feature_more_in_some_blocks() -> None:
    # 2 x 2 blocks share inner features 0..5: the right block 0 takes 0 3 1, so two of left block 0 and one of block 1
    structure = Monarch(6, 6, left_blocks=2, right_blocks=2, left_width=3)
    weight = draw(6, 6)
    ranks = torch.tensor([[2, 1], [1, 2]])
    expected = sum(
        torch.linalg.svdvals(weight[3 * i : 3 * i + 3, 3 * j : 3 * j + 3])[ranks[i, j] :].square().sum().item()
        for i in range(2)
        for j in range(2)
    )
    assert distance(structure, weight, structure.project(weight)) == pytest.approx(expected, rel=1e-12)


def test_a_projected_zero_matrix_is_zero(structure: StructuredClass) -> None:
    zero = torch.zeros(structure.rows, structure.columns, dtype=torch.float64)
    assert torch.equal(structure.dense(structure.project(zero)), zero)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 999)
)
def test_projections_never_lengthen_and_stay_put(a: int, b: int, c: int, d: int, terms: int, seed: int) -> None:
    structure = Kronecker(a * b, c * d, terms=min(terms, a * c, b * d), left_rows=a, left_columns=c)
    weight = draw(structure.rows, structure.columns, seed=seed)
    member = structure.dense(structure.project(weight))
    # The error of a projection is orthogonal to it.
    assert (member * (weight - member)).sum().item() == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(structure.dense(structure.project(member)), member, rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([1, 2, 3]), st.sampled_from([1, 2, 3]), st.integers(1, 6), st.booleans(), st.integers(0, 999))
def test_any_monarch_multiplies_as_its_matrix(g: int, h: int, width: int, is_mirrored: bool, seed: int) -> None:
    structure = Monarch(2 * g, 3 * h, g, h, width * h, is_mirrored)
    factors = structure.project(draw(2 * g, 3 * h, seed=seed))
    x = draw(2, structure.rows, seed=seed + 1)
    torch.testing.assert_close(structure.apply(factors, x), x @ structure.dense(factors), rtol=1e-10, atol=1e-10)


def test_weighted_fits_improve_on_the_projection(structure: StructuredClass) -> None:
    weight = draw(structure.rows, structure.columns)
    rows, columns = draw_metric(structure.rows, 1), draw_metric(structure.columns, 2)
    errors, factors = [], structure.project(weight)
    for _ in range(5):
        errors.append(weighted_distance(weight, structure.dense(factors), rows, columns).item())
        factors = structure.fit(weight, rows, columns, factors)
    assert all(later <= earlier + 1e-9 for earlier, later in zip(errors, errors[1:], strict=False))
    assert isinstance(structure, Exact) or errors[-1] < 0.98 * errors[0]


def test_the_weighted_fit_of_low_rank_is_the_best_one() -> None:
    structure, weight = LowRank(6, 5, rank=2), draw(6, 5)
    rows, columns = draw_metric(6, 1), draw_metric(5, 2)
    best = weighted_distance(weight, structure.dense(structure.fit(weight, rows, columns, ())), rows, columns).item()
    factors = any_member(structure)
    for _ in range(200):
        factors = super(LowRank, structure).fit(weight, rows, columns, factors)
    reached = weighted_distance(weight, structure.dense(factors), rows, columns).item()
    assert best == pytest.approx(reached, rel=1e-6)


def test_a_metric_without_an_inverse_is_no_failure(structure: StructuredClass) -> None:
    weight = draw(structure.rows, structure.columns)
    rows, columns = draw_metric(structure.rows, 1), draw_metric(structure.columns, 2)
    rows[0], rows[:, 0], columns[0], columns[:, 0] = 0, 0, 0, 0
    start = structure.project(weight)
    fitted = structure.dense(structure.fit(weight, rows, columns, start))
    before = weighted_distance(weight, structure.dense(start), rows, columns)
    assert weighted_distance(weight, fitted, rows, columns) <= before + 1e-9
    assert fitted.isfinite().all()


def test_impossible_classes_are_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="rank 7 of 6 x 9: give 1 to 6"):
        LowRank(6, 9, rank=7)
    with pytest.raises(UsageError, match="a left factor of 4 x 1 does not divide 6 x 9. Give divisors"):
        Kronecker(6, 9, terms=1, left_rows=4, left_columns=1)
    with pytest.raises(UsageError, match="5 Kronecker terms with a left factor of 2 x 2: give 1 to 4"):
        Kronecker(4, 6, terms=5, left_rows=2, left_columns=2)
    with pytest.raises(UsageError, match="2 x 2 blocks of 5 x 4 are not equal"):
        BlockLowRank(5, 4, row_blocks=2, column_blocks=2, rank=1)
    with pytest.raises(UsageError, match="rank 3 in 2 x 2 blocks of 6 x 4: give 1 to 2"):
        BlockLowRank(6, 4, row_blocks=2, column_blocks=2, rank=3)
    with pytest.raises(UsageError, match="6 inner features do not split into 4 blocks"):
        Monarch(6, 8, left_blocks=2, right_blocks=4, left_width=3)
    with pytest.raises(UsageError, match="a class of 6 x 9 matrices cannot take one of 9 x 6"):
        LowRank(6, 9, rank=1).project(draw(9, 6))
