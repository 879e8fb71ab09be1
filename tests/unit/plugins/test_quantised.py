"""Quantised networks: training sees the numbers of the file, exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from short_trainings import make, train

from baselines.quantised.fake import QuantisedLinear, QuantisedWeight, fake_quantise
from baselines.quantised.method import Quantised
from harness.artifact.container import Artifact, PlannedTensor, write_artifact
from harness.errors import UsageError
from harness.method import ExportSettings, Method, Setup
from harness.nn.inits import normal_fan_in

MakeMethod = Callable[..., Method]
SCHEMES = [
    *(f"int{bits}-{group}{search}" for bits in (4, 6, 8) for group in ("row", "tensor") for search in ("", "-search")),
    "ternary-row",
    "ternary-tensor",
]


def through_a_file(weight: torch.Tensor, scheme: str, path: Path) -> torch.Tensor:
    planned = PlannedTensor(name="w", value=weight.detach().numpy(), scheme=scheme, part="blocks")
    write_artifact(path, meta={}, tensors=[planned], blobs={})
    return torch.from_numpy(Artifact.open(path).decode_tensor("w"))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (40, 33)])
def test_fake_quantisation_is_what_the_file_gives_back_and_quantising_again_changes_nothing(
    scheme: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    for seed, power in enumerate((1, 3, 5)):
        torch.manual_seed(seed)
        weight = torch.randn(shape) ** power * 10.0 ** (-seed)
        weight[0] *= seed % 2  # a row of zeros too
        once = fake_quantise(weight, scheme)
        assert torch.equal(once, through_a_file(weight, scheme, tmp_path / "a.bin"))
        assert torch.equal(fake_quantise(once, scheme), once)


def test_ternary_by_hand() -> None:
    # Of 3, -2, 0.5 the first two are kept: 5^2 / 2 = 12.5 is more than 3^2 / 1 and 5.5^2 / 3; their mean is 2.5.
    assert fake_quantise(torch.tensor([[3.0, -2.0, 0.5]]), "ternary-row").tolist() == [[2.5, -2.5, 0.0]]


def make_linear(scheme: str = "int4-row") -> QuantisedLinear:
    torch.manual_seed(0)
    return QuantisedLinear(6, 5, normal_fan_in, scheme, bias=True)


def test_forward_is_quantised_and_the_gradient_goes_straight_through() -> None:
    linear = make_linear()
    x = torch.randn(3, 6)
    assert torch.equal(linear(x), torch.nn.functional.linear(x, linear.weight.latent, linear.bias))
    linear.weight.is_on = True
    seen = fake_quantise(linear.weight.latent, "int4-row").requires_grad_()
    expected = torch.nn.functional.linear(x, seen, linear.bias)
    assert torch.equal(linear(x), expected)
    linear(x).square().sum().backward()
    expected.square().sum().backward()
    assert torch.equal(linear.weight.latent.grad, seen.grad)


@pytest.mark.parametrize("is_on", [False, True])
def test_a_step_makes_the_weight_once_and_carries_its_gradient_back(is_on: bool) -> None:
    weight = make_linear().weight
    weight.is_on = is_on
    made = weight.generate(0).detach()
    (leaf,) = weight.begin_step()
    assert leaf.requires_grad
    assert torch.equal(leaf, made)
    assert weight.weight(0) is leaf
    weight.finish_step([torch.full_like(leaf, 2.0)])
    assert (weight.latent.grad == 2).all()


def test_training_begins_with_the_weights_of_the_plain_network(make_method: MakeMethod) -> None:
    method = make_method(Quantised, "tiny", zero_outputs=False)
    networks = []
    for build in (method.build, method.build_for_training):
        torch.manual_seed(0)
        networks.append(build().eval())
    tokens = torch.randint(1024, (2, 8))
    assert torch.equal(networks[0](tokens), networks[1](tokens))


@pytest.mark.parametrize("qat", ["ternary-row", "int4-row"])
def test_the_file_holds_what_the_last_steps_have_seen(qat: str, tmp_path: Path) -> None:
    method, settings = make("quantised", f"qat={qat}", f"export.matrices={qat}", "qat_begin=0.5")
    networks: list[torch.nn.Module] = []
    seen: list[bool] = []
    build = method.build_for_training
    method.build_for_training = lambda: networks.append(build()) or networks[-1]

    def weights() -> list[QuantisedWeight]:
        return [module for module in networks[-1].modules() if isinstance(module, QuantisedWeight)]

    trained = train(
        tmp_path, method, settings.train, num_steps=12, after_step=lambda _: seen.append(weights()[0].is_on)
    ).eval()
    assert seen == [False] * 6 + [True] * 6
    tokens = torch.randint(256, (2, 16))
    assert torch.equal(trained(tokens), networks[-1].eval()(tokens))
    exact = ExportSettings(matrices=qat, embeddings="fp32", scalars="fp32", small_numel=0)
    write_artifact(tmp_path / "a.bin", meta={}, tensors=method.export(trained, exact), blobs={})
    decoded = method.evaluate(Artifact.open(tmp_path / "a.bin").decode_tensors())
    assert torch.equal(decoded(tokens), trained(tokens))
    up = decoded.get_parameter("blocks.0.mlp.up.weight")
    assert max(len(np.unique(np.abs(row))) for row in up.detach().numpy()) <= (2 if qat.startswith("t") else 8)


def test_storing_as_something_else_than_was_trained_is_refused(make_method: MakeMethod) -> None:
    method = make_method(Quantised, "tiny")
    setup = Setup(task=method.task, export=ExportSettings(), sizes_of=pytest.fail, say=pytest.fail)
    with pytest.raises(UsageError, match=r"trained for qat=ternary-row, to be stored as int8-row: .* Set export\."):
        method.settings.settle(setup)
    for scheme in ("ternary-row", "fp32"):
        method.settings.settle(replace(setup, export=ExportSettings(matrices=scheme)))
    with pytest.raises(UsageError, match=r"qat: int8-step is not idempotent"):
        make_method(Quantised, "tiny", qat="int8-step")


def test_presets_are_networks_of_the_dense_baseline_at_its_parameters(make_method: MakeMethod) -> None:
    for preset in ("int8", "int6", "int4", "int4-qat", "ternary"):
        method = make_method(Quantised, preset)
        with torch.device("meta"):
            assert sum(method.count_params(method.build()).parts.values()) == 1_232_272
