from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness.training import muon as muon_module
from harness.training.muon import Muon, orthogonalise, orthogonalise_all

SHAPES = [(1, 1), (1, 5), (7, 3), (3, 7), (16, 16), (24, 6)]


def make_parameters(shapes: list[tuple[int, ...]], seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def set_gradients(parameters: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def muon_numpy(
    weight: np.ndarray,
    gradients: list[np.ndarray],
    momenta: list[float],
    lr: float,
    decay: float,
    nesterov: bool = True,
) -> np.ndarray:
    """The equations on the published page, one float64 matrix at a time."""
    buffer = np.zeros_like(weight)
    for gradient, momentum in zip(gradients, momenta, strict=True):
        buffer = momentum * buffer + gradient
        update = gradient + momentum * buffer if nesterov else buffer
        X = update / (np.sqrt(np.sum(update**2)) + 1e-7)
        if weight.shape[0] > weight.shape[1]:
            X = X.T
        for _ in range(5):
            A = np.einsum("ik,jk->ij", X, X)
            X = 3.4445 * X + (-4.7750 * A + 2.0315 * np.einsum("ij,jk->ik", A, A)) @ X
        if weight.shape[0] > weight.shape[1]:
            X = X.T
        weight = weight * (1 - lr * decay) - lr * np.sqrt(max(1, weight.shape[0] / weight.shape[1])) * X
    return weight


@pytest.mark.parametrize("nesterov", [True, False])
def test_matches_a_float64_reference_under_a_moving_momentum_and_decay(nesterov: bool) -> None:
    parameters = make_parameters(SHAPES)
    before = [parameter.detach().double().numpy().copy() for parameter in parameters]
    optimiser = Muon(parameters, lr=0.03, weight_decay=0.5, nesterov=nesterov, dtype="float32")
    momenta, gradients = [0.85, 0.9, 0.3, 0.95], []
    for step, momentum in enumerate(momenta):
        set_gradients(parameters, seed=step)
        gradients.append([parameter.grad.double().numpy() for parameter in parameters])
        optimiser.param_groups[0]["momentum"] = momentum
        optimiser.step()
    for index, parameter in enumerate(parameters):
        expected = muon_numpy(before[index], [g[index] for g in gradients], momenta, 0.03, 0.5, nesterov)
        assert np.abs(parameter.detach().numpy() - expected).max() < 2e-6


def test_matches_the_published_numbers(shared_dir: Path) -> None:
    with np.load(shared_dir / "fixtures" / "muon.npz") as numbers:
        parameters = [nn.Parameter(torch.from_numpy(numbers[f"init/{i}"])) for i in range(3)]
        optimiser = Muon(parameters, lr=0.02, momentum=0.95)
        for step in range(3):
            for i, parameter in enumerate(parameters):
                parameter.grad = torch.from_numpy(numbers[f"grads/{step}/{i}"])
            optimiser.step()
        for i, parameter in enumerate(parameters):
            assert np.abs(parameter.detach().numpy() - numbers[f"final/{i}"]).max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalise_brings_singular_values_near_one_and_keeps_their_vectors(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    update = torch.randn(5, 12, 8, generator=generator)
    result = orthogonalise(update, dtype).float()
    assert result.shape == update.shape
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.5 and values.max() < 1.3
    U, _, Vh = torch.linalg.svd(update, full_matrices=False)
    rotated = U.mT @ result @ Vh.mT
    off_diagonal = rotated - torch.diag_embed(torch.diagonal(rotated, dim1=-2, dim2=-1))
    assert off_diagonal.abs().max() < (1e-5 if dtype == torch.float32 else 0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_bank_of_matrices_is_that_many_matrices_with_their_own_rates(dtype: str) -> None:
    factors = (1.0, 1.1, 0.25)
    (bank,) = make_parameters([(3, 10, 4)])
    singles = [nn.Parameter(matrix.clone()) for matrix in bank.detach()]
    whole = Muon([{"params": [bank], "lr_factors": factors}], lr=0.02, weight_decay=0.1, dtype=dtype)
    groups = [{"params": [single], "lr": 0.02 * factor} for single, factor in zip(singles, factors, strict=True)]
    apart = Muon(groups, lr=0.02, weight_decay=0.1, dtype=dtype)
    for step in range(3):
        set_gradients([bank], seed=step)
        for single, gradient in zip(singles, bank.grad, strict=True):
            single.grad = gradient.clone()
        whole.step()
        apart.step()
    torch.testing.assert_close(bank.detach(), torch.stack([s.detach() for s in singles]), rtol=0, atol=1e-6)


def test_more_leading_dimensions_are_more_matrices() -> None:
    (bank,) = make_parameters([(2, 3, 6, 5)])
    flat = nn.Parameter(bank.detach().reshape(6, 6, 5).clone())
    set_gradients([bank], seed=1)
    flat.grad = bank.grad.reshape(6, 6, 5).clone()
    Muon([bank], lr=0.1).step()
    Muon([flat], lr=0.1).step()
    assert torch.equal(bank.detach().reshape(6, 6, 5), flat.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batched_calls_give_what_single_calls_give(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(24, 16), (16, 24), (24, 16), (2, 24, 16), (5, 5)]
    updates: list[Tensor] = [parameter.detach() for parameter in make_parameters(shapes)]
    batched = orthogonalise_all(updates, dtype)
    monkeypatch.setattr(muon_module, "_BATCHED_NUMEL", 0)
    single = orthogonalise_all(updates, dtype)
    for update, one, other in zip(updates, batched, single, strict=True):
        assert one.shape == update.shape
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_a_restored_state_goes_on_bit_for_bit() -> None:
    def run(parameters: list[nn.Parameter], optimiser: Muon, steps: range) -> None:
        for step in steps:
            set_gradients(parameters, seed=step)
            optimiser.param_groups[0]["momentum"] = 0.8 + 0.01 * step
            optimiser.step()

    straight = make_parameters(SHAPES)
    optimiser = Muon(straight, lr=0.02)
    run(straight, optimiser, range(3))
    file = io.BytesIO()
    torch.save({"weights": [p.detach() for p in straight], "optimiser": optimiser.state_dict()}, file)
    run(straight, optimiser, range(3, 6))

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = [nn.Parameter(weight) for weight in saved["weights"]]
    other = Muon(resumed, lr=0.5)
    other.load_state_dict(saved["optimiser"])
    run(resumed, other, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


def test_a_parameter_without_gradient_stays() -> None:
    parameters = make_parameters([(3, 3), (3, 3)])
    before = parameters[1].detach().clone()
    set_gradients(parameters[:1], seed=0)
    Muon(parameters, lr=0.1, weight_decay=0.5).step()
    assert torch.equal(parameters[1].detach(), before)


def test_a_zero_gradient_moves_nothing() -> None:
    (parameter,) = make_parameters([(4, 3)])
    before = parameter.detach().clone()
    parameter.grad = torch.zeros_like(parameter)
    Muon([parameter], lr=0.1).step()
    assert torch.equal(parameter.detach(), before)
