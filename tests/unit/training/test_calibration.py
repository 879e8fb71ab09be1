"""Second moments of inputs, against a pass by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.data.shards import Batches, prepare
from harness.nn.inits import normal_fan_in
from harness.nn.layers import Linear
from harness.nn.network import Network
from harness.training.calibration import calibration_batches, input_moments


class Looped(Network):
    """Runs one map twice, so that its inputs are the embedded tokens and its own outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(11, 3))
        self.shared = Linear(3, 3, normal_fan_in)
        self.last = Linear(3, 11, normal_fan_in)

    def forward(self, tokens_BT: torch.Tensor, last: int | None = None) -> torch.Tensor:
        return self.last(self.shared(self.shared(self.table[tokens_BT])))


@pytest.fixture
def network() -> Looped:
    torch.manual_seed(0)
    return Looped().train()


def test_moments_are_summed_over_calls_and_means_over_tokens(network: Looped) -> None:
    batches = [torch.randint(11, (2, 5)), torch.randint(11, (1, 4))]
    moments = input_moments(network, iter(batches))
    x_NI = network.table.detach()[torch.cat([batch.flatten() for batch in batches])].double()
    weight = network.shared.weight.detach().double()
    seen = torch.cat((x_NI, x_NI @ weight.T))
    torch.testing.assert_close(moments["shared"], seen.T @ seen / 14, rtol=1e-5, atol=1e-7)
    outside = x_NI @ weight.T @ weight.T
    torch.testing.assert_close(moments["last"], outside.T @ outside / 14, rtol=1e-5, atol=1e-7)


def test_first_passes_only(network: Looped) -> None:
    batches = [torch.randint(11, (2, 5)), torch.randint(11, (1, 4))]
    moments = input_moments(network, iter(batches), passes="first")
    x_NI = network.table.detach()[torch.cat([batch.flatten() for batch in batches])].double()
    torch.testing.assert_close(moments["shared"], x_NI.T @ x_NI / 14, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(moments["last"], input_moments(network, iter(batches))["last"])


def test_batches_are_those_of_training() -> None:
    batches = Batches(
        prepare("synthetic").train, context=8, micro_batch_sequences=2, num_micro=3, order="shuffled", seed=1
    )
    found = list(calibration_batches(batches, 60))
    assert len(found) == 4  # 60 tokens in micro-batches of 16
    assert torch.equal(found[3], torch.from_numpy(batches.batch(1, 0)[0]))


def test_nothing_of_the_network_changes(network: Looped) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    input_moments(network, [torch.zeros(1, 2, dtype=torch.int64)])
    assert network.training
    assert not network.shared._forward_pre_hooks
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
