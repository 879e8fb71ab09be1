import math

import numpy as np
import pytest
import torch
from torch import nn

from harness.nn.config import BackboneConfig
from harness.nn.inits import normal_fan_in
from harness.nn.layers import MLP, Embedding, Linear, RMSNorm, Rotary, dense_factory, sinusoidal_positions

SHAPE = {"width": 8, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "mlp_width": 12}


def test_rms_norm_with_a_gain() -> None:
    norm = RMSNorm(2)
    assert norm.gain is not None
    nn.init.constant_(norm.gain, 3.0)
    torch.testing.assert_close(norm(torch.tensor([5.0, 5.0])), torch.tensor([3.0, 3.0]))


def test_rotary_by_hand() -> None:
    # Two features make one pair of frequency 1: position t turns it by t radians.
    rotary = Rotary(context=3, rotated=2, base=10_000.0)
    x = torch.tensor([2.0, 5.0]).expand(1, 3, 1, 2)
    sine, cosine = math.sin(2), math.cos(2)
    expected = torch.tensor([2 * cosine + 5 * sine, 5 * cosine - 2 * sine])
    torch.testing.assert_close(rotary(x)[0, 2, 0], expected)
    torch.testing.assert_close(rotary(x)[0, 0, 0], x[0, 0, 0])


def test_rotary_pairs_halves_and_lowers_the_frequency() -> None:
    # Features 1 and 3 of four are the second pair, of frequency 100^(-2/4) = 0.1.
    rotary = Rotary(context=2, rotated=4, base=100.0)
    x = torch.tensor([0.0, 1.0, 0.0, 0.0]).expand(1, 2, 1, 4)
    expected = torch.tensor([0.0, math.cos(0.1), 0.0, -math.sin(0.1)])
    torch.testing.assert_close(rotary(x)[0, 1, 0], expected)


def test_rotated_products_depend_on_distance_only() -> None:
    torch.manual_seed(0)
    rotary = Rotary(context=9, rotated=8, base=10_000.0)
    q, k = (rotary(torch.randn(8).expand(1, 9, 1, 8))[0, :, 0] for _ in range(2))
    torch.testing.assert_close(q[5] @ k[3], q[8] @ k[6])


def test_partial_rotary_leaves_the_rest() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 5, 2, 6)
    part = Rotary(context=5, rotated=4, base=10_000.0)(x)
    torch.testing.assert_close(part[..., 4:], x[..., 4:])
    torch.testing.assert_close(part[..., :4], Rotary(context=5, rotated=4, base=10_000.0)(x[..., :4]))


def test_sinusoidal_positions_by_hand() -> None:
    # Width 4: frequencies 1 and 10000^(-1/2) = 0.01.
    row = [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)]
    torch.testing.assert_close(sinusoidal_positions(3, 4)[2], torch.tensor(row))
    assert sinusoidal_positions(2, 5).shape == (2, 5)


@pytest.mark.parametrize("activation", ["relu", "relu2", "swiglu"])
def test_mlp_against_numpy(activation: str) -> None:
    torch.manual_seed(0)
    config = BackboneConfig(**SHAPE, activation=activation)
    mlp = MLP(config, dense_factory(config, normal_fan_in, zero_outputs=False), depth=0)
    x = torch.randn(3, 8)
    up = x.numpy() @ mlp.up.weight.detach().numpy().T
    if activation == "swiglu":
        gate = x.numpy() @ mlp.gate.weight.detach().numpy().T
        inner = gate / (1 + np.exp(-gate)) * up
    else:
        inner = np.maximum(up, 0) ** (2 if activation == "relu2" else 1)
    expected = inner @ mlp.down.weight.detach().numpy().T
    np.testing.assert_allclose(mlp(x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rank", [0, 3])
def test_embedding_and_its_transpose_use_the_same_matrix(rank: int) -> None:
    torch.manual_seed(0)
    embedding = Embedding(BackboneConfig(**SHAPE, embedding_rank=rank, embedding_std=1.0), vocab_size=5)
    dense = embedding.table
    if rank:
        assert embedding.projection is not None
        dense = embedding.table @ embedding.projection.weight.T
    x = torch.randn(2, 8)
    torch.testing.assert_close(embedding(torch.tensor([[4, 0]])), dense[[4, 0]][None])
    torch.testing.assert_close(embedding.unembed(x), x @ dense.T)


def test_dense_factory_zeroes_what_writes_to_the_stream() -> None:
    config = BackboneConfig(**SHAPE, biases=["output"])
    make = dense_factory(config, normal_fan_in)
    output, up = make("output", 0, 8, 8), make("up", 0, 8, 12)
    assert isinstance(output, Linear)
    assert isinstance(up, Linear)
    assert output.weight.abs().max() == 0
    assert output.bias is not None
    assert up.weight.abs().max() > 0
    assert up.bias is None
