from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from harness.nn.generated import GeneratedLinear, WeightGenerator
from harness.nn.network import Network


class Multiples(WeightGenerator):
    """Weights seed, 2 seed, ...: small enough to check by hand."""

    def __init__(self, num_weights: int) -> None:
        super().__init__(num_weights)
        self.seed = nn.Parameter(torch.tensor([[2.0, -1.0]]))

    def generate(self, index: int) -> Tensor:
        return (index + 1) * self.seed

    def generate_all(self) -> Sequence[Tensor]:
        return [self.generate(index) for index in range(self.num_weights)]

    def pull_back(self, gradients: Sequence[Tensor]) -> None:
        self.seed.grad = sum((index + 1) * gradient for index, gradient in enumerate(gradients))


class TwoMaps(Network):
    def __init__(self) -> None:
        super().__init__()
        generator = Multiples(2)
        self.first = GeneratedLinear(lambda: generator.weight(0))
        self.second = GeneratedLinear(lambda: generator.weight(1), bias_features=1)
        self.generator = generator

    def loss(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        return (self.first(tokens_BT) * self.second(tokens_BT)).sum()


X = torch.tensor([[1.0, 3.0]])


def test_leaves_are_the_weights_then_the_parameters_of_their_own() -> None:
    network = TwoMaps()
    leaves = network.begin_step()
    assert [leaf.tolist() for leaf in leaves] == [[[2.0, -1.0]], [[4.0, -2.0]], [0.0]]
    assert all(leaf.is_leaf and leaf.requires_grad for leaf in leaves)


def test_summed_micro_batches_pull_back_to_the_gradient_of_the_whole() -> None:
    network = TwoMaps()
    (network.loss(X, X) + network.loss(2 * X, X)).backward()
    expected = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    leaves = network.begin_step()
    parts = [torch.autograd.grad(network.loss(x, X), leaves) for x in (X, 2 * X)]
    network.finish_step([a + b for a, b in zip(*parts, strict=True)])
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_weights_are_made_once_a_step_and_anew_outside() -> None:
    network = TwoMaps()
    leaves = network.begin_step()
    assert network.generator.weight(1) is leaves[1]
    network.finish_step([torch.zeros_like(leaf) for leaf in leaves])
    network.generator.seed.data.mul_(3)
    assert network.generator.weight(0).tolist() == [[6.0, -3.0]]


def test_a_wrong_number_of_gradients_is_a_mistake_of_the_caller() -> None:
    network = TwoMaps()
    with pytest.raises(ValueError, match="zip"):
        network.finish_step([torch.zeros_like(leaf) for leaf in network.begin_step()[:2]])
