"""The MPO plugin: counts by hand, the published initial values, refusals, both plans, storage."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from harness.errors import UsageError
from harness.method import ExportSettings, Method
from harness.nn.factorise import Modes, contract
from harness.nn.network import Network
from methods.mpo.blocks import contract_in_blocks, flow_width, rows_of_block
from methods.mpo.costs import choose_plan, plan_work
from methods.mpo.layer import MPOLinear
from methods.mpo.method import MPO

MakeMethod = Callable[..., Method]
EXACT = ExportSettings(matrices="fp32", embeddings="fp32", scalars="fp32")
PICO_WEIGHTS = {
    "blocks.0.attention.query": ((8, 16), (8, 16)),
    "blocks.1.attention.key": ((8, 16), (8, 16)),
    "blocks.2.attention.value": ((8, 16), (8, 16)),
    "blocks.3.attention.output": ((8, 16), (8, 16)),
    "blocks.0.mlp.up": ((8, 8, 8), (4, 4, 8)),
    "blocks.3.mlp.down": ((4, 4, 8), (8, 8, 8)),
    "head": ((5, 13), (8, 16)),
}


def build_meta(method: Method) -> Network:
    with torch.device("meta"):
        return method.build()


def layers_of(network: Network) -> dict[str, MPOLinear]:
    return {name: module for name, module in network.named_modules() if isinstance(module, MPOLinear)}


@pytest.mark.parametrize("chi", [4, 8, 16, 32])
def test_the_presets_have_the_published_cores(make_method: MakeMethod, chi: int) -> None:
    layers = layers_of(build_meta(make_method(MPO, f"picogpt-chi{chi}", vocab_size=65)))
    assert len(layers) == 4 * 6 + 1
    for name, (outs, ins) in PICO_WEIGHTS.items():
        assert layers[name].modes == Modes(outs, ins)
        assert set(layers[name].bonds[1:-1]) == {chi}


@pytest.mark.parametrize(
    ("chi", "square", "mlp", "head", "total"),
    [
        # square 128 x 128: 8*8*chi + chi*16*16; MLP: 8*4*chi + chi*32*chi + chi*64; head: 5*8*chi + chi*13*16.
        # Total: 16 square + 8 MLP + head + embedding 8,320 + 4 * (768 biases + 512 norm entries) + final norm 256.
        (4, 1_280, 896, 992, 16 * 1_280 + 8 * 896 + 992 + 13_696),
        (8, 2_560, 2_816, 1_984, 16 * 2_560 + 8 * 2_816 + 1_984 + 13_696),
        (16, 5_120, 9_728, 3_968, 16 * 5_120 + 8 * 9_728 + 3_968 + 13_696),
        (32, 10_240, 35_840, 7_936, 16 * 10_240 + 8 * 35_840 + 7_936 + 13_696),
    ],
)
def test_parameters_counted_by_hand(
    make_method: MakeMethod, chi: int, square: int, mlp: int, head: int, total: int
) -> None:
    method = make_method(MPO, f"picogpt-chi{chi}", vocab_size=65)
    network = build_meta(method)
    sizes = {name: sum(core.numel() for core in layer.cores) for name, layer in layers_of(network).items()}
    assert {sizes[f"blocks.0.attention.{role}"] for role in ("query", "key", "value", "output")} == {square}
    assert sizes["blocks.0.mlp.up"] == sizes["blocks.0.mlp.down"] == mlp
    assert sizes["head"] == head
    counts = method.count_params(network)
    assert counts.parts == {
        "embedding": 8_320,
        "cores": 16 * square + 8 * mlp,
        "head_cores": head,
        "scalars": 4 * 1_280 + 256,
    }
    assert sum(counts.parts.values()) == total == {4: 42_336, 8: 79_168, 16: 177_408, 32: 472_192}[chi]
    assert counts.effective == 808_448


def test_the_published_totals_lie_on_no_count_of_uncapped_cores() -> None:
    # Chains of any number of sites with all bonds chi hold a + b chi + c chi^2 numbers, with whole a, b and c >= 0.
    published = {4: 78_336, 8: 110_592, 16: 191_872, 32: 408_832}
    # Second divided difference over 4, 8, 16: ((f16 - f8) / 8 - (f8 - f4) / 4) / 12
    curvature = ((published[16] - published[8]) / 8 - (published[8] - published[4]) / 4) / 12
    assert curvature == pytest.approx(174.6667, abs=1e-4)
    assert curvature != round(curvature)
    later = ((published[32] - published[16]) / 16 - (published[16] - published[8]) / 8) / 24
    assert later == pytest.approx(141.6667, abs=1e-4)


def test_bonds_are_capped_unless_faithful(make_method: MakeMethod) -> None:
    capped = make_method(MPO, "picogpt-chi32", vocab_size=65, chi=100, faithful=False)
    bonds = {name: layer.bonds for name, layer in layers_of(build_meta(capped)).items()}
    assert bonds["head"] == (1, 40, 1)
    assert bonds["blocks.0.attention.query"] == (1, 64, 1)
    assert bonds["blocks.0.mlp.up"] == (1, 32, 64, 1)
    faithful = make_method(MPO, "picogpt-chi32", vocab_size=65, chi=100)
    assert all(set(layer.bonds[1:-1]) == {100} for layer in layers_of(build_meta(faithful)).values())


def test_initial_values_are_the_published_ones(make_method: MakeMethod) -> None:
    torch.manual_seed(0)
    layers = layers_of(make_method(MPO, "picogpt-chi16", vocab_size=65).build())
    for name, sites in (("blocks.0.attention.query", 2), ("blocks.0.mlp.up", 3), ("blocks.0.mlp.down", 3)):
        layer = layers[name]
        expected = layer.in_features**-0.25 / 16 ** ((sites - 1) / (2 * sites))
        for core in layer.cores:
            assert core.std().item() == pytest.approx(expected, rel=0.1)
        # sum over bonds of products of L independent entries: chi^(L-1) * std^(2L) = I^(-L/2)
        assert layer.weight.std().item() == pytest.approx(layer.in_features ** (-sites / 4), rel=0.15)
    assert all(layer.bias is None or not layer.bias.any() for layer in layers.values())


@pytest.mark.parametrize("vocab_size", [257, 509])
def test_a_prime_vocabulary_is_refused_with_the_way_out(make_method: MakeMethod, vocab_size: int) -> None:
    message = rf"mpo: layer head has 128 inputs and {vocab_size} outputs.*--set 'dense_roles=\[\"head\"\]'"
    with pytest.raises(UsageError, match=message) as caught:
        make_method(MPO, "picogpt-chi8", vocab_size=vocab_size).build()
    assert "\n" not in str(caught.value)
    dense = make_method(MPO, "picogpt-chi8", vocab_size=vocab_size, dense_roles=["head"])
    assert dense.build().head.weight.shape == (vocab_size, 128)
    assert dense.count_params(build_meta(dense)).parts["embedding"] == 2 * vocab_size * 128


def test_other_impossible_modes_are_refused(make_method: MakeMethod) -> None:
    with pytest.raises(UsageError, match=r"layer blocks\.\*\.mlp\.up has 64 inputs and 131 outputs"):
        make_method(MPO, "tiny", mlp_width=131).build()
    with pytest.raises(UsageError, match=r"layer head .* 65 outputs, which do not both split into 3 factors"):
        make_method(MPO, "picogpt-chi8", vocab_size=65, sites=3).build()
    with pytest.raises(UsageError, match=r"modes\.up: \(4, 4\) and \(8, 8\) do not multiply to these"):
        make_method(MPO, "tiny", modes={"up": ((4, 4), (8, 8))}).build()
    with pytest.raises(UsageError, match=r"modes\.up: give 2 to 4 out and as many in features"):
        make_method(MPO, "tiny", modes={"up": ((8, 16), (64,))}).build()


def test_modes_and_sites_can_be_chosen(make_method: MakeMethod) -> None:
    network = make_method(MPO, "tiny", sites=4, modes={"up": ((1, 128), (2, 32))}).build()
    layers = layers_of(network)
    assert layers["blocks.0.mlp.up"].modes == Modes((1, 128), (2, 32))
    assert layers["blocks.0.attention.query"].modes == Modes((2, 2, 4, 4), (2, 2, 4, 4))
    assert network(torch.zeros(1, 3, dtype=torch.int64)).isfinite().all()


SHAPES = [
    Modes((8, 16), (8, 16)),
    Modes((8, 8, 8), (4, 4, 8)),
    Modes((5, 13), (8, 16)),
    Modes((2, 3, 2, 2), (2, 2, 3, 2)),
]


@pytest.mark.parametrize(("modes", "chi", "bias"), [*itertools.product(SHAPES, [1, 8], [False, True])])
def test_all_plans_give_one_result_and_one_gradient(modes: Modes, chi: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = MPOLinear(modes, modes.bonds(chi), bias=bias)
    if layer.bias is not None:
        torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 5, layer.in_features, requires_grad=True)
    target = torch.randn(2, 5, layer.out_features)
    found = {}
    for plan in ("rebuild", "left", "right"):
        y = layer.forward_by(plan, x)
        gradients = torch.autograd.grad((y * target).sum(), [x, *layer.parameters()])
        found[plan] = [y.detach(), *gradients]
    # in float64 by numpy from the cores themselves
    cores = [core.detach().double().numpy() for core in layer.cores]
    chain = cores[0]
    for core in cores[1:]:
        chain = np.einsum("aoib,bpjc->aopijc", chain, core)
        chain = chain.reshape(1, chain.shape[1] * chain.shape[2], -1, core.shape[3])
    expected = x.detach().double().numpy() @ chain[0, :, :, 0].T
    if layer.bias is not None:
        expected += layer.bias.detach().numpy()
    for plan in ("rebuild", "left", "right"):
        np.testing.assert_allclose(found[plan][0].numpy(), expected, rtol=1e-5, atol=1e-5)
        for mine, other in zip(found[plan], found["rebuild"], strict=True):
            scale = float(other.abs().max())
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5 * max(1.0, scale))


@pytest.mark.parametrize("modes", SHAPES)
def test_blocks_of_rows_give_what_all_rows_give(modes: Modes) -> None:
    torch.manual_seed(0)
    bonds = modes.bonds(8)
    cores = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in modes.core_shapes(bonds)]
    x = torch.randn(11, modes.shape[1], dtype=torch.float64, requires_grad=True)
    for from_left in (True, False):
        y = contract(cores, x, from_left=from_left)
        direction = torch.randn_like(y)
        expected = torch.autograd.grad(y, [x, *cores], direction)
        for block in (1, 4, 11, 20):
            blocked = contract_in_blocks(cores, x, block, from_left=from_left)
            torch.testing.assert_close(blocked, y)
            for mine, other in zip(torch.autograd.grad(blocked, [x, *cores], direction), expected, strict=True):
                torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("from_left", [True, False])
def test_the_flow_of_a_block_is_bounded(from_left: bool) -> None:
    modes = Modes((16, 16, 16), (16, 16, 16))
    # one row takes 8 * 16^3 numbers between two sites, so that 8 rows are 2^18
    assert flow_width(modes, (1, 8, 8, 1), from_left=from_left) == 8 * 4096
    assert rows_of_block(modes, (1, 8, 8, 1), from_left=from_left) == 8
    assert rows_of_block(modes, (1, 256, 256, 1), from_left=from_left) == 1
    # 512 x 128: from the right 4 * 4 * chi * 8 numbers and 4 * chi * 8 * 8 are between sites, from the left more.
    up = Modes((8, 8, 8), (4, 4, 8))
    assert flow_width(up, (1, 4, 4, 1), from_left=False) == 4 * 4 * 64
    assert flow_width(up, (1, 4, 4, 1), from_left=True) == 4 * 64 * 8


def test_work_is_counted_as_by_hand() -> None:
    modes, bonds = Modes((2, 3), (4, 5)), (1, 7, 1)
    # rebuild: (2 * 4, 7) @ (7, 3 * 5), then 10 rows through a 6 x 20 matrix
    assert plan_work("rebuild", modes, bonds, 10).multiply_adds == 8 * 7 * 15 + 10 * 6 * 20
    # left: per row (2 * 7, 4) @ (4, 5), then twice (3, 7 * 5) @ (35, 1)
    # right: 4 times (7 * 3, 5) @ (5, 1), then (2, 4 * 7) @ (28, 3)
    assert plan_work("left", modes, bonds, 10).multiply_adds == 10 * (14 * 4 * 5 + 2 * 3 * 35)
    assert plan_work("right", modes, bonds, 10).multiply_adds == 10 * (4 * 21 * 5 + 2 * 28 * 3)
    assert plan_work("right", modes, bonds, 10, with_backward=True).multiply_adds == 3 * 10 * (420 + 168)
    block = rows_of_block(modes, bonds, from_left=False)
    many = plan_work("right", modes, bonds, 3 * block + 1, with_backward=True)
    assert many.multiply_adds == 4 * (3 * block + 1) * (420 + 168)


def test_the_plan_depends_on_rows_and_bonds() -> None:
    wide, square = Modes((16, 16, 16), (16, 16, 16)), Modes((8, 16), (8, 16))
    for with_backward in (False, True):
        assert choose_plan(wide, wide.bonds(8), 1, with_backward) == "right"
        assert choose_plan(wide, wide.bonds(8), 64, with_backward) == "right"
        assert choose_plan(square, (1, 32, 1), 8192, with_backward) == "rebuild"
    layer = MPOLinear(square, square.bonds(4))
    assert layer(torch.zeros(0, 128)).shape == (0, 128)


def test_an_exported_network_comes_back_exactly(make_method: MakeMethod) -> None:
    for change in ({}, {"sites": 3}, {"dense_roles": ["up", "down"]}):
        method = make_method(MPO, "picogpt-chi4" if not change.get("sites") else "tiny", vocab_size=65, **change)
        network = method.build()
        plan = method.export(network, EXACT)
        restored = method.evaluate({tensor.name: tensor.value.copy() for tensor in plan})
        tokens = torch.randint(65, (2, 32))
        with torch.no_grad():
            assert torch.equal(restored(tokens), network.eval()(tokens))


def test_cores_are_stored_as_matrices_under_the_scheme_of_matrices(make_method: MakeMethod) -> None:
    method = make_method(MPO, "picogpt-chi16", vocab_size=65)
    plan = {tensor.name: tensor for tensor in method.export(method.build(), ExportSettings(matrices="int5-row"))}
    middle = plan["blocks.0.mlp.up.cores.1"]  # (A o, i Z) = (16 * 8, 4 * 16)
    assert middle.value.shape == (128, 64)
    assert middle.scheme == plan["head.cores.1"].scheme == "int5-row"
    assert (middle.part, plan["head.cores.1"].part) == ("cores", "head_cores")
    assert sum(tensor.value.size for tensor in plan.values()) == 177_408


def test_operations_are_those_of_the_products_done(make_method: MakeMethod) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    for preset, num_tokens in (("tiny", 128), ("tiny", 512), ("picogpt-chi8", 512)):
        method = make_method(MPO, preset, vocab_size=65)
        network = method.build()
        tokens = torch.randint(65, (num_tokens // 64, 64))
        with FlopCounterMode(display=False) as counter:
            network.loss(tokens, tokens).backward()
        # attention counts full context and all pairs by formula, so declared is not below what is counted
        assert counter.get_total_flops() <= method.flops_per_step(num_tokens) <= 3 * counter.get_total_flops()


def test_it_runs_under_autocast(make_method: MakeMethod) -> None:
    torch.manual_seed(0)
    network = make_method(MPO, "tiny", vocab_size=50).build()
    tokens = torch.randint(50, (2, 64))
    exact = network(tokens).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = network.loss(tokens, tokens)
        rough = network(tokens).detach()
    loss.backward()
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.05 * max(1.0, float(exact.abs().max()))
    assert math.isfinite(loss.detach().item())
