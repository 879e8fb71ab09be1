"""Loss and gradients of the published implementations, on their tiny configurations, in float32."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.dense.method import Dense, DenseSettings
from harness.method import Method, Task
from harness.nn.network import Network
from methods.legendre.method import Legendre, LegendreSettings

TOLERANCE = 1e-5
TASK = Task(vocab_size=64, context=24)
SHAPE = {"width": 32, "num_heads": 4, "num_kv_heads": 2}

# From a published name to ours, and to the index of the published tensor in it (None: it is all of it).
Locate = Callable[[str], tuple[str, int | None]]

BLOCK_NAMES = {
    "attn_scale": "attention_scale",
    "mlp_scale": "mlp_scale",
    "resid_mix": "residual_mix",
    "q_gain": "attention.query_gain",
    "attn.q_gain": "attention.query_gain",
    "attn.c_q.weight": "attention.query.weight",
    "attn.c_k.weight": "attention.key.weight",
    "attn.c_v.weight": "attention.value.weight",
    "attn.proj.weight": "attention.output.weight",
    "mlp.fc.weight": "mlp.up.weight",
    "mlp.proj.weight": "mlp.down.weight",
    "W_q": "attention.query.weight",
    "W_k": "attention.key.weight",
    "W_v": "attention.value.weight",
    "W_o": "attention.output.weight",
    "W_up": "mlp.up.weight",
    "W_down": "mlp.down.weight",
}
ROLES = {"q": "query", "k": "key", "v": "value", "o": "output", "up": "up", "down": "down"}


def locate_baseline(name: str) -> tuple[str, int | None]:
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", name):
        return f"blocks.{match[1]}.{BLOCK_NAMES[match[2]]}", None
    return {"skip_weights": "body.skip_weights", "tok_emb.weight": "embedding.table"}[name], None


def locate_legendre(name: str) -> tuple[str, int | None]:
    if match := re.fullmatch(r"(first|last)_block\.(.+)", name):
        return f"blocks.{0 if match[1] == 'first' else 6}.{BLOCK_NAMES[match[2]]}", None
    if match := re.fullmatch(r"middle_blocks\.0\.(attn_scale|mlp_scale|resid_mix|q_gain)e?s\.(\d)", name):
        return f"blocks.{int(match[2]) + 1}.{BLOCK_NAMES[match[1]]}", None
    if match := re.fullmatch(r"middle_blocks\.0\.gen_(\w+)\.layer_scales", name):
        return f"generators.0.{ROLES[match[1]]}.layer_scales", None
    if match := re.fullmatch(r"middle_blocks\.0\.gen_(\w+)\.coeffs\.(\d)", name):
        return f"generators.0.{ROLES[match[1]]}.coefficients", int(match[2])
    return {
        "tok_emb.embed.weight": "embedding.table",
        "tok_emb.proj.weight": "embedding.projection.weight",
    }[name], None


def split_query_gains(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Give each row of the published (layers, heads) gains a name of its own; leave the basis out."""
    split = dict(arrays)
    for kind in ("state_dict", "grads"):
        for layer, row in enumerate(split.pop(f"{kind}/middle_blocks.0.q_gains")):
            split[f"{kind}/middle_blocks.0.q_gains.{layer}"] = row
    return {name: values for name, values in split.items() if not name.endswith(".basis")}


def named(arrays: Mapping[str, np.ndarray], kind: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{kind}/"): torch.from_numpy(values)
        for name, values in arrays.items()
        if name.startswith(f"{kind}/")
    }


def load(network: Network, tensors: Mapping[str, Tensor], locate: Locate) -> None:
    parameters = dict(network.named_parameters())
    filled = dict.fromkeys(parameters, 0)
    for name, values in tensors.items():
        ours, index = locate(name)
        target = parameters[ours].data if index is None else parameters[ours].data[index]
        assert target.shape == values.shape, name
        target.copy_(values)
        filled[ours] += values.numel()
    assert filled == {name: parameter.numel() for name, parameter in parameters.items()}


def assert_gradients(network: Network, gradients: Mapping[str, Tensor], locate: Locate) -> None:
    parameters = dict(network.named_parameters())
    for name, expected in gradients.items():
        ours, index = locate(name)
        gradient = parameters[ours].grad
        assert gradient is not None, ours
        measured = gradient if index is None else gradient[index]
        torch.testing.assert_close(measured, expected, rtol=0, atol=TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")


def make_case(kind: str, folder: Path) -> tuple[Method, dict[str, np.ndarray], Locate]:
    if kind == "baseline":
        settings = DenseSettings(**SHAPE, num_layers=5, mlp_width=64, skips=True)
        return Dense(settings, TASK), dict(np.load(folder / "baseline.npz")), locate_baseline
    legendre = LegendreSettings(**SHAPE, num_layers=7, mlp_width=96, embedding_rank=16)
    arrays = split_query_gains(np.load(folder / "legendre_g1.npz"))
    return Legendre(legendre, TASK), arrays, locate_legendre


@pytest.mark.parametrize("kind", ["baseline", "legendre"])
@pytest.mark.parametrize("in_step", [False, True], ids=["autograd", "step"])
def test_loss_and_gradients_are_the_published_ones(shared_dir: Path, kind: str, in_step: bool) -> None:
    method, arrays, locate = make_case(kind, shared_dir / "fixtures")
    network = method.build()
    load(network, named(arrays, "state_dict"), locate)
    tokens, targets = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
    if in_step:
        leaves = network.begin_step()
        loss = network.loss(tokens, targets)
        network.finish_step(torch.autograd.grad(loss, leaves))
    else:
        loss = network.loss(tokens, targets)
        loss.backward()
    assert loss.item() == pytest.approx(float(arrays["loss"]), abs=TOLERANCE)
    assert_gradients(network, named(arrays, "grads"), locate)
