"""Scoring against a loop over windows one at a time, and the memory that it takes; a table of ratios at the end."""

from __future__ import annotations

import math
import multiprocessing
import resource
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain_pairs import METHODS, make_pair
from pytest_benchmark.fixture import BenchmarkFixture
from side_by_side import Pairs, alternate

from harness.data.shards import TokenData, prepare
from harness.evaluate import iter_windows, score_network
from harness.nn.network import Network
from harness.scoring import EvalMode

VOCAB = 1024
MODE = EvalMode(context=256, stride=128)
NUM_TARGETS, NUM_ROUNDS = 8_192, 7


@pytest.fixture(autouse=True)
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(name: str) -> tuple[Network, TokenData]:
    return make_pair(name, "small", "float32", VOCAB).network.eval(), prepare("synthetic")


@torch.no_grad()
def score_one_by_one(network: Network, data: TokenData, num_targets: int) -> tuple[float, int]:
    """Return summed nats and right answers of the first targets, as the usual loop for perplexity does."""
    tokens = torch.from_numpy(data.tune.read(0, num_targets).astype("int64"))
    tokens = torch.cat((torch.tensor([data.tokenizer.start_id]), tokens))
    nats, num_correct = [], 0
    for window in iter_windows(num_targets, MODE):
        stop = window.start + window.length
        logits = network(tokens[None, window.start : stop])[0, -window.scored :]
        targets = tokens[stop + 1 - window.scored : stop + 1]
        nats.append(F.cross_entropy(logits, targets, reduction="sum").item())
        num_correct += int((logits.argmax(-1) == targets).sum())
    return math.fsum(nats), num_correct


@pytest.mark.parametrize("name", METHODS)
def test_scoring(benchmark: BenchmarkFixture, show_ratio: Callable[[str, Pairs], None], name: str) -> None:
    network, data = make(name)
    num_targets, num_rounds = (1_024, 2) if benchmark.disabled else (NUM_TARGETS, NUM_ROUNDS)

    def ours() -> dict[str, Any]:
        return score_network(network, data, data.tune, MODE, max_targets=num_targets).metrics()

    def one_by_one() -> tuple[float, int]:
        return score_one_by_one(network, data, num_targets)

    nats, num_correct = one_by_one()
    assert ours()["loss_nats"] == pytest.approx(nats / num_targets, abs=1e-6)
    assert ours()["token_accuracy"] == num_correct / num_targets
    pairs = benchmark.pedantic(alternate, args=(one_by_one, ours, num_rounds), rounds=1)
    show_ratio(f"{name}/small: scoring window by window / ours, at least 1.5", pairs)


def peak_megabytes(num_targets: int) -> float:
    """Return the peak memory of this process after scoring so many targets."""
    torch.set_num_threads(1)
    network, data = make("dense")
    score_network(network, data, data.tune, MODE, max_targets=num_targets)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def peak_of_a_new_process(num_targets: int) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_megabytes, (num_targets,))


def test_memory_of_scoring(benchmark: BenchmarkFixture, show_line: Callable[[str], None]) -> None:
    if benchmark.disabled:
        pytest.skip("new processes; tests/unit/test_evaluate.py counts what is allocated")
    few, many = benchmark.pedantic(lambda: [peak_of_a_new_process(n) for n in (4_096, 8 * 4_096)], rounds=1)
    show_line(f"dense/small: peak memory of scoring 4,096 targets {few:.0f} MB, eight times as many {many:.0f} MB")
