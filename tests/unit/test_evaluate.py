"""Windows, block sums and bits per byte, checked by hand and by an independent count."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from harness.errors import RunError, UsageError
from harness.evaluate import BLOCK_BYTES, iter_windows, score_network
from harness.nn.network import Network
from harness.scoring import EvalMode


@dataclass
class FakeStream:
    tokens: np.ndarray
    num_bytes: int

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.tokens[start:stop]


@dataclass
class FakeTokenizer:
    start_id: int = 0
    separator: bool = True
    begins_texts = False


class FakeData:
    """Every target stands for `bytes_per_target[index]` bytes."""

    def __init__(self, bytes_per_token: np.ndarray, separator: bool = True) -> None:
        self.bytes_per_token = bytes_per_token
        self.tokenizer = FakeTokenizer(separator=separator)

    def target_bytes(self, stream: FakeStream, start: int, stop: int) -> np.ndarray:
        return self.bytes_per_token[stream.tokens[start:stop]]


class Bigram(Network):
    """Logits that depend on the last token only, so that every window gives a target the same score."""

    def __init__(self, logits_VV: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(logits_VV)

    def forward(self, tokens_BT: Tensor, last: int | None = None) -> Tensor:
        tokens_BT = tokens_BT if last is None else tokens_BT[:, -last:]
        return self.table[tokens_BT]


class CountsContext(Network):
    """Gives probability to the right answer only where at least `needed` tokens come before it."""

    def __init__(self, needed: int) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.needed = needed

    def forward(self, tokens_BT: Tensor, last: int | None = None) -> Tensor:
        batch, length = tokens_BT.shape
        seen = torch.arange(1, length + 1) >= self.needed
        logits = torch.zeros(batch, length, 2)
        logits[:, seen, 0] = 50.0
        return (logits + self.anchor)[:, -(last or length) :]


def test_bits_per_byte_of_ten_bytes_by_hand() -> None:
    # start token 0, then 5 targets of 2 bytes each = 10 bytes; the model gives each target probability 1/4:
    # 5 * ln 4 nats = 10 bits over 10 bytes = 1 bit per byte
    stream = FakeStream(np.array([0, 1, 2, 3, 1, 2], dtype=np.uint16), num_bytes=10)
    scores = score_network(
        Bigram(torch.zeros(4, 4)), FakeData(np.array([0, 2, 2, 2])), stream, EvalMode(context=4, stride=2)
    )
    metrics = scores.metrics()
    assert metrics["val_bpb"] == pytest.approx(1.0, abs=1e-7)
    assert metrics["loss_nats"] == pytest.approx(math.log(4), abs=1e-7)
    assert metrics["perplexity"] == pytest.approx(4.0, abs=1e-6)
    assert (metrics["num_tokens"], metrics["num_bytes"], metrics["partial"]) == (5, 10, False)


def test_text_without_separators_is_scored_from_its_first_byte() -> None:
    # the same ten bytes, without a start token among the tokens: it is put before them, and is no target
    stream = FakeStream(np.array([1, 2, 3, 1, 2], dtype=np.uint16), num_bytes=10)
    data = FakeData(np.array([0, 2, 2, 2]), separator=False)
    metrics = score_network(Bigram(torch.zeros(4, 4)), data, stream, EvalMode(context=4, stride=2)).metrics()
    assert (metrics["num_tokens"], metrics["num_bytes"]) == (5, 10)
    assert metrics["val_bpb"] == pytest.approx(1.0, abs=1e-7)


def test_skewed_model_by_hand() -> None:
    # targets 1, 1, 0 after tokens 0, 1, 1 with logits (0, ln 3): p(1) = 3/4, p(0) = 1/4
    # nats = 2 ln(4/3) + ln 4; two of three answers are right
    stream = FakeStream(np.array([0, 1, 1, 0], dtype=np.uint16), num_bytes=3)
    table = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    metrics = score_network(Bigram(table), FakeData(np.array([1, 1])), stream, EvalMode(context=8, stride=8)).metrics()
    assert metrics["total_nats"] == pytest.approx(2 * math.log(4 / 3) + math.log(4), abs=1e-6)
    assert metrics["token_accuracy"] == pytest.approx(2 / 3)


@given(
    num_targets=st.integers(1, 400),
    context=st.integers(1, 40),
    data=st.data(),
    mode=st.sampled_from(["sliding"]),
)
def test_sliding_scores_every_target_once_with_context(num_targets: int, context: int, data, mode: str) -> None:
    stride = data.draw(st.integers(1, context))
    counts = np.zeros(num_targets + 1, dtype=int)
    for window in iter_windows(num_targets, EvalMode(mode=mode, context=context, stride=stride)):
        stop = window.start + window.length + 1
        assert window.start >= 0
        assert stop <= num_targets + 1
        assert 1 <= window.scored <= window.length <= context
        counts[stop - window.scored : stop] += 1
        first_scored = stop - window.scored
        if first_scored > context:
            assert first_scored - window.start - 1 >= context - stride
    assert counts[0] == 0
    assert (counts[1:] == 1).all()


@pytest.mark.parametrize(
    ("total", "context", "stride", "windows", "scored"),
    # origin: coverage of the published sliding evaluation, measured on its code
    [(45_568, 256, 64, 712, 45_760), (45_568, 256, 256, 178, 45_568)],
)
def test_challenge_sliding_repeats_the_tail(total: int, context: int, stride: int, windows: int, scored: int) -> None:
    laid = list(iter_windows(total, EvalMode(mode="challenge-sliding", context=context, stride=stride)))
    assert len(laid) == windows
    assert sum(window.scored for window in laid) == scored


def test_challenge_mode_drops_the_tail() -> None:
    laid = list(iter_windows(1000, EvalMode(mode="challenge", context=256, stride=256)))
    assert [window.start for window in laid] == [0, 256, 512]
    assert all(window.scored == 256 for window in laid)


@given(st.integers(1, 400), st.integers(2, 40))
def test_disjoint_windows_share_no_token_and_drop_the_tail(num_tokens: int, context: int) -> None:
    laid = list(iter_windows(num_tokens - 1, EvalMode(mode="disjoint", context=context, stride=context)))
    assert [window.start for window in laid] == list(range(0, num_tokens - context + 1, context))
    assert all(window.length == window.scored == context - 1 for window in laid)


def test_blocks_count_the_bytes_between_disjoint_windows() -> None:
    rng = np.random.default_rng(2)
    tokens = rng.integers(0, 7, 5000).astype(np.uint16)
    sizes = np.array([1, 1, 2, 3, 4, 5, 9])
    stream = FakeStream(tokens, num_bytes=int(sizes[tokens[1:]].sum()))
    mode = EvalMode(mode="disjoint", context=64, stride=64)
    scores = score_network(Bigram(torch.zeros(7, 7)), FakeData(sizes), stream, mode)
    is_scored = (np.arange(5000) % 64 != 0) & (np.arange(5000) < 5000 // 64 * 64)
    starts = np.concatenate(([0], np.cumsum(sizes[tokens[1:]])))
    block = np.minimum(starts[:-1] // BLOCK_BYTES, len(scores.block_tokens) - 1)[is_scored[1:]]
    np.testing.assert_array_equal(scores.block_tokens, np.bincount(block))
    assert scores.block_bytes.sum() == sizes[tokens[is_scored]].sum()
    assert scores.metrics()["perplexity"] == pytest.approx(7)


def test_blocks_add_up_and_are_counted_where_text_begins() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 7, 5000).astype(np.uint16)
    sizes = np.array([0, 1, 2, 3, 4, 5, 9])
    stream = FakeStream(tokens, num_bytes=int(sizes[tokens[1:]].sum()))
    table = torch.from_numpy(rng.standard_normal((7, 7))).float()
    scores = score_network(Bigram(table), FakeData(sizes), stream, EvalMode(context=64, stride=16))
    starts = np.concatenate(([0], np.cumsum(sizes[tokens[1:]])))[:-1]
    log_p = torch.log_softmax(table, -1).numpy()[tokens[:-1], tokens[1:]]
    expected = np.bincount(np.minimum(starts // BLOCK_BYTES, len(scores.block_nats) - 1), weights=-log_p)
    np.testing.assert_allclose(scores.block_nats, expected, rtol=1e-5)
    assert scores.block_bytes.sum() == stream.num_bytes
    assert scores.block_tokens.sum() == 4999


def test_challenge_sliding_counts_the_tail_again() -> None:
    tokens = np.arange(129, dtype=np.uint16) % 5
    stream = FakeStream(tokens, num_bytes=128)
    mode = EvalMode(mode="challenge-sliding", context=32, stride=8)
    metrics = score_network(Bigram(torch.zeros(5, 5)), FakeData(np.ones(5, dtype=int)), stream, mode).metrics()
    # 128 targets, and the last 8 again by each of the 3 windows that start after position 96
    assert metrics["num_tokens"] == 128 + 3 * 8
    assert metrics["val_bpb"] == pytest.approx(math.log2(5), rel=1e-6)


def test_smaller_stride_gives_more_context() -> None:
    stream = FakeStream(np.zeros(65, dtype=np.uint16), num_bytes=64)
    losses = [
        score_network(
            CountsContext(9), FakeData(np.ones(2, dtype=int)), stream, EvalMode(context=16, stride=stride)
        ).metrics()["loss_nats"]
        for stride in (16, 8)
    ]
    # stride 16: the first 8 of every 16 targets lack context; stride 8: only the first 8 of all
    assert losses[0] == pytest.approx(math.log(2) / 2, abs=1e-6)
    assert losses[1] == pytest.approx(math.log(2) * 8 / 64, abs=1e-6)


def test_partial_is_said() -> None:
    stream = FakeStream(np.zeros(65, dtype=np.uint16), num_bytes=64)
    scores = score_network(
        Bigram(torch.zeros(2, 2)),
        FakeData(np.ones(2, dtype=int)),
        stream,
        EvalMode(context=8, stride=8),
        max_targets=16,
    )
    assert scores.metrics()["partial"] is True
    assert scores.metrics()["num_tokens"] == 16


def test_logits_that_are_not_finite_are_an_error() -> None:
    stream = FakeStream(np.zeros(9, dtype=np.uint16), num_bytes=8)
    network = Bigram(torch.full((2, 2), float("nan")))
    with pytest.raises(RunError, match="not finite"):
        score_network(network, FakeData(np.ones(2, dtype=int)), stream, EvalMode(context=4, stride=4))


def test_split_too_short_for_a_challenge_window() -> None:
    stream = FakeStream(np.zeros(9, dtype=np.uint16), num_bytes=8)
    mode = EvalMode(mode="challenge", context=16, stride=16)
    with pytest.raises(UsageError, match="too short"):
        score_network(Bigram(torch.zeros(2, 2)), FakeData(np.ones(2, dtype=int)), stream, mode)


class Hoarder(Bigram):
    """Keeps all the logits that it ever gave."""

    def __init__(self, logits_VV: Tensor) -> None:
        super().__init__(logits_VV)
        self.hoard: list[Tensor] = []

    def forward(self, tokens_BT: Tensor, last: int | None = None) -> Tensor:
        self.hoard.append(super().forward(tokens_BT, last))
        return self.hoard[-1]


def peak_bytes_of_scoring(network_class: type[Bigram], num_tokens: int) -> int:
    """The most that numpy and torch hold beyond the corpus and the network, each counted in a run of its own."""
    tokens = np.random.default_rng(0).integers(64, size=num_tokens, dtype=np.uint16)
    stream, data = FakeStream(tokens, num_bytes=num_tokens), FakeData(np.ones(64, dtype=int))

    def score() -> None:
        score_network(network_class(torch.zeros(64, 64)), data, stream, EvalMode(context=64, stride=32))

    tracemalloc.start()
    score()
    numpy_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        score()
    assert profiler.profiler is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return numpy_peak + int(held.max())


def test_memory_does_not_grow_with_the_corpus() -> None:
    # four batches of windows, and 32; block sums take 32 bytes for each 4,096 of text
    few, many = (peak_bytes_of_scoring(Bigram, num_tokens) for num_tokens in (4_096, 8 * 4_096))
    assert many < 1.02 * few
    hoarded = peak_bytes_of_scoring(Hoarder, 8 * 4_096)
    assert hoarded > 4 * few, "the measure sees what is kept"
