"""The operations of one optimiser step by formula, for every registered method, against those that torch counts.

Torch counts matrix products: forward, backward, generation of weights, Muon's Newton-Schulz. All of them agree exactly
with the formulas. Elementwise work neither counts, but for the optimiser that does nothing else, AdamW.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from harness.method import Method, ParamGroup, Task
from harness.nn.network import Network
from harness.registry import find_method, list_methods
from harness.settings import resolve_settings
from harness.training.optim import Optimisers, build_optimisers, optimiser_flops
from harness.training.recipe import Recipe

VOCAB = 257
TINY = [
    (name, preset) for name in sorted(list_methods()) for preset in find_method(name).toml.presets if "tiny" in preset
]
# Multiplications, additions, divisions and roots for each number, by the operations that unfused AdamW is made of.
ELEMENTWISE = {"mul_": 1, "add_": 1, "div_": 1, "div": 1, "sqrt": 1, "lerp_": 3, "addcmul_": 3, "addcdiv_": 3}


def product_flops(out: torch.Size, left: torch.Size, right: torch.Size, **_: Any) -> int:
    return 2 * math.prod(left) * right[-1]


# Torch's counter does not know the forms that add to their output in place, which Legendre's generator uses.
IN_PLACE = {torch.ops.aten.addmm_: product_flops, torch.ops.aten.baddbmm_: product_flops}


def make(name: str, preset: str) -> tuple[Method, Recipe]:
    info = find_method(name)
    settings = resolve_settings(info, preset, ())
    recipe = settings.train
    task = Task(vocab_size=VOCAB, context=recipe.context, pass_tokens=recipe.micro_batch_tokens)
    return info.load()(settings.model, task), recipe


def take_step(network: Network, optimisers: Optimisers, recipe: Recipe) -> None:
    tokens_BT = torch.randint(VOCAB, (recipe.micro_batch_sequences, recipe.context))
    leaves = network.begin_step()
    micros = [torch.autograd.grad(network.loss(tokens_BT, tokens_BT), leaves) for _ in range(recipe.num_micro_batches)]
    network.finish_step([sum(parts[1:], parts[0]) for parts in zip(*micros, strict=True)])
    optimisers.step()


def numbers_under_adamw(network: Network, groups: list[ParamGroup], recipe: Recipe) -> int:
    return sum(
        network.get_parameter(name).numel()
        for group in groups
        for name in group.names
        if group.role != "matrix" or recipe.matrix_optimiser == "adamw"
    )


@pytest.mark.parametrize(("name", "preset"), TINY)
def test_operations_of_a_step_are_those_that_torch_counts(name: str, preset: str) -> None:
    method, recipe = make(name, preset)
    network = method.build()
    groups = list(method.param_groups(network))
    optimisers = build_optimisers(network, groups, recipe)
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        for _ in range(method.cost_period):
            take_step(network, optimisers, recipe)
    products = counter.get_total_flops() / method.cost_period
    elementwise = 12 * numbers_under_adamw(network, groups, recipe)
    declared = method.flops_per_step(recipe.batch_tokens) + optimiser_flops(network, groups, recipe)
    assert declared == pytest.approx(products + elementwise, rel=1e-9)
    # what the formula only estimates is a small part of a step
    assert elementwise < 0.001 * declared


def test_adamw_takes_about_twelve_operations_a_number() -> None:
    class Elementwise(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if isinstance(args[0], Tensor) and args[0].numel() > 1:  # not the counter of steps
                name = func.overloadpacket.__name__
                self.count += ELEMENTWISE.get(name, 0) * args[0].numel()
            return func(*args, **(kwargs or {}))

    parameter = torch.nn.Parameter(torch.ones(100))
    parameter.grad = torch.ones(100)
    optimiser = torch.optim.AdamW([parameter], foreach=False, fused=False)
    with Elementwise() as counter:
        optimiser.step()
    assert math.isclose(counter.count / 100, 12, rel_tol=0.25)
