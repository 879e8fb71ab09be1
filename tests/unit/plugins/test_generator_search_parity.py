"""Expressions that say what another method does give its logits, with its numbers."""

from __future__ import annotations

import pytest
import torch

from harness.method import Method, Task
from harness.nn.network import Network
from harness.registry import find_method
from harness.settings import resolve_settings

TASK = Task(vocab_size=65, context=16)
LAYERS = 4
ROLES = {
    "query": "attention",
    "key": "attention",
    "value": "attention",
    "output": "attention",
    "up": "mlp",
    "down": "mlp",
}


def make(name: str, *overrides: str) -> tuple[Method, Network]:
    info = find_method(name)
    settings = resolve_settings(info, "tiny", [f"num_layers={LAYERS}", "embedding_rank=0", "skips=false", *overrides])
    method = info.load()(settings.model, TASK)
    return method, method.build().eval()


def low_rank(mine: dict[str, torch.Tensor]) -> tuple[Network, dict[str, torch.Tensor]]:
    _, network = make("low_rank", "init=random", "ranks={query=3, key=3, value=3, output=3, up=3, down=3}")
    return network, {
        f"blocks.{layer}.{part}.{role}.{theirs}": mine[f"generators.{role}.root.parts.0.{ours}"][layer]
        for role, part in ROLES.items()
        for layer in range(LAYERS)
        for theirs, ours in (("u", "left"), ("v", "right"))
    }


def legendre(mine: dict[str, torch.Tensor]) -> tuple[Network, dict[str, torch.Tensor]]:
    _, network = make("legendre", "sandwich=false", "groups=1", "attention_degree=2", "mlp_degree=2")
    return network, {
        f"generators.0.{role}.coefficients": mine[f"generators.{role}.root.parts.0.matrix"] for role in ROLES
    }


def mpo(mine: dict[str, torch.Tensor]) -> tuple[Network, dict[str, torch.Tensor]]:
    _, network = make("mpo", "chi=5")
    cores = {name: value for name, value in network.named_parameters() if ".cores." in name}
    found = {}
    for name, core in cores.items():
        _, layer, _, role, _, site = name.split(".")
        found[name] = mine[f"generators.{role}.root.parts.0.cores.{site}"][int(layer)].view(core.shape)
    return network, found


@pytest.mark.parametrize(
    ("text", "theirs"),
    [("share(1, low_rank(3))", low_rank), ("legendre(3, free)", legendre), ("share(1, mpo(5))", mpo)],
    ids=["low_rank", "legendre", "mpo"],
)
def test_logits_are_those_of_the_other_method(text: str, theirs) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    method, network = make("generator_search", f"expression={text}", "zero_outputs=false")
    mine = dict(network.named_parameters())
    other, numbers = theirs(mine)
    places = dict(other.named_parameters())
    shared = {name: value for name, value in mine.items() if name in places}
    with torch.no_grad():
        for name, value in {**shared, **numbers}.items():
            places[name].copy_(value)
    # of their numbers only Legendre's factors of layers, which start at 1, are not ours
    assert all("layer_scales" in name for name in places.keys() - shared.keys() - numbers.keys())
    tokens = torch.randint(0, 65, (2, 16))
    with torch.no_grad():
        torch.testing.assert_close(network(tokens), other(tokens), rtol=1e-4, atol=1e-4)
    assert sum(value.numel() for value in numbers.values()) == method.settings.num_generating
