from collections.abc import Callable

import pytest
import torch

from baselines.dense.method import Dense
from harness.errors import ArtifactError
from harness.method import ExportSettings, Method

MakeMethod = Callable[..., Method]


@pytest.mark.parametrize(
    ("preset", "vocab_size", "parts"),
    [
        # 9 layers: six matrices of 1,835,008 numbers; 2,056 vector entries; and 4 skips of 512.
        ("published", 1024, {"embedding": 524_288, "blocks": 16_515_072, "scalars": 9 * 2_056 + 2_048}),
        ("published-8x256", 1024, {"embedding": 262_144, "blocks": 8 * 458_752, "scalars": 8 * 1_028 + 1_024}),
        # 4 layers: 12 * 128^2 numbers in matrices; 768 biases and 512 norm entries; final norm; two tables.
        ("picogpt", 65, {"embedding": 2 * 8_320, "blocks": 786_432, "scalars": 4 * 1_280 + 256}),
    ],
)
def test_published_parameter_counts(
    make_method: MakeMethod, preset: str, vocab_size: int, parts: dict[str, int]
) -> None:
    method = make_method(Dense, preset, vocab_size=vocab_size)
    with torch.device("meta"):
        network = method.build()
    counts = method.count_params(network)
    assert counts.parts == parts
    assert counts.effective == sum(parts.values()) == sum(p.numel() for p in network.parameters())
    totals = {"published": 17_059_912, "published-8x256": 3_941_408, "picogpt": 808_448}
    assert counts.effective == totals[preset]


@pytest.mark.parametrize("preset", ["tiny", "small", "published", "published-8x256", "picogpt"])
def test_every_parameter_is_in_one_group_of_its_role(make_method: MakeMethod, preset: str) -> None:
    method = make_method(Dense, preset)
    with torch.device("meta"):
        network = method.build()
    groups = {group.role: group.names for group in method.param_groups(network)}
    names = [name for group in groups.values() for name in group]
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    assert {name.split(".")[0] for name in groups["matrix"]} == {"blocks"}
    assert all(len(shapes[name]) == 2 for name in groups["matrix"])
    assert set(groups["embedding"]) <= {"embedding.table", "head.weight"}


def test_an_exported_network_comes_back_exactly(make_method: MakeMethod) -> None:
    method = make_method(Dense, "tiny")
    network = method.build()
    plan = method.export(network, ExportSettings(matrices="fp32", embeddings="fp32", scalars="fp32"))
    restored = method.evaluate({tensor.name: tensor.value.copy() for tensor in plan})
    tokens = torch.randint(1024, (2, 64))
    assert torch.equal(restored(tokens), network.eval()(tokens))


def test_schemes_follow_role_and_size(make_method: MakeMethod) -> None:
    method = make_method(Dense, "tiny")
    export = ExportSettings(matrices="int5-row", embeddings="int8-row", scalars="fp16", small_numel=2048)
    plan = {tensor.name: tensor.scheme for tensor in method.export(method.build(), export)}
    assert plan["embedding.table"] == "int8-row"
    assert plan["blocks.0.mlp.up.weight"] == "int5-row"
    assert plan["blocks.0.attention.key.weight"] == "fp16"
    assert plan["body.skip_weights"] == "fp16"


def test_tensors_of_other_settings_are_refused(make_method: MakeMethod) -> None:
    method = make_method(Dense, "tiny")
    plan = {tensor.name: tensor.value.copy() for tensor in method.export(method.build(), ExportSettings())}
    with pytest.raises(ArtifactError, match=r"disagree on the tensors body\.skip_weights"):
        make_method(Dense, "tiny", skips=False).evaluate(plan)
    with pytest.raises(ArtifactError, match=r"mlp\.up\.weight has shape \(128, 64\), the network expects"):
        make_method(Dense, "tiny", mlp_width=192).evaluate(plan)


def test_initial_values(make_method: MakeMethod) -> None:
    torch.manual_seed(0)
    block = make_method(Dense, "published-8x256").build().blocks[0]
    assert block.mlp.up.weight.abs().max() <= 256**-0.5
    assert block.mlp.up.weight.std().item() == pytest.approx((3 * 256) ** -0.5, rel=0.02)
    assert block.attention.output.weight.abs().max() == block.mlp.down.weight.abs().max() == 0
    picogpt = make_method(Dense, "picogpt", vocab_size=65).build()
    for weight in (picogpt.blocks[0].mlp.down.weight, picogpt.head.weight, picogpt.embedding.table):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
