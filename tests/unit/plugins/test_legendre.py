import copy
from collections.abc import Callable

import pytest
import torch

from harness.errors import ArtifactError, UsageError
from harness.method import ExportSettings, Method
from methods.legendre.method import Legendre

MakeMethod = Callable[..., Method]
EXACT = ExportSettings(matrices="fp32", embeddings="fp32", scalars="fp32")


@pytest.mark.parametrize(
    ("preset", "parts"),
    [
        (
            "published",
            {
                "embedding": 131_072 + 65_536,
                "sandwich": 2 * 2_361_352,
                "coefficients": 2 * 9_437_184,
                "layer_scales": 2 * 66,
                "layer_scalars": 45_232,
            },
        ),
        (
            "published-one-group",
            {
                "embedding": 196_608,
                "sandwich": 4_722_704,
                "coefficients": 9_437_184,
                "layer_scales": 132,
                "layer_scalars": 45_232,
            },
        ),
        (
            "published-local",
            {
                "embedding": 81_920,
                "sandwich": 2 * 459_780,
                "coefficients": 1_966_080,
                "layer_scales": 36,
                "layer_scalars": 6_168,
            },
        ),
    ],
)
def test_published_parameter_counts(make_method: MakeMethod, preset: str, parts: dict[str, int]) -> None:
    method = make_method(Legendre, preset)
    with torch.device("meta"):
        network = method.build()
    totals = {"published": 23_839_044, "published-one-group": 14_401_860, "published-local": 2_973_764}
    counts = method.count_params(network)
    assert counts.parts == parts
    assert sum(parts.values()) == totals[preset] == sum(p.numel() for p in network.parameters())
    if preset == "published":
        # Embedding, and 24 layers of 2,361,352.
        assert counts.effective == counts.active == 196_608 + 24 * 2_361_352


@pytest.mark.parametrize("preset", ["tiny", "small", "published"])
def test_every_parameter_is_in_one_group(make_method: MakeMethod, preset: str) -> None:
    method = make_method(Legendre, preset, lora_rank=2)
    with torch.device("meta"):
        network = method.build()
    names = [name for group in method.param_groups(network) for name in group.names]
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())


def test_orders_learn_at_the_published_rates(make_method: MakeMethod) -> None:
    method = make_method(Legendre, "published")
    with torch.device("meta"):
        groups = method.param_groups(method.build())
    rates = {
        len(group.lr_factor): [0.04 * factor for factor in group.lr_factor]
        for group in groups
        if isinstance(group.lr_factor, tuple)
    }
    attention = [0.025, 0.0275, 0.03025, 0.033275, 0.0366025, 0.04026275]
    assert rates[6] == pytest.approx(attention)
    assert rates[3] == pytest.approx(attention[:3])
    (own,) = (group for group in groups if group.role == "matrix" and group.lr_factor == 1.0)
    assert len(own.names) == 12


@pytest.mark.parametrize(
    ("num_layers", "groups", "sandwich", "sizes"),
    [(24, 2, True, (11, 11)), (8, 4, True, (2, 2, 1, 1)), (5, 3, False, (2, 2, 1)), (3, 1, True, (1,))],
)
def test_group_sizes(
    make_method: MakeMethod, num_layers: int, groups: int, sandwich: bool, sizes: tuple[int, ...]
) -> None:
    method = make_method(Legendre, "tiny", num_layers=num_layers, groups=groups, sandwich=sandwich)
    assert method.settings.group_sizes == sizes


def test_more_groups_than_layers_are_refused(make_method: MakeMethod) -> None:
    with pytest.raises(UsageError, match="groups: 4 groups of 3 generated layers. Set num_layers to at least 6"):
        make_method(Legendre, "tiny", groups=4)
    with pytest.raises(UsageError, match="groups: 1 groups of 0 generated layers"):
        make_method(Legendre, "tiny", groups=1, num_layers=2)


def test_depth_restarts_in_every_group(make_method: MakeMethod) -> None:
    network = make_method(Legendre, "tiny", num_layers=6).build()
    x = torch.randn(3, 64)
    for group, first_block in enumerate((1, 3)):
        orders = network.generators[group]["query"].coefficients
        signs = torch.tensor([1.0, -1.0, 1.0])  # P_k(-1) = (-1)^k
        expected = x @ torch.einsum("k,koi->oi", signs, orders).T
        torch.testing.assert_close(network.blocks[first_block].attention.query(x), expected)


def test_degrees_of_single_roles(make_method: MakeMethod) -> None:
    network = make_method(Legendre, "tiny", degrees={"value": 4, "down": 0}).build()
    orders = {role: len(generator.coefficients) for role, generator in network.generators[0].items()}
    assert orders == {"query": 3, "key": 3, "value": 5, "output": 3, "up": 2, "down": 1}


EDGES = [
    {},
    {"num_layers": 3, "groups": 1},
    {"attention_degree": 0, "mlp_degree": 0},
    {"sandwich": False},
    {"lora_rank": 2, "activation": "swiglu", "biases": ["up", "down"]},
    {"wrap": True, "basis": "monomial"},
]


@pytest.mark.parametrize("change", EDGES)
def test_a_step_of_micro_batches_is_the_step_of_the_batch(make_method: MakeMethod, change: dict[str, object]) -> None:
    torch.manual_seed(0)
    network = make_method(Legendre, "tiny", vocab_size=50, **change).build()
    for parameter in network.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    tokens = torch.randint(50, (4, 17))
    x, y = tokens[:, :-1], tokens[:, 1:]
    network.loss(x, y).backward()
    expected = {name: parameter.grad for name, parameter in network.named_parameters()}
    network.zero_grad()
    leaves = network.begin_step()
    parts = [torch.autograd.grad(network.loss(x[i : i + 2], y[i : i + 2]) / 2, leaves) for i in (0, 2)]
    network.finish_step([a + b for a, b in zip(*parts, strict=True)])
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected[name], rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("change", EDGES)
def test_an_exported_network_comes_back_exactly(make_method: MakeMethod, change: dict[str, object]) -> None:
    method = make_method(Legendre, "tiny", vocab_size=50, **change)
    torch.manual_seed(0)
    network = method.build()
    for parameter in network.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    plan = method.export(network, EXACT)
    restored = method.evaluate({tensor.name: tensor.value.copy() for tensor in plan})
    tokens = torch.randint(50, (2, 64))
    assert torch.equal(restored(tokens), network.eval()(tokens))


def test_logits_in_a_step_are_those_outside(make_method: MakeMethod) -> None:
    network = make_method(Legendre, "tiny").build()
    for parameter in network.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    tokens = torch.randint(1024, (2, 64))
    with torch.no_grad():
        outside = network(tokens)
    network.begin_step()
    torch.testing.assert_close(network(tokens), outside, rtol=1e-5, atol=1e-5)


def test_orders_are_stored_apart_and_may_have_schemes_of_their_own(make_method: MakeMethod) -> None:
    method = make_method(Legendre, "tiny", order_schemes=["legendre-int8", "legendre-int8"])
    export = ExportSettings(matrices="legendre-int7")
    plan = {tensor.name: tensor for tensor in method.export(method.build(), export)}
    stem = "generators.0.query.coefficients"
    schemes = [plan[f"{stem}.{k}"].scheme for k in range(3)]
    assert schemes == ["legendre-int8", "legendre-int8", "legendre-int7"]
    assert plan[f"{stem}.2"].value.shape == (64, 64)
    assert plan[f"{stem}.2"].part == "coefficients"
    assert plan["blocks.0.mlp.up.weight"].scheme == "legendre-int7"


def test_a_missing_order_is_refused(make_method: MakeMethod) -> None:
    method = make_method(Legendre, "tiny")
    plan = {tensor.name: tensor.value.copy() for tensor in method.export(method.build(), EXACT)}
    del plan["generators.1.up.coefficients.1"]
    with pytest.raises(ArtifactError, match=r"disagree on the tensors generators\.1\.up\.coefficients\.1"):
        method.evaluate(plan)


def test_operations_of_generation_are_counted_once_a_step(make_method: MakeMethod) -> None:
    method = make_method(Legendre, "tiny")
    generation = method.flops_per_step(512) - (method.flops_per_step(1024) - method.flops_per_step(512))
    # 3 layers; orders 3 and 2; attention 2 * 64*64 + 2 * 64*32 and MLP 2 * 64*128 numbers a layer;
    # a multiply-add is two operations, and the backward pass costs twice the forward.
    assert generation == 3 * 2 * 3 * (3 * 12_288 + 2 * 16_384)


def test_a_copy_generates_from_its_own_coefficients(make_method: MakeMethod) -> None:
    network = make_method(Legendre, "tiny").build()
    twin = copy.deepcopy(network)
    twin.generators[0]["query"].coefficients.data.zero_()
    x = torch.randn(2, 64)
    assert twin.blocks[1].attention.query(x).abs().max() == 0
    assert network.blocks[1].attention.query(x).abs().max() > 0


def test_a_network_that_was_moved_makes_its_weights_where_it_is(make_method: MakeMethod) -> None:
    network = make_method(Legendre, "tiny").build()
    before = [weight.clone() for weight in network.begin_step()]
    after = network.double().begin_step()
    assert {weight.dtype for weight in after} == {torch.float64}
    for first, second in zip(before, after, strict=True):
        torch.testing.assert_close(second.float(), first)
