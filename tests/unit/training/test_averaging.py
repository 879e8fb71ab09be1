from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from harness.training.averaging import Averages


class Scalar(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, dtype=dtype))
        self.frozen = nn.Parameter(torch.full((2,), 9.0), requires_grad=False)

    def set(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)


def averaged(averages: Averages, network: Scalar, values: list[float]) -> float:
    for value in values:
        network.set(value)
        averages.update()
    averages.copy_to(network)
    return float(network.weight.detach()[0])


def test_exponential_average_by_hand() -> None:
    network = Scalar()
    # d = 0.5: (0.25 * 1 + 0.5 * 2 + 1 * 4) / 1.75 = 3
    assert averaged(Averages(network, ema_decay=0.5), network, [1.0, 2.0, 4.0]) == pytest.approx(3.0)


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_exponential_average_is_the_normalised_sum(decay: float) -> None:
    values = [float(i * i % 17) for i in range(1, 60)]
    weights = [decay ** (len(values) - i) for i in range(1, len(values) + 1)]
    expected = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    network = Scalar()
    assert averaged(Averages(network, ema_decay=decay), network, values) == pytest.approx(expected, rel=1e-5)


def test_uniform_average_by_hand() -> None:
    network = Scalar()
    assert averaged(Averages(network), network, [1.0, 2.0, 6.0]) == pytest.approx(3.0)


def test_without_an_average_the_weights_stay() -> None:
    network = Scalar()
    network.set(4.0)
    Averages(network).copy_to(network)
    assert network.weight.tolist() == [4.0, 4.0]


def test_applied_puts_the_weights_back_also_after_an_error() -> None:
    network = Scalar()
    averages = Averages(network, ema_decay=0.5)
    for value in (1.0, 4.0):
        network.set(value)
        averages.update()
    with pytest.raises(KeyError), averages.applied(network):
        assert network.weight.tolist()[0] == 3.0  # (0.5 * 1 + 1 * 4) / 1.5
        raise KeyError
    assert network.weight.tolist() == [4.0, 4.0]
    assert network.frozen.tolist() == [9.0, 9.0]


def test_half_precision_weights_are_averaged_in_float32() -> None:
    network = Scalar(torch.bfloat16)
    averages = Averages(network, ema_decay=0.999)
    for step in range(1, 200):
        network.set(1.0 if step % 2 else 1.0078125)
        averages.update()
    state = averages.state_dict()["averages"]["weight"]
    assert state.dtype == torch.float32
    assert float(state[0]) == pytest.approx(1.0039, abs=1e-4)


@pytest.mark.parametrize("options", [{"ema_decay": 0.9}, {}])
def test_a_restored_average_goes_on_bit_for_bit(options: dict[str, float]) -> None:
    def run(network: Scalar, averages: Averages, steps: range) -> None:
        for step in steps:
            network.set(1 / step)
            averages.update()

    straight = Scalar()
    averages = Averages(straight, **options)
    run(straight, averages, range(1, 4))
    file = io.BytesIO()
    torch.save(averages.state_dict(), file)
    run(straight, averages, range(4, 11))

    file.seek(0)
    resumed = Scalar()
    others = Averages(resumed, **options)
    run(resumed, others, range(1, 9))  # something to be replaced
    saved = torch.load(file, weights_only=True)
    others.load_state_dict(saved)
    run(resumed, others, range(4, 11))
    averages.copy_to(straight)
    others.copy_to(resumed)
    assert torch.equal(straight.weight, resumed.weight)
    assert others.num_averaged == averages.num_averaged
    file.seek(0)
    for name, average in torch.load(file, weights_only=True)["averages"].items():
        assert torch.equal(saved["averages"][name], average)  # what was loaded is not written to
