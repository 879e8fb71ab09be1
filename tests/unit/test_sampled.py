"""Random windows of a split: means, sampling errors and their agreement with the score of everything."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from test_evaluate import Bigram, FakeStream

import harness.sampled as sampled
from harness.errors import RunError, UsageError
from harness.sample_views import parse_samples
from harness.sampled import score_samples
from harness.scoring import EvalMode, Sampling, ScoreRequest


def make_stream(num_tokens: int) -> FakeStream:
    return FakeStream(np.arange(num_tokens) % 2, num_bytes=num_tokens)


def test_a_split_without_spread_has_no_sampling_error() -> None:
    # Tokens alternate 0, 1; the model says the other token with 3/4, so every target costs ln(4/3).
    network = Bigram(torch.log(torch.tensor([[0.25, 0.75], [0.75, 0.25]])))
    found = score_samples(network, make_stream(50), Sampling(num_batches=3, batch_windows=2), context=7)
    assert found["loss_nats"] == pytest.approx(math.log(4 / 3), abs=1e-7)
    assert found["loss_nats_se"] == pytest.approx(0, abs=1e-9)
    assert found["token_accuracy"] == 1 and found["token_accuracy_se"] == 0
    assert found["num_tokens"] == 3 * 2 * 7


def test_the_error_is_the_deviation_of_batch_means_over_their_root() -> None:
    # After 0 comes 1, always said with 3/4; after 1 comes 0, said with 1/4: a window of one target costs either.
    network = Bigram(torch.log(torch.tensor([[0.25, 0.75], [0.25, 0.75]])))
    sampling = Sampling(num_batches=8, batch_windows=1, seed=3)
    found = score_samples(network, make_stream(200), sampling, context=1)
    starts = np.random.Generator(np.random.PCG64(3)).integers(199, size=(8, 1))[:, 0]
    losses = np.where(starts % 2 == 0, math.log(4 / 3), math.log(4))
    assert found["loss_nats"] == pytest.approx(losses.mean(), abs=1e-6)
    assert found["loss_nats_se"] == pytest.approx(losses.std(ddof=1) / math.sqrt(8), abs=1e-6)
    assert found["token_accuracy"] == pytest.approx((starts % 2 == 0).mean())


def test_the_last_window_ends_with_the_split_and_the_mode_is_left() -> None:
    network = Bigram(torch.zeros(2, 2)).train()
    assert (
        score_samples(network, make_stream(8), Sampling(num_batches=2, batch_windows=1), context=7)["num_tokens"] == 14
    )
    assert network.training


def test_pieces_of_a_batch_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Bigram(torch.log(torch.tensor([[0.25, 0.75], [0.1, 0.9]])))
    sampling = Sampling(num_batches=4, batch_windows=5)
    whole = score_samples(network, make_stream(200), sampling, context=3)
    monkeypatch.setattr(sampled, "_PIECE_TOKENS", 6)
    assert score_samples(network, make_stream(200), sampling, context=3) == pytest.approx(whole, rel=1e-12)


def test_wrong_input_is_refused() -> None:
    network = Bigram(torch.zeros(2, 2))
    with pytest.raises(UsageError, match="8 tokens is too short for random windows of 8"):
        score_samples(network, make_stream(8), Sampling(num_batches=2, batch_windows=1), context=8)
    with pytest.raises(RunError, match="not finite"):
        broken = Bigram(torch.full((2, 2), math.nan))
        score_samples(broken, make_stream(9), Sampling(num_batches=2, batch_windows=1), context=3)
    for text in ("20", "x8", "20x", "-1x8", "a20x8", "20x8x2"):
        with pytest.raises(UsageError, match="write it as batches x windows"):
            parse_samples(text, 0)
    with pytest.raises(UsageError, match="give 2 batches or more"):
        parse_samples("1x8", 0)


def test_a_request_crosses_as_json() -> None:
    request = ScoreRequest(
        artifact="a", data="d", eval_mode=EvalMode(context=4, stride=2), sampling=parse_samples("20x8", 5)
    )
    assert ScoreRequest.from_json(request.to_json()) == request
    assert request.sampling == Sampling(num_batches=20, batch_windows=8, seed=5)
