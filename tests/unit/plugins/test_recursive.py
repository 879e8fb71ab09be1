import tomllib
from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import UsageError
from harness.method import ExportSettings, Method
from harness.registry import find_method
from harness.settings import resolve_settings, validate_settings
from harness.training.phases import Phases
from harness.training.recipe import Recipe
from methods.legendre.method import Legendre
from methods.recursive import counting
from methods.recursive.method import Recursive

MakeMethod = Callable[..., Method]
EXACT = ExportSettings(matrices="fp32", embeddings="fp32", scalars="fp32")
TINY = ["tiny", "tiny-crawler"]
ROLES = ("query", "key", "value", "output", "up", "down")


def stir(network: torch.nn.Module) -> None:
    """Move every parameter off its special initial value, such as zero."""
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))


@pytest.mark.parametrize(
    ("preset", "total", "parts"),
    [
        (
            "published",
            28_224_320,
            {
                "embedding": 655_360,
                "hash_embedding": 262_144 + 81_920 + 1,
                "smear_gate": 640,
                "skips": 3 * 640,
                "loop_vectors": 2 * 640,
                "value_embedding": 131_072 + 40_960 + 1,
                "value_scales": 2,
                # query, key, value, output, up, down; two scales, mix, gains
                "shared_blocks": 6 * (409_600 + 2 * 204_800 + 409_600 + 2 * 1_638_400 + 640 + 640 + 1_280 + 10),
            },
        ),
        (
            "micro-crawler",
            29_829_953,
            {
                "embedding": 655_360,
                "hash_embedding": 1_048_576 + 81_920 + 1,
                "smear_gate": 640,
                "skips": 2 * 640,
                "loop_vectors": 2 * 640,
                "value_embedding": 172_033,
                "value_scales": 2,
                "flat_blocks": 18_032_680,
                "shared_blocks": 9_016_340,
                "gate": 819_200 + 1 + 640,
            },
        ),
    ],
)
def test_published_parameter_counts(make_method: MakeMethod, preset: str, total: int, parts: dict[str, int]) -> None:
    method = make_method(Recursive, preset)
    with torch.device("meta"):
        network = method.build()
    counts = method.count_params(network)
    assert counts.parts == parts
    assert sum(parts.values()) == total == sum(p.numel() for p in network.parameters())


def test_effective_parameters_are_those_of_blocks_of_their_own(make_method: MakeMethod) -> None:
    with torch.device("meta"):
        counts = {
            preset: make_method(Recursive, preset).count_params(make_method(Recursive, preset).build())
            for preset in ("published", "micro-crawler")
        }
    # twelve blocks, two sets of skips, two more scales of values
    assert counts["published"].effective == 28_224_320 + 6 * 4_508_170 + 1_920 + 2
    # eight blocks, two gates, two more scales of values
    assert counts["micro-crawler"].effective == 29_829_953 + 2 * 4_508_170 + 819_200 + 2
    # of the tables that are looked up, one row
    assert counts["published"].effective - counts["published"].active == 2_047 * 128 + 1_023 * 128
    assert counts["micro-crawler"].effective - counts["micro-crawler"].active == 8_191 * 128 + 1_023 * 128


@pytest.mark.parametrize("preset", TINY)
@pytest.mark.parametrize("change", [{}, {"tied": False}, {"smear": False, "hash_grams": 0, "value_blocks": []}])
def test_run_once_effective_is_all_there_is(make_method: MakeMethod, preset: str, change: dict[str, object]) -> None:
    method = make_method(Recursive, preset, loops=1, **change)
    network = method.build()
    assert method.count_params(network).effective == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("preset", TINY)
@pytest.mark.parametrize("change", [{}, {"loops": 3, "hash_grams": 0}, {"value_blocks": [], "skips": False}])
@pytest.mark.parametrize("fires_all", [True, False])
def test_operations_are_those_that_torch_counts(
    make_method: MakeMethod, preset: str, change: dict[str, object], fires_all: bool
) -> None:
    method = make_method(Recursive, preset, vocab_size=50, **change)
    network, tokens = method.build(), torch.randint(50, (2, 64))
    leaves = network.begin_step()
    network.body.fires_all = fires_all
    with FlopCounterMode(display=False) as forward:
        loss = network.loss(tokens, tokens)
    with FlopCounterMode(display=False) as backward:
        torch.autograd.grad(loss, leaves)
    firings = method.settings.loops if fires_all else 1
    by_formula = counting.forward_flops(method.settings, vocab_size=50, context=64, num_tokens=128, num_firings=firings)
    assert by_formula == forward.get_total_flops()
    assert 2 * by_formula == backward.get_total_flops()


def test_operations_of_a_step_are_the_mean_over_the_cadence(make_method: MakeMethod) -> None:
    def flops(cadence: int) -> float:
        return make_method(Recursive, "tiny-crawler", cadence=cadence).flops_per_step(512)

    assert flops(2) == (flops(1) + flops(0)) / 2
    assert flops(4) == pytest.approx((flops(1) + 3 * flops(0)) / 4)
    assert [make_method(Recursive, "tiny-crawler", cadence=cadence).cost_period for cadence in (0, 1, 4)] == [1, 1, 4]


def test_one_block_in_loops_is_legendre_of_degree_zero(make_method: MakeMethod) -> None:
    plain = {
        "loop_vectors": "none",
        "depth_scale": False,
        "hash_grams": 0,
        "smear": False,
        "value_blocks": [],
        "exclude_own_last": 0,
        "skips": False,
        "rope_width": 0,
    }
    looped = make_method(Recursive, "tiny", blocks=1, loops=5, **plain).build()
    legendre = make_method(
        Legendre, "tiny", groups=1, sandwich=False, attention_degree=0, mlp_degree=0, embedding_rank=0
    ).build()
    stir(looped)
    looped.embedding.table.data.mul_(4)
    legendre.embedding.table.data.copy_(looped.embedding.table)
    block = looped.blocks[0]
    for role in ROLES:
        part = block.attention if role in ROLES[:4] else block.mlp
        weight = getattr(part, role).weight
        generator = legendre.generators[0][role]
        assert torch.equal(generator.layer_scales, torch.ones(5))
        generator.coefficients.data[0] = weight
        for depth in range(5):
            assert torch.equal(generator.weight(depth), weight), (role, depth)
    for own in legendre.blocks:
        for name, parameter in own.named_parameters():
            parameter.data.copy_(block.get_parameter(name))
    tokens = torch.randint(1024, (2, 64))
    torch.testing.assert_close(looped(tokens), legendre(tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("preset", ["tiny", "tiny-crawler", "small", "published", "micro-crawler"])
def test_any_numbers_of_blocks_and_loops(preset: str) -> None:
    info = find_method("recursive")
    settings = resolve_settings(info, preset, ["blocks=3", "loops=4"]).model
    flat = settings.flat_blocks
    shared = tuple(range(flat, flat + 3))
    assert settings.block_schedule == tuple(range(flat)) + 4 * shared
    assert (settings.num_layers, settings.num_blocks) == (flat + 12, flat + 3)


@pytest.mark.parametrize("preset", TINY)
@pytest.mark.parametrize(
    "change",
    [
        {"blocks": 3, "loops": 4},
        {"blocks": 1, "loops": 1},
        {"blocks": 1, "flat_blocks": 3},
        {"loop_vectors": "none", "skips": False, "depth_scale": False},
        {"value_blocks": [7], "exclude_own_last": 9, "activation": "swiglu", "tied": False},
        {"firing": "sequential", "gate": True, "loops": 3, "cadence": 2},
        {"embedding_rank": 16, "norm": "layer", "biases": ["up"]},
    ],
)
def test_every_parameter_learns_and_comes_back_from_the_file(
    make_method: MakeMethod, preset: str, change: dict[str, object]
) -> None:
    torch.manual_seed(0)
    method = make_method(Recursive, preset, vocab_size=50, **change)
    network = method.build()
    stir(network)
    tokens = torch.randint(50, (2, 64))
    network.loss(tokens, tokens.roll(-1, 1)).backward()
    silent = [name for name, parameter in network.named_parameters() if not parameter.grad.any()]
    assert not silent
    grouped = [name for group in method.param_groups(network) for name in group.names]
    assert sorted(grouped) == sorted(name for name, _ in network.named_parameters())
    plan = method.export(network, EXACT)
    restored = method.evaluate({tensor.name: tensor.value.copy() for tensor in plan})
    assert torch.equal(restored(tokens), network.eval()(tokens))


@pytest.mark.parametrize("preset", TINY)
@pytest.mark.parametrize("rope_trained_length", [1024, 16])
def test_later_tokens_change_nothing_before_them(
    make_method: MakeMethod, preset: str, rope_trained_length: int
) -> None:
    torch.manual_seed(0)
    network = make_method(Recursive, preset, rope_trained_length=rope_trained_length).build().eval()
    stir(network)
    tokens = torch.randint(1024, (1, 64))
    changed = tokens.clone()
    changed[0, 40:] = torch.randint(1024, (24,))
    with torch.no_grad():
        before, after = network(tokens), network(changed)
    assert torch.equal(before[:, :40], after[:, :40])
    assert not torch.equal(before[:, 40], after[:, 40])


def test_a_step_of_one_firing_differs_and_evaluation_fires_all(make_method: MakeMethod) -> None:
    network = make_method(Recursive, "tiny-crawler").build()
    stir(network)
    tokens = torch.randint(1024, (1, 64))
    with torch.no_grad():
        network.begin_step()
        every = network(tokens)
        network.begin_step()
        first = network(tokens)
        assert not torch.allclose(every, first)
        torch.testing.assert_close(network.eval()(tokens), every)


def test_roles(make_method: MakeMethod) -> None:
    method = make_method(Recursive, "tiny-crawler")
    groups = {group.role: group.names for group in method.param_groups(method.build())}
    assert set(groups["embedding"]) == {"embedding.table", "condition.table", "value_embedding.table"}
    outside = {name for name in groups["matrix"] if not name.startswith("blocks.")}
    assert outside == {"condition.projection.weight", "value_embedding.projection.weight", "body.gate.mix.weight"}
    for name in ("body.gate.strength", "body.gate.reference", "body.loop_vectors", "body.skip_weights", "smear.gate"):
        assert name in groups["scalar"]


def test_published_schemes(make_method: MakeMethod) -> None:
    method = make_method(Recursive, "micro-crawler")
    path = find_method("recursive").folder / "method.toml"
    values = tomllib.loads(path.read_text(encoding="utf-8"))["presets"]["micro-crawler"]
    export = ExportSettings(**values["export"])
    with torch.device("meta"):
        network = method.build()
    schemes = {name: method.scheme_of(name, value, export) for name, value in network.named_parameters()}
    assert schemes["blocks.5.attention.key.weight"] == schemes["condition.projection.weight"] == "frugendorff-int6"
    assert schemes["embedding.table"] == schemes["condition.table"] == schemes["body.gate.mix.weight"]
    assert schemes["embedding.table"] == schemes["value_embedding.table"] == "challenge-int8"
    assert schemes["value_embedding.projection.weight"] == schemes["body.gate.reference"] == "fp16"


@pytest.mark.parametrize("preset", ["published", "micro-crawler"])
def test_published_rates(preset: str) -> None:
    recipe: Recipe = resolve_settings(find_method("recursive"), preset, ()).train
    assert (recipe.matrix_lr, recipe.embedding_lr, recipe.scalar_lr) == (0.025, 0.035, 0.025)
    assert {recipe.matrix_weight_decay, recipe.embedding_weight_decay, recipe.scalar_weight_decay} == {0.04}
    assert (recipe.momentum_curve.value(0, 6000), recipe.momentum_curve.value(1500, 6000)) == (0.92, 0.99)
    warmdown = {"published": 3500, "micro-crawler": 2500}[preset]
    # after the warm-down: two passes over the last 100 batches, and 50 steps under the teacher
    end = 6250 - 250
    assert recipe.lr_curve.value(end - warmdown, 6250) == 1.0
    assert recipe.lr_curve.value(end - warmdown // 2, 6250) == pytest.approx(0.5)
    assert recipe.lr_curve.value(end - 100, 6250) < 0.2
    phases = Phases(recipe.model_dump())
    phases.advance(end, 6250)
    assert [phases.batch_index(step) for step in (6000, 6099, 6100, 6199)] == [5900, 5999, 5900, 5999]
    assert phases.lr_scale(0.0) == 0.1
    assert phases.advance(6199, 6250) == []
    assert phases.advance(6200, 6250) == ["distill"]
    assert phases.lr_scale(0.0) == 0.05


def test_settings_survive_a_record() -> None:
    settings = resolve_settings(find_method("recursive"), "tiny-crawler", ["blocks=3"])
    assert validate_settings(Recursive, settings.as_dict()) == settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["num_layers=5"], r"flat_blocks \+ blocks \* loops is 0 \+ 2 \* 2 = 4"),
        (["firing=parallel"], "Set gate=true"),
        (["loops=65", "loop_vectors=qr"], "no 65 orthogonal vectors of width 64"),
        (["blocks=0"], "blocks"),
        (["blocks=1000000000"], "num_layers"),
        (["loops=many"], "loops"),
        (["gate_scheme=int9"], "unknown quantisation scheme"),
        (["rope_width=2"], "Set rope_trained_length=0"),
        (["cadence=99"], "cadence"),
    ],
)
def test_impossible_settings_are_refused(changes: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_settings(find_method("recursive"), "tiny", changes)
