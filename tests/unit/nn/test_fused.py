import math

import pytest
import torch

from harness.nn.fused import RMS_EPS, relu_squared, rms_normalise, scaled_sum, soft_cap


def test_rms_by_hand() -> None:
    # mean(3^2, 4^2) = 12.5
    expected = torch.tensor([3.0, 4.0]) / math.sqrt(12.5)
    torch.testing.assert_close(rms_normalise(torch.tensor([3.0, 4.0])), expected)


def test_rms_of_a_small_bfloat16_row_is_not_drowned_by_epsilon() -> None:
    small = torch.full((4,), 0.005, dtype=torch.bfloat16)
    torch.testing.assert_close(rms_normalise(small), torch.ones(4, dtype=torch.bfloat16))


@pytest.mark.parametrize("shape", [(1,), (2, 3), (2, 1, 5)])
@pytest.mark.parametrize("function", [rms_normalise, relu_squared])
def test_derivatives_are_those_of_finite_differences(function: object, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (x,))


def test_rms_derivative_counts_epsilon() -> None:
    # At x = 0: d/dx x (x^2 + eps)^(-1/2) = eps^(-1/2).
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    rms_normalise(x).backward()
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(RMS_EPS**-0.5)


def test_relu_squared_by_hand() -> None:
    assert relu_squared(torch.tensor([-2.0, 0.0, 3.0])).tolist() == [0.0, 0.0, 9.0]


def test_soft_cap_is_a_scaled_tanh() -> None:
    z = torch.linspace(-200, 200, 101, dtype=torch.float64)
    torch.testing.assert_close(soft_cap(z, 30.0), 30 * torch.tanh(z / 30))
    assert soft_cap(z, 30.0).abs().max() <= 30


def test_scaled_sum_by_hand() -> None:
    x, scale, y = torch.ones(1, 2, 2), torch.tensor([2.0, -1.0]), torch.tensor([[[3.0, 4.0], [5.0, 6.0]]])
    assert scaled_sum(x, scale, y).tolist() == [[[7.0, -3.0], [11.0, -5.0]]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_derivatives_of_a_scaled_sum_are_the_bits_of_autograd(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    leaves = [torch.randn(shape).to(dtype).requires_grad_() for shape in ((3, 50, 7), (7,), (3, 50, 7))]
    gradient = torch.randn(3, 50, 7).to(dtype)
    ours = torch.autograd.grad(scaled_sum(*leaves), leaves, gradient)
    assert all(map(torch.equal, ours, torch.autograd.grad(torch.addcmul(*leaves), leaves, gradient)))
