"""Pruning: exactly as sparse as asked, for good, and what it costs in the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from short_trainings import make, train

from baselines.pruning.masks import MaskedLinear, prune, sparsity_at
from baselines.pruning.method import Pruning
from baselines.pruning.storage import join_weight, split_weight
from harness.artifact.container import Artifact, PlannedTensor, write_artifact
from harness.errors import ArtifactError, UsageError
from harness.method import ExportSettings, Method
from harness.nn.inits import normal_fan_in

MakeMethod = Callable[..., Method]
NUM_STEPS = 12
FULL = ExportSettings(matrices="fp32", embeddings="fp32", scalars="fp32")


def make_maps(*shapes: tuple[int, int], seed: int = 0) -> list[MaskedLinear]:
    torch.manual_seed(seed)
    return [MaskedLinear(inside, outside, normal_fan_in) for inside, outside in shapes]


def masked_maps(network: torch.nn.Module) -> list[MaskedLinear]:
    return [module for module in network.modules() if isinstance(module, MaskedLinear)]


def num_zeros(maps: list[MaskedLinear]) -> int:
    return sum(int((one.weight == 0).sum()) for one in maps)


def test_the_cubic_schedule_by_hand() -> None:
    # Half way in one of two jumps: 0.8 (1 - 0.5^3) = 0.7.
    cubic = [sparsity_at(t, final=0.8, begin=0.2, end=0.6, updates=2) for t in (0, 0.19, 0.2, 0.39, 0.4, 0.6, 1)]
    assert cubic == pytest.approx([0, 0, 0, 0, 0.7, 0.8, 0.8])
    assert [sparsity_at(t, final=0.8, begin=0.5, end=0.5, updates=9) for t in (0.49, 0.5, 1)] == [0, 0.8, 0.8]
    fine = [sparsity_at(t, final=0.9, begin=0.0, end=1.0, updates=10**6) for t in (0.25, 0.5, 0.75)]
    assert fine == pytest.approx([0.9 * (1 - (1 - t) ** 3) for t in (0.25, 0.5, 0.75)], abs=1e-5)


@pytest.mark.parametrize("sparsity", [0.0, 1 / 3, 0.5, 0.9, 1.0])
def test_sparsity_is_exact_in_each_tensor_or_over_all(sparsity: float) -> None:
    maps = make_maps((1, 1), (7, 5), (13, 3))
    prune(maps, sparsity, "tensor")
    assert [num_zeros([one]) for one in maps] == [round(sparsity * number) for number in (1, 35, 39)]
    maps = make_maps((1, 1), (7, 5), (13, 3))
    prune(maps, sparsity, "global")
    assert num_zeros(maps) == round(sparsity * 75)


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_the_smallest_go(scope: str) -> None:
    maps = make_maps((9, 4), (4, 9))
    maps[1].weight.data *= 10
    before = [one.weight.detach().abs().clone() for one in maps]
    prune(maps, 0.5, scope)
    groups = [[0, 1]] if scope == "global" else [[0], [1]]
    for group in groups:
        magnitude = torch.cat([before[index].flatten() for index in group])
        kept = torch.cat([maps[index].mask.flatten() for index in group])
        assert magnitude[~kept].max() <= magnitude[kept].min()
    assert (num_zeros(maps[:1]) > 18 > num_zeros(maps[1:])) == (scope == "global")


def test_ties_and_zeros_do_not_spoil_the_count() -> None:
    maps = make_maps((4, 4))
    maps[0].weight.data.zero_()
    prune(maps, 0.25, "tensor")
    assert maps[0].mask.flatten().tolist() == [False] * 4 + [True] * 12


def test_what_is_masked_stays_masked_and_gets_no_gradient() -> None:
    maps = make_maps((6, 5))
    prune(maps, 0.5, "tensor")
    before = maps[0].mask.clone()
    with torch.no_grad():
        maps[0].weight[~before] = 100.0  # as an optimiser with momentum does
    assert torch.equal(maps[0](torch.eye(6)), (maps[0].weight * before).T)
    maps[0](torch.randn(3, 6)).square().sum().backward()
    assert maps[0].weight.grad[~before].abs().max() == 0
    assert maps[0].weight.grad[before].abs().min() > 0
    prune(maps, 0.7, "tensor")
    assert not (maps[0].mask & ~before).any()
    prune(maps, 0.2, "tensor")
    assert int(maps[0].mask.sum()) == 30 - 21


@pytest.mark.parametrize("scope", ["tensor", "global"])
@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_masks_survive_training_with_momentum_and_decay(scope: str, optimiser: str, tmp_path: Path) -> None:
    overrides = ("sparsity=0.75", "begin=0.25", "end=0.5", "matrix_weight_decay=0.1", f"scope={scope}")
    method, settings = make("pruning", *overrides, f"matrix_optimiser={optimiser}")
    networks: list[torch.nn.Module] = []
    build, masks = method.build, []
    method.build = lambda: networks.append(build()) or networks[-1]
    network = train(
        tmp_path,
        method,
        settings.train,
        num_steps=NUM_STEPS,
        after_step=lambda step: masks.append([one.mask.clone() for one in masked_maps(networks[-1])]),
    )
    maps = masked_maps(network)
    total = sum(one.mask.numel() for one in maps)
    assert num_zeros(maps) == round(0.75 * total)
    for earlier, later in zip(masks, masks[1:], strict=False):
        assert all(not (new & ~old).any() for old, new in zip(earlier, later, strict=True))
    pruned = [1 - sum(int(mask.sum()) for mask in step) / total for step in masks]
    assert len(pruned) == NUM_STEPS
    # Steps 1 to 4 begin at progress 0 to 3/12: the first jump of five comes after that; from 6/12 on all is done.
    assert pruned[:4] == [0, 0, 0, 0]
    assert pruned == sorted(pruned)
    assert pruned[6:] == pytest.approx([0.75] * 6)


def test_pruning_at_the_end_needs_no_step_after_it(tmp_path: Path) -> None:
    method, settings = make("pruning", "pace=one_shot", "begin=1.0", "sparsity=0.9")
    maps = masked_maps(train(tmp_path, method, settings.train, num_steps=NUM_STEPS))
    assert num_zeros(maps) == round(0.9 * sum(one.mask.numel() for one in maps))


def test_an_average_of_weights_is_pruned_too(tmp_path: Path) -> None:
    method, settings = make("pruning", "ema_decay=0.9", "sparsity=0.9")
    network = train(tmp_path, method, settings.train, num_steps=NUM_STEPS).eval()
    tokens = torch.randint(256, (1, 8))
    decoded = method.evaluate({one.name: one.value for one in method.export(network, FULL)})
    assert num_zeros(masked_maps(network)) == round(0.9 * sum(one.mask.numel() for one in masked_maps(network)))
    assert torch.equal(decoded(tokens), network(tokens))


def write(path: Path, method: Method, network: torch.nn.Module, export: ExportSettings):
    return write_artifact(path, meta={}, tensors=method.export(network, export), blobs={})


@pytest.mark.parametrize("storage", ["mask", "zeros"])
def test_bytes_fall_with_sparsity_and_parameters_are_the_numbers_left(
    make_method: MakeMethod, storage: str, tmp_path: Path
) -> None:
    sizes, stored, numbers = [], [], []
    for sparsity in (0.0, 0.5, 0.8, 0.95):
        torch.manual_seed(0)
        method = make_method(Pruning, "tiny", storage=storage, zero_outputs=False, sparsity=sparsity)
        network = method.build()
        maps = masked_maps(network)
        prune(maps, sparsity, "tensor")  # no matrix is empty: equal tensors are stored once
        summary = write(tmp_path / "a.bin", method, network, ExportSettings(small_numel=0))
        sizes.append(summary.artifact_bytes)
        stored.append(summary.num_params_stored)
        numbers.append(sum(int(one.mask.sum()) for one in maps))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.45 * sizes[0]
    falls = [stored[0] - count for count in stored]
    if storage == "mask":
        assert falls == [numbers[0] - left for left in numbers]
    else:
        assert falls == [0, 0, 0, 0]


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9])
def test_masks_of_their_own_cost_about_what_zeros_cost_the_entropy_coder(sparsity: float, tmp_path: Path) -> None:
    maps = make_maps((192, 384))
    prune(maps, sparsity, "tensor")
    weight = PlannedTensor(name="w", value=maps[0].weight.detach().numpy(), scheme="int6-row", part="blocks")
    zeros = write_artifact(tmp_path / "zeros.bin", meta={}, tensors=[weight], blobs={})
    split = write_artifact(tmp_path / "mask.bin", meta={}, tensors=split_weight(weight), blobs={})
    payload = {name: s.artifact_bytes - s.parts["header"] for name, s in (("zeros", zeros), ("mask", split))}
    assert payload["zeros"] <= payload["mask"] <= 1.04 * payload["zeros"]
    # The mask alone: its entropy, which a bitmap of 1/8 byte a weight reaches at one half only.
    share = -(sparsity * np.log2(sparsity) + (1 - sparsity) * np.log2(1 - sparsity))
    assert split.parts["masks"] == pytest.approx(share * 192 * 384 / 8, rel=0.01)


@pytest.mark.parametrize("scheme", ["fp32", "int8-row", "int5-row-search", "int8-tensor", "step-0.01"])
def test_a_split_weight_comes_back(scheme: str, tmp_path: Path) -> None:
    maps = make_maps((20, 12))
    prune(maps, 0.6, "tensor")
    weight = maps[0].weight.detach().numpy()
    weight[3] = 0  # a row without numbers
    planned = PlannedTensor(name="w", value=weight, scheme=scheme, part="blocks")
    write_artifact(tmp_path / "a.bin", meta={}, tensors=split_weight(planned), blobs={})
    joined = join_weight("w", Artifact.open(tmp_path / "a.bin").decode_tensors())
    write_artifact(tmp_path / "b.bin", meta={}, tensors=[planned], blobs={})
    whole = Artifact.open(tmp_path / "b.bin").decode_tensors()["w"]
    assert (joined[weight == 0] == 0).all()
    # As far from the weight as the same scheme leaves it with its zeros, but for the rounding of the row scales.
    assert np.linalg.norm(joined - weight) <= 1.1 * np.linalg.norm(whole - weight)


def test_a_scheme_that_cannot_be_split_is_refused(make_method: MakeMethod) -> None:
    method = make_method(Pruning, "tiny")
    with pytest.raises(UsageError, match=r"scheme ternary-row does not store a mask apart\. Set storage=zeros"):
        method.export(method.build(), ExportSettings(matrices="ternary-row"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda t, key: t.pop(f"{key}.mask"), "lacks the tensor"),
        (lambda t, key: t.update({f"{key}.values": t[f"{key}.values"][1:]}), "do not fit its mask"),
        (lambda t, key: t.update({f"{key}.mask": t[f"{key}.mask"] * 2}), "do not fit its mask"),
        (lambda t, key: t.update({f"{key}.row_scales": np.ones(3, np.float32)}), "scales do not fit its mask"),
        (lambda t, key: t.update({f"{key}.more": np.ones(3, np.float32)}), "disagree on the tensors"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(make_method: MakeMethod, spoil, said: str) -> None:
    method = make_method(Pruning, "tiny")
    tensors = {one.name: one.value.copy() for one in method.export(method.build(), ExportSettings())}
    spoil(tensors, "blocks.0.mlp.up.weight")
    with pytest.raises(ArtifactError, match=said):
        method.evaluate(tensors)


def test_an_end_before_the_begin_is_refused(make_method: MakeMethod) -> None:
    with pytest.raises(UsageError, match=r"end: 0.1 is before begin=0.2"):
        make_method(Pruning, "tiny", end=0.1)
    make_method(Pruning, "tiny", end=0.1, pace="one_shot")


def test_picogpt_has_the_numbers_of_the_tensor_chain_it_is_compared_with(make_method: MakeMethod) -> None:
    method = make_method(Pruning, "picogpt-chi16", vocab_size=65)
    network = method.build()
    prune(masked_maps(network), method.settings.sparsity, "global")
    left = sum(p.numel() for p in network.parameters()) - num_zeros(masked_maps(network))
    assert left == 4 * (4 * 5_120 + 2 * 9_728) + 3_968 + 8_320 + 5_376
