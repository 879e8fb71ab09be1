"""Batches of training windows: any step can be asked for directly, and ranks see the same data together."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from harness.data.streams import TokenStream
from harness.errors import DataError, UsageError, suggest

# Shape letters: B windows of a micro-batch, T tokens of a window.
Order = Literal["stream", "shuffled", "random"]
ORDERS: tuple[str, ...] = get_args(Order)
_EPOCH, _OFFSETS = 1, 2


def _raw(seed: int, *key: int) -> np.random.PCG64:
    """Seed a generator by a key; only its raw output is used, which numpy keeps stable."""
    return np.random.PCG64(np.random.SeedSequence([seed, *key]))


class Batches:
    """Windows of the training split in a fixed order, without state.

    Orders:
        stream: one contiguous row of tokens that wraps around at the end. A micro-batch takes B*T + 1 tokens
            and the next one starts after them, as in the 16 MB challenge.
        shuffled: each epoch cuts the split into windows at a random phase and permutes them.
        random: every window starts at an independent random place.

    Args:
        stream: the training split.
        order: one of `ORDERS`.
        seed: of the run; without effect on "stream".
        context: T, input tokens of a window.
        micro_batch_sequences: B, windows of a micro-batch.
        num_micro: micro-batches of a step, over all ranks.

    Raises:
        UsageError: unknown order.
        DataError: the split is shorter than one window.
    """

    def __init__(
        self,
        stream: TokenStream,
        *,
        order: str,
        seed: int,
        context: int,
        micro_batch_sequences: int,
        num_micro: int,
    ) -> None:
        assert stream.split == "train", "only the training split is ever trained on"
        assert seed >= 0 and context > 0 and micro_batch_sequences > 0 and num_micro > 0
        if order not in ORDERS:
            raise UsageError(f"unknown data order '{order}'. {suggest(order, ORDERS)}")
        if stream.num_tokens < context + 1:
            raise DataError(
                f"the training text has {stream.num_tokens:,} tokens, a window of context {context} needs "
                f"{context + 1:,}. Give more text or a shorter context"
            )
        self.stream, self.order, self.seed = stream, order, seed
        self.context, self.micro_batch_sequences, self.num_micro = context, micro_batch_sequences, num_micro
        # One window fewer than fit leaves room for the phase.
        self._epoch_windows = max(1, (stream.num_tokens - context) // context)
        self._epochs: dict[int, NDArray[np.int64]] = {}

    def batch(self, step: int, micro: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give the inputs and targets of one micro-batch.

        Args:
            step: optimiser step, from 0.
            micro: micro-batch of the step, 0 to num_micro - 1.

        Returns:
            x_BT and y_BT, int64, y one token ahead of x.
        """
        assert step >= 0 and 0 <= micro < self.num_micro, (step, micro)
        index, shape = step * self.num_micro + micro, (self.micro_batch_sequences, self.context)
        if self.order == "stream":
            num_tokens = self.micro_batch_sequences * self.context + 1
            row = self.stream.read_around(index * num_tokens, num_tokens).astype(np.int64)
            return row[:-1].reshape(shape), row[1:].reshape(shape)
        starts = self._shuffled_starts(index) if self.order == "shuffled" else self._random_starts(step, micro)
        windows = np.stack([self.stream.read(start, start + self.context + 1) for start in starts])
        return windows[:, :-1].astype(np.int64), windows[:, 1:].astype(np.int64)

    def _random_starts(self, step: int, micro: int) -> list[int]:
        draws = _raw(self.seed, _OFFSETS, step, micro).random_raw(self.micro_batch_sequences)
        return [int(draw) % (self.stream.num_tokens - self.context) for draw in draws]

    def _shuffled_starts(self, index: int) -> list[int]:
        first = index * self.micro_batch_sequences
        places = [divmod(first + row, self._epoch_windows) for row in range(self.micro_batch_sequences)]
        return [int(self._epoch_starts(epoch)[place]) for epoch, place in places]

    def _epoch_starts(self, epoch: int) -> NDArray[np.int64]:
        """Give the window starts of an epoch in their order; the last two epochs asked for are kept."""
        if epoch not in self._epochs:
            raw = _raw(self.seed, _EPOCH, epoch)
            room = self.stream.num_tokens - 1 - self._epoch_windows * self.context
            phase = int(raw.random_raw()) % (min(room, self.context - 1) + 1)
            order = np.argsort(raw.random_raw(self._epoch_windows), kind="stable")
            self._epochs = dict(list(self._epochs.items())[-1:])
            self._epochs[epoch] = order.astype(np.int64) * self.context + phase
        return self._epochs[epoch]
