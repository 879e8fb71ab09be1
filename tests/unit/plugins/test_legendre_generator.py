from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.legendre import generator as module
from methods.legendre.generator import Basis, LegendreGenerator, basis_values, group_depths


def make_generator(num_layers: int = 5, degree: int = 3, **options: object) -> LegendreGenerator:
    torch.manual_seed(0)
    generator = LegendreGenerator(num_layers, degree, 4, 6, **options).double()
    for parameter in generator.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    return generator


def random_gradients(generator: LegendreGenerator) -> list[Tensor]:
    return [torch.randn(6, 4, dtype=torch.float64) for _ in range(generator.num_weights)]


def gradients_by_autograd(generator: LegendreGenerator, gradients: Sequence[Tensor]) -> dict[str, Tensor]:
    weights = [generator.generate(index) for index in range(generator.num_weights)]
    parameters = dict(generator.named_parameters())
    return dict(zip(parameters, torch.autograd.grad(weights, list(parameters.values()), gradients), strict=True))


def test_legendre_values_follow_bonnet() -> None:
    # (k+1) P_{k+1} = (2k+1) t P_k - k P_{k-1}
    depths = group_depths(11)
    values = basis_values("legendre", depths, 9)
    assert (values[:, 0] == 1).all()
    np.testing.assert_array_equal(values[:, 1], depths)
    for k in range(1, 9):
        next_order = ((2 * k + 1) * depths * values[:, k] - k * values[:, k - 1]) / (k + 1)
        np.testing.assert_allclose(values[:, k + 1], next_order, atol=1e-14)


def test_published_basis_values() -> None:
    second_of_six = basis_values("legendre", group_depths(6), 5)[1]
    np.testing.assert_allclose(second_of_six, [1, -0.6, 0.04, 0.36, -0.408, 0.15264], atol=1e-12)
    np.testing.assert_allclose(basis_values("monomial", group_depths(6), 3)[1], [1, -0.6, 0.36, -0.216])


@pytest.mark.parametrize("basis", ["legendre", "monomial"])
def test_a_basis_of_degree_zero_is_one(basis: Basis) -> None:
    assert basis_values(basis, group_depths(3), 0).tolist() == [[1.0], [1.0], [1.0]]


def test_depths_run_from_end_to_end_and_a_single_layer_is_in_the_middle() -> None:
    assert group_depths(5).tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert group_depths(1).tolist() == [0.0]


def test_weight_by_hand() -> None:
    # Layer 2 of 5 is at t = -0.5: P = 1, -0.5, (3/4 - 1)/2 = -0.125; its scale is 2.
    generator = LegendreGenerator(5, 2, 1, 1)
    generator.coefficients.data.copy_(torch.tensor([1.0, 10.0, 100.0]).view(3, 1, 1))
    generator.layer_scales.data[1] = 2.0
    assert generator.weight(1).item() == pytest.approx(2 * (1 - 5 - 12.5))


def test_degree_zero_is_one_matrix_for_all_layers() -> None:
    generator = LegendreGenerator(4, 0, 3, 2)
    for weight in generator.begin_step():
        torch.testing.assert_close(weight, generator.coefficients[0], rtol=0, atol=0)


def test_initial_deviation_halves_with_the_order_and_follows_the_output_features() -> None:
    torch.manual_seed(0)
    deviations = LegendreGenerator(3, 2, 300, 64).coefficients.std((1, 2))
    torch.testing.assert_close(deviations, torch.tensor([1 / 8, 1 / 16, 1 / 32]), rtol=0.03, atol=0)
    assert LegendreGenerator(3, 2, 300, 64, zero=True).coefficients.abs().max() == 0


OPTIONS = [{}, {"lora_rank": 2}, {"wrap": True}, {"lora_rank": 1, "wrap": True}, {"basis": "monomial"}]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("num_layers", "degree"), [(1, 2), (5, 3), (4, 0)])
@pytest.mark.parametrize("columns", [7, 1000])
def test_one_vector_jacobian_product_is_the_gradient(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, object], num_layers: int, degree: int, columns: int
) -> None:
    monkeypatch.setattr(module, "_COLUMNS", columns)
    generator = make_generator(num_layers, degree, **options)
    gradients = random_gradients(generator)
    expected = gradients_by_autograd(generator, gradients)
    generator.begin_step()
    generator.finish_step(gradients)
    for name, parameter in generator.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("options", OPTIONS)
def test_leaves_of_a_step_are_the_weights_made_singly(options: dict[str, object]) -> None:
    generator = make_generator(**options)
    for index, leaf in enumerate(generator.begin_step()):
        torch.testing.assert_close(leaf, generator.generate(index))


def test_every_step_sees_the_parameters_of_its_time() -> None:
    generator = make_generator()
    gradients = random_gradients(generator)
    for _ in range(2):
        generator.coefficients.data.mul_(-3)
        expected = gradients_by_autograd(generator, gradients)
        leaves = generator.begin_step()
        torch.testing.assert_close(leaves[4], generator.generate(4))
        generator.finish_step(gradients)
        torch.testing.assert_close(generator.layer_scales.grad, expected["layer_scales"])


def test_wrapped_weights_lie_within_a_half() -> None:
    assert all(leaf.abs().max() <= 0.5 for leaf in make_generator(wrap=True).begin_step())


def test_weights_stay_exact_under_autocast() -> None:
    generator = LegendreGenerator(5, 3, 4, 6)
    exact = generator.weight(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(generator.weight(2), exact, rtol=0, atol=0)


def test_evaluation_lets_the_buffers_of_training_go() -> None:
    generator = make_generator()
    generator.begin_step()
    generator.finish_step(random_gradients(generator))
    assert generator._weights is not None
    generator.eval()
    assert generator._weights is None
    assert generator._gradient is None
