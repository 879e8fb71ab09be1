"""The plain models are the same models: loss, gradients and optimiser steps, in float32 on the `small` presets."""

from __future__ import annotations

import pytest
import torch
from plain_pairs import METHODS, Pair, make_pair
from torch import Tensor

from harness.training.optim import build_optimisers

VOCAB = 256


def make(name: str) -> tuple[Pair, Tensor]:
    pair = make_pair(name, "small", "float32", VOCAB)
    with torch.no_grad():  # matrices that start at zero would hide what comes before them
        for parameter in pair.network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    pair.copy_weights()
    return pair, torch.randint(VOCAB, (2, pair.recipe.context + 1))


def step_ours(pair: Pair, windows: Tensor) -> Tensor:
    leaves = pair.network.begin_step()
    loss = pair.network.loss(windows[:, :-1], windows[:, 1:])
    pair.network.finish_step(torch.autograd.grad(loss, leaves))
    return loss.detach()


def stored_gradients(pair: Pair) -> dict[str, Tensor]:
    """Return the gradients of ours under the names of stored tensors, which are those of the plain model."""
    weights = {name: parameter.detach().clone() for name, parameter in pair.network.named_parameters()}
    with torch.no_grad():
        for parameter in pair.network.parameters():
            assert parameter.grad is not None
            parameter.copy_(parameter.grad)
        gradients = {name: tensor.clone() for name, tensor in pair.method.stored_tensors(pair.network)}
        for name, parameter in pair.network.named_parameters():
            parameter.copy_(weights[name])
    return gradients


@pytest.mark.parametrize("name", METHODS)
def test_they_have_the_same_numbers_of_parameters(name: str) -> None:
    pair, _ = make(name)
    assert sum(p.numel() for p in pair.plain.parameters()) == sum(p.numel() for p in pair.network.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_loss_and_gradients_are_the_same(name: str) -> None:
    pair, windows = make(name)
    loss = step_ours(pair, windows)
    plain_loss = pair.plain(windows[:, :-1], windows[:, 1:])
    plain_loss.backward()
    assert plain_loss.item() == pytest.approx(loss.item(), abs=1e-5)
    gradients = stored_gradients(pair)
    for key, parameter in pair.plain.named_parameters():
        torch.testing.assert_close(
            parameter.grad, gradients[key], rtol=1e-3, atol=1e-5, msg=lambda m, k=key: f"{k} {m}"
        )


@pytest.mark.parametrize("name", METHODS)
def test_three_steps_of_training_are_the_same(name: str) -> None:
    pair, windows = make(name)
    optimisers = build_optimisers(pair.network, pair.method.param_groups(pair.network), pair.recipe)
    training = pair.plain_training(windows.flatten())
    for lr_scale, momentum in ((1.0, 0.85), (0.5, 0.9), (0.25, 0.95)):
        loss = step_ours(pair, windows)
        optimisers.set_schedule(lr_scale, momentum)
        optimisers.step()
        # Newton-Schulz is in bfloat16, where float32 gradients that differ in rounding may give unlike numbers
        assert training.step(windows, lr_scale, momentum) == pytest.approx(loss.item(), abs=2e-3)
