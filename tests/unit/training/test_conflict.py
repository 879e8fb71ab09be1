"""Pulls at shared matrices add up to their gradients; cosines by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from harness.method import Task
from harness.nn.network import Network
from harness.registry import find_method
from harness.settings import resolve_settings
from harness.training.conflict import conflicts, measure_pulls


def network_of(method: str, *overrides: str) -> Network:
    info = find_method(method)
    torch.manual_seed(0)
    plugin = info.load()(resolve_settings(info, "tiny", overrides).model, Task(vocab_size=64, context=16))
    network = plugin.build()
    with torch.no_grad():
        for parameter in network.parameters():  # output matrices that start at zero pull at nothing before them
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def batch(seed: int) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(0, 64, (2, 17), generator=torch.Generator().manual_seed(seed))
    return tokens[:, :-1], tokens[:, 1:]


@pytest.mark.parametrize(("method", "override"), [("recursive", "loops=3"), ("legendre", "num_layers=8")])
def test_the_pulls_add_up_to_the_gradient(method: str, override: str) -> None:
    network, batches = network_of(method, override), [batch(0), batch(1)]
    pulls = measure_pulls(network, batches)
    for tokens, targets in batches:
        network.loss(tokens, targets).backward()
    parameters = dict(network.named_parameters())
    assert pulls
    for name, found in pulls.items():
        stem, _, order = name.rpartition(".")
        gradient = parameters[stem].grad[int(order)] if order.isdigit() else parameters[name].grad
        torch.testing.assert_close(torch.stack(found).sum(0), gradient, rtol=1e-4, atol=1e-6)


def test_what_is_used_once_is_left_out_and_grads_are_cleared() -> None:
    network = network_of("dense")
    assert measure_pulls(network, [batch(0)]) == {}
    assert all(parameter.grad is None for parameter in network.parameters())
    looped = measure_pulls(network_of("recursive", "loops=2"), [batch(0)])
    assert {len(found) for found in looped.values()} == {2}


def test_cosines_by_hand() -> None:
    right, up, left = (torch.tensor([[x, y]]) for x, y in ((2.0, 0.0), (0.0, 3.0), (-1.0, 0.0)))
    (found,) = conflicts({"w": [right, up, left]})
    assert (found.num_uses, found.mean_cosine, found.least_cosine) == (3, pytest.approx(-1 / 3), -1.0)
    assert found.opposed_share == pytest.approx(1 / 3)
    (silent,) = conflicts({"w": [right, 0 * up]})
    assert math.isnan(silent.mean_cosine)
