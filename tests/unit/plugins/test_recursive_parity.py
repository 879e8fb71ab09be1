"""Loss, logits and gradients of the published Frugendorff code, on a tiny configuration, in float32."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.method import Task
from methods.recursive.method import Recursive
from methods.recursive.network import RecursiveTransformer
from methods.recursive.settings import RecursiveSettings

TOLERANCE = 1e-5
NAMES = {
    "skip_weights": "body.skip_weights",
    "loop_pos": "body.loop_vectors",
    "tok_emb.weight": "embedding.table",
    "bigram.scale": "condition.scale",
    "bigram.embed.weight": "condition.table",
    "bigram.proj.weight": "condition.projection.weight",
    "smear.gate": "smear.gate",
    "ve_shared.scale": "value_embedding.scale",
    "ve_shared.embed.weight": "value_embedding.table",
    "ve_shared.proj.weight": "value_embedding.projection.weight",
}
BLOCK_NAMES = {
    "attn_scale": "attention_scale",
    "mlp_scale": "mlp_scale",
    "resid_mix": "residual_mix",
    "attn.q_gain": "attention.query_gain",
    "attn.c_q.weight": "attention.query.weight",
    "attn.c_k.weight": "attention.key.weight",
    "attn.c_v.weight": "attention.value.weight",
    "attn.proj.weight": "attention.output.weight",
    "mlp.fc.weight": "mlp.up.weight",
    "mlp.proj.weight": "mlp.down.weight",
}


def locate(name: str, value_blocks: list[int]) -> str:
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", name):
        return f"blocks.{match[1]}.{BLOCK_NAMES[match[2]]}"
    if match := re.fullmatch(r"ve_layer_scales\.(\d)", name):
        return f"blocks.{value_blocks[int(match[1])]}.attention.value_scale"
    return NAMES[name]


class Case:
    """The published numbers, and our network with the published weights in it."""

    def __init__(self, folder: Path) -> None:
        upstream = json.loads((folder / "frugendorff_4x2.json").read_text())
        self.arrays = dict(np.load(folder / "frugendorff_4x2.npz"))
        self.value_blocks = [int(block) for block in upstream["ve_layers"].split(",")]
        settings = RecursiveSettings(
            width=upstream["model_dim"],
            num_heads=upstream["num_heads"],
            num_kv_heads=upstream["num_kv_heads"],
            mlp_width=upstream["mlp_mult"] * upstream["model_dim"],
            blocks=upstream["num_layers"],
            loops=upstream["num_loops"],
            skips=True,
            rope_width=upstream["rope_dims"],
            hash_buckets=upstream["bigram_vocab_size"],
            hash_width=upstream["bigram_dim"],
            value_blocks=self.value_blocks,
            value_width=upstream["ve_dim"],
            exclude_own_last=upstream["xsa_last_n"],
        )
        self.network: RecursiveTransformer = Recursive(
            settings, Task(vocab_size=upstream["vocab_size"], context=24)
        ).build()
        parameters = dict(self.network.named_parameters())
        weights = self.tensors("state_dict")
        assert sorted(weights) == sorted(parameters)
        for name, values in weights.items():
            assert parameters[name].shape == values.shape, name
            parameters[name].data.copy_(values)

    def tensors(self, kind: str) -> dict[str, torch.Tensor]:
        return {
            locate(name.removeprefix(f"{kind}/"), self.value_blocks): torch.from_numpy(values)
            for name, values in self.arrays.items()
            if name.startswith(f"{kind}/")
        }


@pytest.fixture
def case(shared_dir: Path) -> Case:
    return Case(shared_dir / "fixtures")


def test_logits_are_the_published_ones(case: Case) -> None:
    with torch.no_grad():
        logits = case.network(torch.from_numpy(case.arrays["x"]))
    torch.testing.assert_close(logits, torch.from_numpy(case.arrays["logits"]), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("in_step", [False, True], ids=["autograd", "step"])
def test_loss_and_gradients_are_the_published_ones(case: Case, in_step: bool) -> None:
    network, tokens, targets = case.network, *(torch.from_numpy(case.arrays[name]) for name in "xy")
    if in_step:
        leaves = network.begin_step()
        loss = network.loss(tokens, targets)
        network.finish_step(torch.autograd.grad(loss, leaves))
    else:
        loss = network.loss(tokens, targets)
        loss.backward()
    assert loss.item() == pytest.approx(float(case.arrays["loss"]), abs=TOLERANCE)
    gradients = case.tensors("grads")
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(
            parameter.grad, gradients[name], rtol=0, atol=TOLERANCE, msg=lambda text, n=name: f"{n}: {text}"
        )
