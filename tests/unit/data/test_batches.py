from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from harness.data.batches import ORDERS, Batches
from harness.data.splits import Split
from harness.data.streams import SplitFacts, TokenStream
from harness.errors import DataError, UsageError


def stream_of(num_tokens: int, num_files: int = 1, split: Split = "train") -> TokenStream:
    """Tokens that are their own places, in files of unlike lengths."""
    cuts = sorted({num_tokens * index**2 // num_files**2 for index in range(1, num_files)} - {0})
    segments = np.split(np.arange(num_tokens, dtype="<u4"), cuts)
    return TokenStream(split, segments, SplitFacts(sha256="", num_tokens=num_tokens, num_bytes=0))


def make(num_tokens: int = 1_000, *, num_files: int = 1, **changes: Any) -> Batches:
    settings = {"order": "shuffled", "seed": 3, "context": 8, "micro_batch_sequences": 4, "num_micro": 2}
    return Batches(stream_of(num_tokens, num_files), **{**settings, **changes})


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("num_tokens", [0, 1, 8])
def test_text_shorter_than_a_window_is_refused(order: str, num_tokens: int) -> None:
    with pytest.raises(DataError, match=f"has {num_tokens} tokens, a window of context 8 needs 9"):
        make(num_tokens, order=order)


@pytest.mark.parametrize("order", ORDERS)
def test_shortest_text_is_one_window(order: str) -> None:
    x_BT, y_BT = make(9, order=order, micro_batch_sequences=1).batch(0, 0)
    assert x_BT.tolist() == [list(range(8))]
    assert y_BT.tolist() == [list(range(1, 9))]


def test_unknown_order() -> None:
    with pytest.raises(UsageError, match="unknown data order 'shuffle'. Did you mean 'shuffled'"):
        make(order="shuffle")


@pytest.mark.parametrize("split", ["tune", "test"])
def test_only_the_training_split_makes_batches(split: Split) -> None:
    with pytest.raises(AssertionError):
        Batches(
            stream_of(100, split=split),
            order="random",
            seed=0,
            context=8,
            micro_batch_sequences=1,
            num_micro=1,
        )


class ChallengeLoader:
    """The challenge's loader as METHODS describe it: stateful, one per rank, reading file by file."""

    def __init__(self, files: list[list[int]], rank: int, world_size: int, context: int) -> None:
        self.files, self.rank, self.world_size, self.context = files, rank, world_size, context
        self.file = self.place = 0

    def take(self, count: int) -> list[int]:
        taken: list[int] = []
        while len(taken) < count:
            if self.place == len(self.files[self.file]):
                self.file, self.place = (self.file + 1) % len(self.files), 0
            part = self.files[self.file][self.place : self.place + count - len(taken)]
            taken += part
            self.place += len(part)
        return taken

    def next_batch(self, global_tokens: int, grad_accum: int) -> tuple[np.ndarray, np.ndarray]:
        local_tokens = global_tokens // (self.world_size * grad_accum)
        span = local_tokens + 1
        chunk = self.take(span * self.world_size)
        local = np.array(chunk[self.rank * span : (self.rank + 1) * span])
        return local[:-1].reshape(-1, self.context), local[1:].reshape(-1, self.context)


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_stream_order_is_the_challenge_order_whatever_the_ranks(world_size: int) -> None:
    stream = stream_of(1_001, num_files=3)
    files = [segment.tolist() for segment in stream._segments]
    assert len(files) == 3
    ours = Batches(stream, order="stream", seed=0, context=8, micro_batch_sequences=2, num_micro=8)
    grad_accum = 8 // world_size
    loaders = [ChallengeLoader(files, rank, world_size, context=8) for rank in range(world_size)]
    for step in range(20):  # 20 steps of 8 * 17 tokens go around the 1,001 tokens almost three times
        for round_ in range(grad_accum):
            for rank, loader in enumerate(loaders):
                theirs = loader.next_batch(8 * 16, grad_accum)
                x_BT, y_BT = ours.batch(step, round_ * world_size + rank)
                assert (x_BT == theirs[0]).all()
                assert (y_BT == theirs[1]).all()


@pytest.mark.parametrize("order", ORDERS)
def test_any_step_can_be_asked_for_in_any_order(order: str) -> None:
    forwards, backwards = make(order=order), make(order=order)
    expected = {(step, micro): forwards.batch(step, micro) for step in range(60) for micro in range(2)}
    for (step, micro), (x_BT, y_BT) in reversed(expected.items()):
        again_x, again_y = backwards.batch(step, micro)
        assert (again_x == x_BT).all()
        assert (again_y == y_BT).all()
    assert x_BT.dtype == y_BT.dtype == np.int64
    assert x_BT.shape == y_BT.shape == (4, 8)


@pytest.mark.parametrize("order", ORDERS)
def test_targets_are_one_ahead_and_files_make_no_difference(order: str) -> None:
    whole, cut = make(order=order), make(order=order, num_files=7)
    for step in range(40):
        x_BT, y_BT = whole.batch(step, 1)
        assert (y_BT == (x_BT + 1) % 1_000).all()
        assert (cut.batch(step, 1)[0] == x_BT).all()


@pytest.mark.parametrize(("order", "differs"), [("stream", False), ("shuffled", True), ("random", True)])
def test_seed(order: str, differs: bool) -> None:
    first, second = make(order=order, seed=1), make(order=order, seed=2)
    assert (first.batch(0, 0)[0] != second.batch(0, 0)[0]).any() == differs


@pytest.mark.parametrize("num_tokens", [9, 16, 17, 100, 1_000])
def test_shuffled_epoch_takes_every_window_once(num_tokens: int) -> None:
    batches = make(num_tokens, micro_batch_sequences=1, num_micro=1)
    per_epoch = max(1, (num_tokens - 8) // 8)
    phases = set()
    for epoch in range(12):
        starts = [int(batches.batch(epoch * per_epoch + place, 0)[0][0, 0]) for place in range(per_epoch)]
        phases.add(min(starts))
        assert sorted(starts) == list(range(min(starts), min(starts) + 8 * per_epoch, 8))
        assert max(starts) + 8 < num_tokens
    if num_tokens >= 16:
        assert len(phases) > 1, "each epoch has its own phase"


def test_shuffled_epochs_have_unlike_orders() -> None:
    batches = make(micro_batch_sequences=1, num_micro=1)
    num_windows = (1_000 - 8) // 8
    orders = [
        tuple(int(batches.batch(epoch * num_windows + place, 0)[0][0, 0]) // 8 for place in range(num_windows))
        for epoch in range(3)
    ]
    assert len(set(orders)) == 3
    assert orders[0] != tuple(sorted(orders[0]))


def test_random_order_reaches_every_place_about_equally() -> None:
    batches = make(20, order="random", micro_batch_sequences=100, num_micro=1)
    counts = Counter(int(start) for step in range(120) for start in batches.batch(step, 0)[0][:, 0])
    assert sorted(counts) == list(range(12)), "the last window starts at 20 - 8 - 1"
    assert max(abs(count - 1_000) for count in counts.values()) < 160, "five standard deviations"


def test_order_is_pinned() -> None:
    """A change here changes what every record with the same seed was trained on."""
    assert make().batch(5, 1)[0][:, 0].tolist() == [531, 571, 43, 275]
    assert make(order="random").batch(5, 1)[0][:, 0].tolist() == [9, 985, 218, 49]
