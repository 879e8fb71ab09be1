"""Tokens a second against plain PyTorch, and what the loop costs over a bare one; a table of ratios at the end.

The trainer runs with its log, clock and checkpoints; after each of its steps the other side takes one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import process_time

import pytest
import torch
from plain_pairs import METHODS, Pair, make_pair
from pytest_benchmark.fixture import BenchmarkFixture
from short_trainings import train
from side_by_side import Pairs

from harness.data.shards import prepare
from harness.nn.network import Network
from harness.training.optim import build_optimisers
from harness.training.ranks import resolve_precision

VOCAB = 1024  # of the preset's own tokenizer; the text is read as bytes
NUM_STEPS = 50


pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(autouse=True)
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def num_steps(benchmark: BenchmarkFixture) -> int:
    return 4 if benchmark.disabled else NUM_STEPS


def make(name: str) -> Pair:
    return make_pair(name, "small", resolve_precision("auto", "cpu"), VOCAB)


def train_in_turn(
    folder: Path, pair: Pair, other_step: Callable[[], object], num_steps: int
) -> tuple[Network, list[float], list[float]]:
    """Train by the trainer and let the other side take a step after each of its steps.

    Returns:
        The trained network, and the seconds of each side, without the first two rounds.
    """
    trainer_seconds, other_seconds = [], []
    mark = process_time()

    def after_step(_: int) -> None:
        nonlocal mark
        trainer_seconds.append(process_time() - mark)
        started = process_time()
        other_step()
        mark = process_time()
        other_seconds.append(mark - started)

    network = train(folder, pair.method, pair.recipe, num_steps=num_steps, after_step=after_step)
    return network, trainer_seconds[2:], other_seconds[2:]


class BareLoop:
    """The same network, optimisers, schedule and batches, and nothing else."""

    def __init__(self, pair: Pair, num_steps: int) -> None:
        torch.manual_seed(0)  # as `train` does before it builds the network
        self.network = pair.method.build().train()
        self.recipe, self.num_steps, self.next_step = pair.recipe, num_steps, 0
        self.optimisers = build_optimisers(self.network, pair.method.param_groups(self.network), pair.recipe)
        self.batches = pair.recipe.batches(prepare("synthetic").train, seed=0)

    def step(self) -> float:
        recipe, step, total = self.recipe, self.next_step, self.num_steps
        tokens, targets = self.batches.batch(step, 0)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            loss = self.network.loss(torch.from_numpy(tokens), torch.from_numpy(targets))
        loss.backward()
        self.optimisers.set_schedule(recipe.lr_curve.value(step, total), recipe.momentum_curve.value(step, total))
        self.optimisers.step()
        self.optimisers.zero_grad()
        self.next_step += 1
        return loss.item()


def test_loop_overhead(
    benchmark: BenchmarkFixture, tmp_path: Path, num_steps: int, show_ratio: Callable[[str, Pairs], None]
) -> None:
    pair = make("dense")
    bare = BareLoop(pair, num_steps)
    network, trainer_seconds, bare_seconds = benchmark.pedantic(
        train_in_turn, args=(tmp_path, pair, bare.step, num_steps), rounds=1
    )
    assert all(map(torch.equal, network.parameters(), bare.network.parameters())), "both do the same work"
    show_ratio("dense/small: trainer / bare loop, at most 1.03", Pairs(first=trainer_seconds, second=bare_seconds))


@pytest.mark.parametrize("name", METHODS)
def test_tokens_a_second(
    benchmark: BenchmarkFixture,
    tmp_path: Path,
    num_steps: int,
    show_ratio: Callable[[str, Pairs], None],
    name: str,
) -> None:
    pair = make(name)
    text = torch.from_numpy(prepare("synthetic").train.read(0, 500_000).astype("int64"))
    training = pair.plain_training(text)
    _, our_seconds, plain_seconds = benchmark.pedantic(
        train_in_turn, args=(tmp_path, pair, lambda: training.step(training.draw()), num_steps), rounds=1
    )
    label = f"{name}/small, {pair.recipe.precision}: plain PyTorch / ours, at least 1.2"
    show_ratio(label, Pairs(first=plain_seconds, second=our_seconds))
