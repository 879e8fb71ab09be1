"""Weights that expressions generate: against other routes, their gradients, operations and initial size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from made_expressions import expressions
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import UsageError
from harness.method import Task
from harness.nn.inits import uniform_fan_in
from harness.registry import find_method
from harness.settings import resolve_settings
from methods.generator_search.counting import Shape, multiply_adds
from methods.generator_search.generator import ExpressionGenerator
from methods.generator_search.grammar import Expression
from methods.generator_search.parsing import parse

LAYERS, ROWS, COLUMNS = 3, 12, 8
# Two numbers of `random(3)`, which no version of numpy may change.
FIRST_OF_SEED_3 = [1.211962, 0.212277]


def make(
    expression: Expression | str, rows: int = ROWS, columns: int = COLUMNS, *, std: float = 1.0, zero: bool = False
) -> ExpressionGenerator:
    torch.manual_seed(0)
    tree = parse(expression) if isinstance(expression, str) else expression
    return ExpressionGenerator(tree, LAYERS, columns, rows, role="query", std=std, zero=zero)


def weights_of(generator: ExpressionGenerator) -> list[Tensor]:
    return [generator.generate(layer) for layer in range(LAYERS)]


def numbers(generator: ExpressionGenerator) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in generator.named_parameters()}


@settings(max_examples=30)
@given(expressions())
def test_a_step_gives_the_gradients_of_weights_made_one_by_one(expression: Expression) -> None:
    generator = make(expression).double()
    apart = weights_of(generator)
    leaves = generator.begin_step()
    assert [tuple(weight.shape) for weight in leaves] == [(ROWS, COLUMNS)] * LAYERS
    for together, alone in zip(leaves, apart, strict=True):
        torch.testing.assert_close(together, alone.to(together.dtype), rtol=1e-12, atol=1e-12)
    gradients = [torch.randn_like(weight) for weight in leaves]
    generator.finish_step(gradients)
    parameters = list(generator.parameters())
    if parameters:
        loss = sum((weight * each).sum() for weight, each in zip(apart, gradients, strict=True))
        expected = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-9)


@settings(max_examples=30)
@given(expressions())
def test_operations_by_formula_are_those_that_torch_counts(expression: Expression) -> None:
    generator = make(expression)
    with FlopCounterMode(display=False) as counter:
        leaves = generator.begin_step()
        generator.finish_step([torch.ones_like(weight) for weight in leaves])
    shape = Shape(rows=ROWS, columns=COLUMNS, layers=LAYERS)
    assert 2 * multiply_adds(expression, shape) == counter.get_total_flops()


def test_low_rank_is_u_v() -> None:
    generator = make("share(1, low_rank(2))")
    got = numbers(generator)
    for layer, weight in enumerate(weights_of(generator)):
        expected = got["root.parts.0.left"][layer] @ got["root.parts.0.right"][layer]
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_kronecker_is_that_of_numpy() -> None:
    generator = make("kron(3, 2)")
    got = numbers(generator)
    expected = np.kron(got["root.left"][0], got["root.right"][0])
    assert expected.shape == (ROWS, COLUMNS)
    for weight in weights_of(generator):
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_legendre_over_three_depths() -> None:
    # P_0, P_1, P_2 at -1, 0 and 1: 1, t, (3 t^2 - 1) / 2
    basis = [[1, -1, 1], [1, 0, -0.5], [1, 1, 1]]
    generator = make("legendre(3, free)")
    copies = numbers(generator)["root.parts.0.matrix"]
    for weight, row in zip(weights_of(generator), basis, strict=True):
        expected = sum(factor * copy for factor, copy in zip(row, copies, strict=True))
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_cosines_over_three_depths() -> None:
    # cos(pi (l + 1/2) / 3) at l = 0, 1, 2
    generator = make("cosine(2, free)")
    first, second = numbers(generator)["root.parts.0.matrix"]
    for weight, factor in zip(weights_of(generator), (math.sqrt(3) / 2, 0, -math.sqrt(3) / 2), strict=True):
        np.testing.assert_allclose(weight.detach().numpy(), first + factor * second, rtol=1e-5, atol=1e-6)


def test_layers_of_a_group_share() -> None:
    first, second, third = weights_of(make("share(2, free)"))
    assert torch.equal(first, second)
    assert not torch.equal(second, third)


def test_vectors_and_scales_lie_along_their_axes() -> None:
    generator = make("scale_layer_rows(row + column) * layer")
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith(".scale"):
                parameter.copy_(torch.arange(LAYERS * ROWS).view(LAYERS, ROWS))
    got = numbers(generator)
    row, column = got["root.parts.0.parts.0.parts.0.vector"][0], got["root.parts.0.parts.0.parts.1.vector"][0]
    factor = got["root.parts.1.vector"][:, 0]
    for layer, weight in enumerate(weights_of(generator)):
        scale = np.arange(ROWS) + layer * ROWS
        expected = factor[layer] * scale[:, None] * (row[:, None] + column[None, :])
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_random_matrices_come_from_their_seed_alone() -> None:
    generator = make("random(3)")
    assert not list(generator.parameters())
    assert not generator.state_dict()
    torch.manual_seed(1)
    again = ExpressionGenerator(parse("random(3)"), LAYERS, COLUMNS, ROWS, role="query", std=1.0)
    assert torch.equal(generator.generate(0), again.generate(0))
    assert not torch.equal(generator.generate(0), make("random(4)").generate(0))
    other_role = ExpressionGenerator(parse("random(3)"), LAYERS, COLUMNS, ROWS, role="key", std=1.0)
    assert not torch.equal(generator.generate(0), other_role.generate(0))
    torch.testing.assert_close(generator.generate(0)[0, :2], torch.tensor(FIRST_OF_SEED_3), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "free",
        "low_rank(6)",
        "kron(8, 16)",
        "mpo(6)",
        "random(2)",
        "cos_rows(20)",
        "cos_columns(9)",
        "row * column * free",
        "matmul(7, kron(16, 7), low_rank(3))",
        "scale_layer_rows(random(1)) + free",
        "legendre(3, low_rank(9))",
        "cosine(2, kron(8, 8)) + share(1, cos_rows(30)) * scale_rows(random(9))",
    ],
)
def test_weights_start_as_large_as_dense_ones(text: str) -> None:
    rows, columns, std = 192, 128, (3 * 128) ** -0.5
    dense = torch.empty(rows, columns)
    uniform_fan_in(dense)
    draws = []
    for seed in range(8):
        torch.manual_seed(seed)
        generator = ExpressionGenerator(parse(text), LAYERS, columns, rows, role="up", std=std)
        draws.append(torch.stack(weights_of(generator)).detach().square().mean().item())
    assert np.mean(draws) == pytest.approx(std**2, rel=0.3)
    assert dense.square().mean().item() == pytest.approx(std**2, rel=0.05)


@settings(max_examples=25)
@given(expressions())
def test_what_starts_at_zero_still_learns(expression: Expression) -> None:
    generator = make(expression, zero=True)
    leaves = generator.begin_step()
    if generator.root.can_be_zero:
        assert not any(weight.any() for weight in leaves)
    generator.finish_step([torch.randn_like(weight) for weight in leaves])
    gradients = [parameter.grad for parameter in generator.parameters()]
    assert not gradients or any(gradient is not None and gradient.any() for gradient in gradients)


def test_output_starts_at_the_size_of_the_dense_network() -> None:
    """Logits of a whole network whose roles are generated, beside those of the dense one."""
    logits = {}
    for name, overrides in {
        "dense": [],
        "generator_search": ["expression=low_rank(32) + legendre(2, kron(8, 8))"],
    }.items():
        info = find_method(name)
        chosen = resolve_settings(info, "tiny", overrides)
        torch.manual_seed(0)
        network = info.load()(chosen.model, Task(vocab_size=65, context=16)).build().eval()
        queries = network.blocks[0].attention.query
        x = torch.randn(2000, 64)
        logits[name] = queries(x).std().item()
    assert logits["generator_search"] == pytest.approx(logits["dense"], rel=0.25)


def test_a_shape_that_no_chain_of_cores_has_is_refused_with_what_to_do() -> None:
    info = find_method("generator_search")
    with pytest.raises(UsageError, match="do not both split"):
        resolve_settings(info, "tiny", ["expression=matmul(7, mpo(2), free)"])


def test_expression_is_kept_in_its_own_form() -> None:
    settings_ = resolve_settings(find_method("generator_search"), "tiny", ["expression=free+  (row)*( column )"])
    assert settings_.model.model_dump()["expression"] == "free + row * column"
