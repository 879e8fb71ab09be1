from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from harness.errors import RunError, UsageError
from harness.method import ParamGroup
from harness.training.optim import AdamW, Optimisers, build_optimisers, optimiser_flops
from harness.training.recipe import Recipe


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Parameter(torch.randn(5, 4))
        self.bank = nn.Parameter(torch.randn(3, 4, 4))
        self.matrix = nn.Parameter(torch.randn(6, 4))
        self.gain = nn.Parameter(torch.randn(4))
        self.frozen = nn.Parameter(torch.randn(4), requires_grad=False)


GROUPS = (
    ParamGroup(role="embedding", names=("embedding",)),
    ParamGroup(role="matrix", names=("bank",), lr_factor=(1.0, 0.5, 0.25)),
    ParamGroup(role="matrix", names=("matrix",), lr_factor=2.0),
    ParamGroup(role="scalar", names=("gain",)),
)
RECIPE = Recipe(embedding_lr=0.1, matrix_lr=0.2, scalar_lr=0.3, muon_dtype="float32")


def set_gradients(network: nn.Module, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator)


def snapshot(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.named_parameters()}


def one_step(recipe: Recipe, lr_scale: float = 1.0) -> dict[str, torch.Tensor]:
    """How far each parameter of `Small` moves in the first step."""
    network = Small()
    before = snapshot(network)
    optimisers = build_optimisers(network, GROUPS, recipe)
    set_gradients(network)
    optimisers.set_schedule(lr_scale, 0.95)
    optimisers.step()
    return {name: value - before[name] for name, value in snapshot(network).items()}


def test_roles_choose_optimiser_and_rate() -> None:
    moved = one_step(RECIPE)
    # the first step of Adam is the rate in the direction of the sign
    torch.testing.assert_close(moved["embedding"].abs(), torch.full((5, 4), 0.1), rtol=1e-5, atol=0)
    torch.testing.assert_close(moved["gain"].abs(), torch.full((4,), 0.3), rtol=1e-5, atol=0)
    # Muon: singular values near rate * factor * sqrt(max(1, rows / columns))
    size = 0.2 * 2.0 * math.sqrt(6 / 4)
    assert 0.5 * size < torch.linalg.svdvals(moved["matrix"]).mean() < 1.3 * size
    for order, factor in enumerate((1.0, 0.5, 0.25)):
        assert 0.1 * factor < torch.linalg.svdvals(moved["bank"][order]).mean() < 0.26 * factor
    assert torch.count_nonzero(moved["frozen"]) == 0


def test_the_schedule_scales_every_rate() -> None:
    whole, half = one_step(RECIPE), one_step(RECIPE, lr_scale=0.5)
    for name in ("embedding", "bank", "matrix", "gain"):
        torch.testing.assert_close(half[name], whole[name] / 2, rtol=1e-4, atol=1e-6)


def test_matrices_under_adamw_keep_their_factors() -> None:
    moved = one_step(RECIPE.model_copy(update={"matrix_optimiser": "adamw"}))
    expected = 0.2 * torch.tensor([1.0, 0.5, 0.25]).reshape(3, 1, 1).expand(3, 4, 4)
    torch.testing.assert_close(moved["bank"].abs(), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(moved["matrix"].abs(), torch.full((6, 4), 0.4), rtol=1e-4, atol=0)


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_decay_is_decoupled_and_follows_rate_and_factor(optimiser: str) -> None:
    recipe = RECIPE.model_copy(update={"matrix_optimiser": optimiser, "embedding_weight_decay": 0.5})
    decayed = recipe.model_copy(update={"matrix_weight_decay": 0.4})
    start = snapshot(Small())
    plain, shrunk = one_step(recipe), one_step(decayed)
    factors = torch.tensor([1.0, 0.5, 0.25]).reshape(3, 1, 1)
    torch.testing.assert_close(shrunk["bank"] - plain["bank"], -0.2 * 0.4 * factors * start["bank"])
    torch.testing.assert_close(shrunk["matrix"] - plain["matrix"], -0.2 * 2.0 * 0.4 * start["matrix"])
    torch.testing.assert_close(
        one_step(recipe)["embedding"] - one_step(RECIPE)["embedding"], -0.1 * 0.5 * start["embedding"]
    )


def test_adamw_two_steps_by_hand() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    optimiser = AdamW([parameter], lr=0.1, betas=(0.5, 0.75), eps=1e-8, weight_decay=0.0, fused=True)
    for gradient in (1.0, 3.0):
        parameter.grad = torch.tensor([gradient])
        optimiser.step()
    # step 1: mean 1 / 1, square 1 / 1: -0.1
    # step 2: mean (0.5 * 0.5 + 0.5 * 3) / (1 - 0.25) = 7/3,
    #         square (0.75 * 0.25 + 0.25 * 9) / (1 - 0.5625) = 39/7
    expected = 1.0 - 0.1 - 0.1 * (7 / 3) / math.sqrt(39 / 7)
    assert parameter.item() == pytest.approx(expected, abs=1e-6)


def test_clipping_by_hand() -> None:
    network = Small()
    optimisers = build_optimisers(network, GROUPS, RECIPE)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    network.gain.grad[0], network.matrix.grad[0, 0] = 3.0, 4.0
    assert optimisers.clip(0.0) == 0.0
    assert optimisers.clip(10.0) == 5.0
    assert (network.gain.grad[0], network.matrix.grad[0, 0]) == (3.0, 4.0)
    assert optimisers.clip(1.0) == 5.0
    assert network.gain.grad[0].item() == pytest.approx(0.6)
    assert network.matrix.grad[0, 0].item() == pytest.approx(0.8)


def test_zero_grad_drops_gradients() -> None:
    network = Small()
    optimisers = build_optimisers(network, GROUPS, RECIPE)
    set_gradients(network)
    optimisers.zero_grad()
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_restored_optimisers_go_on_bit_for_bit(optimiser: str) -> None:
    recipe = RECIPE.model_copy(update={"matrix_optimiser": optimiser, "muon_dtype": "bfloat16"})

    def run(network: nn.Module, optimisers: Optimisers, steps: range) -> None:
        for step in steps:
            set_gradients(network, seed=step)
            optimisers.set_schedule(1 - step / 10, 0.85 + step / 100)
            optimisers.step()

    straight = Small()
    optimisers = build_optimisers(straight, GROUPS, recipe)
    run(straight, optimisers, range(3))
    resumed = Small()
    resumed.load_state_dict({name: value.clone() for name, value in straight.state_dict().items()})
    others = build_optimisers(resumed, GROUPS, recipe)
    others.load_state_dict(optimisers.state_dict())
    run(straight, optimisers, range(3, 6))
    run(resumed, others, range(3, 6))
    for name, value in straight.named_parameters():
        assert torch.equal(value, resumed.get_parameter(name)), name


def test_a_state_of_other_groups_is_refused() -> None:
    state = build_optimisers(Small(), GROUPS, RECIPE).state_dict()
    by_adamw = RECIPE.model_copy(update={"matrix_optimiser": "adamw"})
    with pytest.raises(RunError, match="have other parameter groups"):
        build_optimisers(Small(), GROUPS, by_adamw).load_state_dict(state)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (GROUPS[:-1], "leaves out gain"),
        ((), "leaves out embedding, bank, matrix, gain"),
        ((*GROUPS, GROUPS[0]), "names 'embedding' twice"),
        ((*GROUPS, ParamGroup(role="scalar", names=("bias",))), "'bias', which is no trainable parameter"),
        (
            (*GROUPS, ParamGroup(role="scalar", names=("frozen",))),
            "'frozen', which is no trainable parameter",
        ),
        (
            (*GROUPS[:-1], ParamGroup(role="matrix", names=("gain",))),
            r"calls 'gain' of shape \(4,\) a matrix",
        ),
        (
            (
                GROUPS[0],
                ParamGroup(role="matrix", names=("bank", "matrix"), lr_factor=(1.0, 0.5, 0.25)),
                GROUPS[3],
            ),
            r"gives 'matrix' of shape \(6, 4\) 3 learning-rate factors",
        ),
    ],
)
def test_bad_groups_are_refused_by_name(groups: tuple[ParamGroup, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_optimisers(Small(), groups, RECIPE)


def test_operations_of_a_step() -> None:
    # Muon, five iterations: bank 3 * (4 * 4 * 4 * 4 + 2 * 64), matrix 4 * 16 * 6 + 2 * 64; Adam 12 * (20 + 4)
    assert optimiser_flops(Small(), GROUPS, RECIPE) == 5 * (3 * 384 + 512) + 288
