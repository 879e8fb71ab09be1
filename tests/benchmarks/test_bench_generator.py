"""Time of Legendre weight generation against the published form, forward and backward, on one thread.

    python tests/benchmarks/test_bench_generator.py

Published shapes: 2 groups of 11 layers, width 512, degree 5 in attention and 2 in the MLP. The published form makes
132 calls: for each layer and role it stacks the 2-D coefficients and contracts them with a row of the basis.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from methods.legendre.generator import LegendreGenerator

NUM_GROUPS, NUM_LAYERS = 2, 11
SHAPES = {  # role: degree, in features, out features
    "query": (5, 512, 512),
    "key": (5, 512, 256),
    "value": (5, 512, 256),
    "output": (5, 512, 512),
    "up": (2, 512, 1536),
    "down": (2, 1536, 512),
}


class PublishedForm:
    """One role of one group, generated as the published code does; starts from the numbers of ours."""

    def __init__(self, ours: LegendreGenerator) -> None:
        self.coefficients = [matrix.clone().requires_grad_() for matrix in ours.coefficients.detach()]
        self.layer_scales = ours.layer_scales.detach().clone().requires_grad_()
        self.basis = ours.basis

    def weight(self, layer: int) -> Tensor:
        stacked_KOI = torch.stack(self.coefficients)
        return self.layer_scales[layer] * torch.einsum("k,koi->oi", self.basis[layer], stacked_KOI)

    def clear_gradients(self) -> None:
        for parameter in (*self.coefficients, self.layer_scales):
            parameter.grad = None


def make_generators() -> list[LegendreGenerator]:
    torch.manual_seed(0)
    return [
        LegendreGenerator(NUM_LAYERS, degree, in_features, out_features)
        for _ in range(NUM_GROUPS)
        for degree, in_features, out_features in SHAPES.values()
    ]


def step_ours(generators: list[LegendreGenerator], gradients: list[list[Tensor]]) -> None:
    for generator in generators:
        generator.begin_step()
    for generator, layers in zip(generators, gradients, strict=True):
        generator.finish_step(layers)


def step_published(forms: list[PublishedForm], gradients: list[list[Tensor]]) -> None:
    for form in forms:
        form.clear_gradients()
    weights = [form.weight(layer) for form in forms for layer in range(NUM_LAYERS)]
    torch.autograd.backward(weights, [gradient for layers in gradients for gradient in layers])


@pytest.fixture(scope="module")
def case() -> tuple[list[LegendreGenerator], list[PublishedForm], list[list[Tensor]]]:
    return make_case()


def make_case() -> tuple[list[LegendreGenerator], list[PublishedForm], list[list[Tensor]]]:
    generators = make_generators()
    gradients = [[torch.randn(g.coefficients.shape[1:]) for _ in range(NUM_LAYERS)] for g in generators]
    return generators, [PublishedForm(generator) for generator in generators], gradients


def measure_ratio(repeats: int = 9) -> tuple[float, float]:
    """Return the median seconds of the published form and of ours, alternating in this process."""
    generators, forms, gradients = make_case()
    published_seconds, our_seconds = [], []
    for _ in range(repeats + 1):
        published_seconds.append(_seconds(lambda: step_published(forms, gradients)))
        our_seconds.append(_seconds(lambda: step_ours(generators, gradients)))
    return statistics.median(published_seconds[1:]), statistics.median(our_seconds[1:])


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def test_published_form(benchmark: Callable[..., None], case: tuple) -> None:
    _, forms, gradients = case
    benchmark(step_published, forms, gradients)


def test_ours(benchmark: Callable[..., None], case: tuple) -> None:
    generators, _, gradients = case
    benchmark(step_ours, generators, gradients)


def test_both_give_the_same_weights_and_gradients(case: tuple) -> None:
    generators, forms, gradients = case
    step_ours(generators, gradients)
    step_published(forms, gradients)
    for generator, form in zip(generators, forms, strict=True):
        torch.testing.assert_close(generator.weight(3), form.weight(3))
        published_KOI = torch.stack([matrix.grad for matrix in form.coefficients])
        torch.testing.assert_close(generator.coefficients.grad, published_KOI, rtol=1e-4, atol=1e-4)
        # Sums over up to 786,432 products: absolute error in float32.
        torch.testing.assert_close(generator.layer_scales.grad, form.layer_scales.grad, rtol=1e-3, atol=0.05)


if __name__ == "__main__":
    torch.set_num_threads(1)
    published, ours = measure_ratio()
    print(f"published form {published * 1e3:.0f} ms, ours {ours * 1e3:.0f} ms: {published / ours:.1f} times less")
