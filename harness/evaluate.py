"""From an artifact file to its scores: bits per byte, loss, token accuracy, perplexity, and nats per block of text.

Run as `python -m harness.evaluate` it is the fresh process in which every published score is made: it knows the file
and the data, and nothing of the training that came before.

Letters: N targets of a split, B windows of a batch, T input tokens of a window, S scored targets of a window.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from harness.data.shards import TokenData, TokenStream, prepare
from harness.errors import ArtifactError, HarnessError, RunError, UsageError
from harness.files import write_atomic
from harness.loading import check_causal, load_artifact
from harness.metrics import bits_per_byte, perplexity
from harness.nn.network import Network
from harness.sampled import score_samples
from harness.scoring import TEST_PURPOSE, EvalMode, ScoreRequest, error_to_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_BYTES = 4096
# On CPU a batch should stay in the cache: dense/small scores 16,384 targets in 1.0 s at 2,048, in 1.5 s at 8,192.
BATCH_TOKENS = {"cpu": 2_048, "cuda": 131_072}


@dataclass(frozen=True, slots=True)
class Window:
    """Inputs `tokens[start : start + length]`, of whose targets the last `scored` count."""

    start: int
    length: int
    scored: int


def iter_windows(num_targets: int, mode: EvalMode) -> Iterator[Window]:
    """Lay windows over targets 1..N of a stream of N + 1 tokens.

    Args:
        num_targets: N, the number of tokens that have a token before them.
        mode: how the windows lie.
    """
    context, stride = mode.context, mode.stride
    if mode.mode == "disjoint":
        starts = range(0, num_targets + 2 - context, context)
        yield from (Window(start, context - 1, context - 1) for start in starts)
    elif mode.mode == "challenge":
        yield from (Window(start, context, context) for start in range(0, num_targets - context + 1, context))
    elif mode.mode == "challenge-sliding":
        total = num_targets // context * context
        for start in range(0, total, stride):
            length = min(context, total - start)
            yield Window(start, length, length if start == 0 else min(stride, length))
    else:
        first = min(context, num_targets)
        yield Window(0, first, first)
        for end in range(context + stride, num_targets + stride, stride):
            stop = min(end, num_targets)
            yield Window(stop - context, context, stop - (end - stride))


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Sums over fixed blocks of `BLOCK_BYTES` bytes of the text; a target counts where its text begins.

    Attributes:
        eval_mode: how the windows lay.
        partial: whether only the head of the split was scored.
        block_nats: float64 (blocks,), summed cross entropy in nats.
        block_bytes: int64 (blocks,), bytes of original text that the targets stand for.
        block_tokens: int64 (blocks,), targets scored.
        block_correct: int64 (blocks,), targets whose most likely token was right.
    """

    eval_mode: EvalMode
    partial: bool
    block_nats: NDArray[np.float64]
    block_bytes: NDArray[np.int64]
    block_tokens: NDArray[np.int64]
    block_correct: NDArray[np.int64]

    def metrics(self) -> dict[str, Any]:
        """Return the metrics in the field names of the record."""
        total_nats = math.fsum(self.block_nats)
        num_tokens, num_bytes = int(self.block_tokens.sum()), int(self.block_bytes.sum())
        loss_nats = total_nats / num_tokens
        return {
            "eval_mode": asdict(self.eval_mode),
            "partial": self.partial,
            "val_bpb": bits_per_byte(total_nats, num_bytes),
            "loss_nats": loss_nats,
            "token_accuracy": int(self.block_correct.sum()) / num_tokens,
            "perplexity": perplexity(loss_nats),
            "total_nats": total_nats,
            "num_tokens": num_tokens,
            "num_bytes": num_bytes,
        }

    def save(self, path: Path) -> None:
        """Write the block arrays as an .npz file (same scores, same bytes), whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            block_nats=self.block_nats,
            block_bytes=self.block_bytes,
            block_tokens=self.block_tokens,
            block_correct=self.block_correct,
            block_size_bytes=np.int64(BLOCK_BYTES),
            context=np.int64(self.eval_mode.context),
            stride=np.int64(self.eval_mode.stride),
        )
        write_atomic(path, buffer.getvalue())


class _Row:
    """The tokens of a split with the start token before them, where the split does not begin with one itself.

    The challenge's own modes take the tokens as they lie: their first is context, never a target. Disjoint windows
    begin with the start token where whoever uses the tokenizer gets it.
    """

    def __init__(self, data: TokenData, stream: TokenStream, mode: EvalMode) -> None:
        self._data, self._stream = data, stream
        is_begun = mode.mode == "sliding" or (mode.mode == "disjoint" and data.tokenizer.begins_texts)
        self._prefix = int(is_begun and not data.tokenizer.separator)

    @property
    def num_targets(self) -> int:
        return self._stream.num_tokens + self._prefix - 1

    def read(self, start: int, stop: int) -> NDArray[np.int64]:
        tokens = self._stream.read(max(start - self._prefix, 0), stop - self._prefix)
        if start < self._prefix:
            tokens = np.concatenate(([self._data.tokenizer.start_id], tokens))
        return tokens.astype(np.int64)

    def target_bytes(self, start: int, stop: int) -> NDArray[np.int32]:
        return self._data.target_bytes(self._stream, start - self._prefix, stop - self._prefix)


class _BlockSums:
    """Sums by block of text, for targets that come in order (a window may begin again inside the one before)."""

    def __init__(self, num_bytes: int) -> None:
        num_blocks = num_bytes // BLOCK_BYTES + 1
        self.nats = np.zeros(num_blocks)
        self.counts = np.zeros((3, num_blocks), dtype=np.int64)
        self._first = 1
        self._offsets = np.zeros(1, dtype=np.int64)

    def skip_to(self, first: int, bytes_between: Callable[[int, int], NDArray[Any]]) -> None:
        """Go on at the target `first` where others lie between it and the last one, of which `bytes_between` tells."""
        beyond = self._first + len(self._offsets) - 1
        if first > beyond:
            skipped = int(bytes_between(beyond, first).sum())
            self._first, self._offsets = first, self._offsets[-1:] + skipped

    def add(self, first: int, nats: NDArray[Any], correct: NDArray[Any], target_bytes: NDArray[Any]) -> None:
        """Add the targets `first`, `first + 1`, ... of the stream."""
        offsets = np.concatenate(([0], np.cumsum(target_bytes, dtype=np.int64))) + self._offsets[first - self._first]
        self._first, self._offsets = first, offsets
        block = np.minimum(offsets[:-1] // BLOCK_BYTES, self.nats.size - 1)
        np.add.at(self.nats, block, nats)
        for row, values in zip(self.counts, (target_bytes, np.ones_like(block), correct), strict=True):
            np.add.at(row, block, values)


def _batches(windows: Iterator[Window], batch_tokens: int) -> Iterator[list[Window]]:
    """Group neighbouring windows of one shape into batches of at most `batch_tokens` input tokens."""
    for (length, _), group in groupby(windows, key=lambda window: (window.length, window.scored)):
        batch: list[Window] = []
        for window in group:
            batch.append(window)
            if (len(batch) + 1) * length > batch_tokens:
                yield batch
                batch = []
        if batch:
            yield batch


@torch.no_grad()
def score_network(
    network: Network,
    data: TokenData,
    stream: TokenStream,
    mode: EvalMode,
    *,
    max_targets: int | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Scores:
    """Score a network on a split in float32; memory does not depend on the length of the split.

    Args:
        network: on its device; its training mode is left as found.
        data: where `stream` comes from; knows how many bytes of text a target stands for.
        stream: the split.
        mode: how windows lie.
        max_targets: score only this many targets from the head; the result then says `partial`.
        on_progress: called with the share done.

    Raises:
        UsageError: the split is shorter than one window.
        RunError: the network gives logits that are not numbers.
    """
    row = _Row(data, stream, mode)
    num_targets = min(row.num_targets, max_targets or row.num_targets)
    if num_targets < {"sliding": 1, "disjoint": mode.context - 1}.get(mode.mode, mode.context):
        raise UsageError(f"split of {stream.num_tokens} tokens is too short for eval mode {mode.mode}")
    device = next(iter(network.parameters())).device
    sums = _BlockSums(stream.num_bytes)
    was_training = network.training
    network.eval()
    for batch in _batches(iter_windows(num_targets, mode), BATCH_TOKENS.get(device.type, BATCH_TOKENS["cpu"])):
        length, scored = batch[0].length, batch[0].scored
        tokens_BT = torch.from_numpy(np.stack([row.read(w.start, w.start + length + 1) for w in batch])).to(device)
        logits_BSV = network(tokens_BT[:, :-1], last=scored)
        targets_BS = tokens_BT[:, -scored:]
        nats_BS = F.cross_entropy(logits_BSV.transpose(1, 2), targets_BS, reduction="none").double().cpu().numpy()
        correct_BS = (logits_BSV.argmax(-1) == targets_BS).cpu().numpy()
        for window, nats, correct in zip(batch, nats_BS, correct_BS, strict=True):
            stop = window.start + length + 1
            sums.skip_to(stop - scored, row.target_bytes)
            sums.add(stop - scored, nats, correct, row.target_bytes(stop - scored, stop))
        on_progress(min(1.0, (batch[-1].start + length) / num_targets))
    network.train(was_training)
    if not np.isfinite(sums.nats).all():
        raise RunError("the network gives logits that are not finite, so there is no score")
    used = max(1, int(np.flatnonzero(sums.counts[1])[-1]) + 1)
    return Scores(
        eval_mode=mode,
        partial=num_targets < row.num_targets,
        block_nats=sums.nats[:used],
        block_bytes=sums.counts[0, :used],
        block_tokens=sums.counts[1, :used],
        block_correct=sums.counts[2, :used],
    )


def score_artifact(request: ScoreRequest) -> dict[str, Any]:
    """Score the splits of a request; returns a JSON object.

    Its keys: "metrics" by split, "data" (the manifest), "params" (dense-equivalent counts of the network),
    "params_by_part" (the trainable ones by component) and "test_openings" (why the test split was opened, each time).

    Raises:
        ArtifactError: the file makes no network, or one that sees the tokens it is to predict.
        UsageError: the method it names is not installed.
    """
    loaded = load_artifact(Path(request.artifact), request.device)
    task, context = loaded.method.task, request.eval_mode.context
    if context > task.context:
        raise ArtifactError(f"{request.artifact}: made for a context of {task.context}, not for windows of {context}")
    check_causal(loaded.network, vocab_size=task.vocab_size, context=context)
    data = prepare(
        request.data,
        tokenizer=loaded.tokenizer,
        data_dir=Path(request.data_dir) if request.data_dir else None,
        encoding_errors=request.encoding_errors,
    )
    metrics: dict[str, Any] = {}
    for split in request.splits:
        stream = data.open_test(TEST_PURPOSE) if split == "test" else data.tune
        if request.sampling is not None:
            metrics[split] = score_samples(loaded.network, stream, request.sampling, context=context)
            continue
        scores = score_network(loaded.network, data, stream, request.eval_mode)
        if split == "test" and request.scores_path:
            scores.save(Path(request.scores_path))
        metrics[split] = scores.metrics()
    counts = loaded.method.count_params(loaded.network)
    params = {"effective": counts.effective, "active": counts.active}
    return {
        "metrics": metrics,
        "data": data.manifest(),
        "params": params,
        "params_by_part": dict(counts.parts),
        "test_openings": list(data.test_openings),
    }


def main(arguments: list[str] | None = None) -> int:
    """Score what a request file asks for; used by `score_in_fresh_process`."""
    parser = argparse.ArgumentParser(prog="python -m harness.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("request", type=Path, help="JSON file of a ScoreRequest")
    parser.add_argument("result", type=Path, help="JSON file to write")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input ends")
    options = parser.parse_args(arguments)
    if options.with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        request = ScoreRequest.from_json(json.loads(options.request.read_text(encoding="utf-8")))
        result: dict[str, Any] = score_artifact(request)
    except HarnessError as error:
        result = error_to_json(error)
    write_atomic(options.result, json.dumps(result).encode())
    return 1 if "error" in result else 0


def _end_with_parent() -> None:
    """Wait for the end of standard input, which is when the process that holds its other end is gone."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
