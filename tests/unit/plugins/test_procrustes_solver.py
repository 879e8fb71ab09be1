"""Alternating projections: monotone, planted solutions, the published variant; rotations stored by Cayley."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.errors import UsageError
from methods.procrustes.classes import Exact, Kronecker, LowRank, Monarch, StructuredClass
from methods.procrustes.member import Member
from methods.procrustes.skips import CayleyMatrix
from methods.procrustes.solver import (
    PUBLISHED,
    SolverOptions,
    principal_basis,
    procrustes,
    solve_rotation,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_orthogonal(size: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(draw(size, size, seed=seed)).Q


def one_sided(rows: int, columns: int, terms: int = 3, parts: int = 4) -> Kronecker:
    return Kronecker(rows, columns, terms=terms, left_rows=parts, left_columns=1)


def relative_error(rotation: Tensor, members: list[Member]) -> float:
    """|Q H - S| / |H| over the compressed weights, each from its definition."""
    compressed = [member for member in members if not member.is_exact]
    error = sum((rotation @ m.weight - m.structure.dense(m.fit(rotation))).square().sum() for m in compressed)
    return (error / sum(m.weight.square().sum() for m in compressed)).sqrt().item()


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(
        [
            lambda n: one_sided(8, n),
            lambda n: LowRank(8, n, rank=3),
            lambda n: Kronecker(8, n, terms=2, left_rows=2, left_columns=2),
            lambda n: Monarch(8, n, 2, 2, 2),
        ]
    ),
    st.sampled_from(["pca", "identity"]),
    st.booleans(),
    st.integers(0, 999),
)
def test_no_step_raises_the_error(make: type, start: str, exact_pulls: bool, seed: int) -> None:
    members = [
        Member(weight=draw(8, 8, seed=seed), structure=make(8)),
        Member(weight=draw(8, 12, seed=seed + 1), structure=make(12)),
        Member(weight=draw(8, 4, seed=seed + 2), structure=Exact(8, 4)),
    ]
    options = SolverOptions(start=start, exact_pulls=exact_pulls, max_iterations=15, tolerance=0)
    found = solve_rotation(members, options)
    assert all(later <= earlier + 1e-9 for earlier, later in zip(found.errors, found.errors[1:], strict=False))
    torch.testing.assert_close(found.matrix @ found.matrix.T, torch.eye(8, dtype=torch.float64))
    if not exact_pulls:
        assert relative_error(found.matrix, members) <= found.errors[-1] + 1e-9


def test_the_recorded_errors_are_those_of_the_matrices() -> None:
    members = [Member(weight=draw(8, 12), structure=one_sided(8, 12))]
    found = solve_rotation(members, SolverOptions(start="identity", max_iterations=1, tolerance=0))
    weight = members[0].weight
    nearest = members[0].structure.dense(members[0].structure.project(weight))
    before, after = (
        (rotation @ weight - nearest).norm() / weight.norm() for rotation in (torch.eye(8).double(), found.matrix)
    )
    assert found.errors == pytest.approx((before.item(), after.item()), rel=1e-12)


def test_the_procrustes_step_is_the_best_rotation() -> None:
    target = draw(5, 5)
    best, agreement = procrustes(target)
    assert (best * target).sum().item() == pytest.approx(agreement)
    assert all((draw_orthogonal(5, seed) * target).sum() <= agreement for seed in range(50))


def test_a_planted_rotation_of_low_rank_weights_changes_nothing_and_is_exact() -> None:
    weight = draw(8, 2) @ draw(2, 12, seed=1)
    members = [Member(weight=weight, structure=LowRank(8, 12, rank=2))]
    found = solve_rotation(members)
    assert found.errors[0] == pytest.approx(0, abs=1e-7)
    assert len(found.errors) == 2


def test_the_principal_basis_keeps_the_largest_part_of_one_weight() -> None:
    weight = draw(8, 12)
    members = [Member(weight=weight, structure=one_sided(8, 12))]
    tail = torch.linalg.svdvals(weight)[6:].square().sum() / weight.square().sum()
    basis = principal_basis(members)
    # One weight alone: no rank of 6 = 8 * 3/4 rows can keep more, and the principal basis keeps it.
    assert relative_error(basis, members) == pytest.approx(tail.sqrt().item(), rel=1e-9)


def test_only_exact_weights_need_no_rotation() -> None:
    members = [Member(weight=draw(4, 3), structure=Exact(4, 3))]
    found = solve_rotation(members)
    assert torch.equal(found.matrix, torch.eye(4, dtype=torch.float64))
    assert found.errors == ()


def test_tolerance_ends_before_the_limit() -> None:
    members = [Member(weight=draw(8, 12), structure=one_sided(8, 12)) for _ in range(2)]
    long = solve_rotation(members, SolverOptions(start="identity", max_iterations=400, tolerance=0))
    short = solve_rotation(members, SolverOptions(start="identity", max_iterations=400, tolerance=1e-3))
    assert len(short.errors) < len(long.errors)
    assert short.errors == long.errors[: len(short.errors)]


@pytest.fixture(scope="module")
def reference(shared_dir: Path) -> Path:
    folder = shared_dir / "fixtures" / "procrustes"
    if not folder.is_dir():
        pytest.skip(f"no reference data of procrustes at {folder}")
    return folder


def structure_of(decomposition: str, weight: Tensor, params: dict[str, int]) -> StructuredClass:
    if decomposition == "kronecker":
        return Kronecker(*weight.shape, terms=params["r"], left_rows=params["m1"], left_columns=params["n1"])
    return Monarch(*weight.shape, left_blocks=params["kl"], right_blocks=params["kr"], left_width=params["bl2"])


def published_cases(folder: Path) -> list[tuple[dict[str, object], list[float]]]:
    numbers = json.loads((folder / "numbers.json").read_text(encoding="utf-8"))
    planted = [(case, case["als10_errs"]) for case in numbers["planted"]]
    return planted + [(case, case["errs10"]) for case in numbers["null"]]


def test_the_published_variant_has_the_published_errors(reference: Path) -> None:
    cases = published_cases(reference)
    assert len(cases) == 8
    for case, errors in cases:
        with np.load(reference / "planted" / f"{case['tag']}.npz") as stored:
            weights = [torch.from_numpy(stored[f"W{i}"].astype(np.float32)) for i in range(len(case["params"]))]
        members = [
            Member(weight=weight, structure=structure_of(case["dec"], weight, params))
            for weight, params in zip(weights, case["params"], strict=True)
        ]
        assert solve_rotation(members, PUBLISHED).errors == pytest.approx(errors, abs=1e-3), case["tag"]


def test_more_iterations_find_what_was_planted(reference: Path) -> None:
    for tag, make, error in (
        ("kronsq_n64_r2_noise0.05", lambda n: Kronecker(64, n, terms=2, left_rows=8, left_columns=8), 0.0455),
        ("monarch_n64_k4x4_rho4_noise0.05", lambda n: Monarch(64, n, 4, 4, 16), 0.0357),
    ):
        with np.load(reference / "planted" / f"{tag}.npz") as stored:
            weights = [torch.from_numpy(stored[f"W{i}"].astype(np.float32)) for i in range(3)]
        members = [Member(weight=weight, structure=make(weight.size(1))) for weight in weights]
        found = solve_rotation(members, SolverOptions(start="identity"))
        assert found.errors[-1] == pytest.approx(error, abs=2e-4), tag


@pytest.mark.parametrize("size", [1, 2, 5, 8])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_rotation_comes_back_from_its_cayley_numbers(size: int, sign: int) -> None:
    rotation = draw_orthogonal(size)
    rotation[0] *= sign
    stored = CayleyMatrix.of(rotation)
    torch.testing.assert_close(stored.dense(), rotation, rtol=0, atol=1e-12)
    assert stored.num_params == size * (size - 1) // 2 + stored.reflections.numel()


def test_eigenvalues_of_minus_one_are_reflected_away_and_counted() -> None:
    basis = draw_orthogonal(6)
    rotation = basis @ torch.diag(torch.tensor([-1.0, -1, -1, 1, 1, 1], dtype=torch.float64)) @ basis.T
    stored = CayleyMatrix.of(rotation)
    assert stored.reflections.shape == (3, 6)
    assert stored.num_params == 15 + 18
    torch.testing.assert_close(stored.dense(), rotation, rtol=0, atol=1e-12)
    torch.testing.assert_close(CayleyMatrix.of(-torch.eye(4, dtype=torch.float64)).dense(), -torch.eye(4).double())


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 9999), st.floats(0, 0.2))
def test_eigenvalues_near_minus_one_lose_no_precision(seed: int, angle: float) -> None:
    basis = draw_orthogonal(5, seed)
    turn = torch.eye(5, dtype=torch.float64)
    cosine, sine = torch.tensor(torch.pi + angle).double().cos(), torch.tensor(torch.pi + angle).double().sin()
    turn[:2, :2] = torch.stack([torch.stack([cosine, -sine]), torch.stack([sine, cosine])])
    rotation = basis @ turn @ basis.T
    torch.testing.assert_close(CayleyMatrix.of(rotation).dense(), rotation, rtol=0, atol=1e-12)
    single = CayleyMatrix.of(rotation.float())
    assert single.upper.dtype == torch.float32
    torch.testing.assert_close(single.dense(), rotation.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_of_16_bits_make_the_matrix_that_they_stand_for(dtype: torch.dtype) -> None:
    stored = CayleyMatrix.of(draw_orthogonal(6))
    upper, reflections = stored.upper.to(dtype), stored.reflections.to(dtype)
    made = CayleyMatrix(upper=upper, reflections=reflections).dense()
    wide = CayleyMatrix(upper=upper.double(), reflections=reflections.double()).dense()
    assert made.dtype == dtype
    torch.testing.assert_close(made.double(), wide, rtol=0, atol=torch.finfo(dtype).eps)


def test_what_is_not_orthogonal_is_refused() -> None:
    with pytest.raises(UsageError, match=r"a skip matrix is not orthogonal \(off by .*\). Store it dense"):
        CayleyMatrix.of(draw(4, 4))
