"""Scores on random windows of a split, as many papers report them, with the sampling error that they leave out.

Letters: B windows of a batch, T tokens of a window, V token ids.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from harness.data.streams import TokenStream
from harness.errors import RunError, UsageError
from harness.nn.network import Network
from harness.scoring import Sampling

_PIECE_TOKENS = 8192


@torch.no_grad()
def score_samples(network: Network, stream: TokenStream, sampling: Sampling, *, context: int) -> dict[str, Any]:
    """Score every target of random windows that see nothing before their own start.

    Args:
        network: on its device; its training mode is left as found.
        stream: the split.
        sampling: how many windows, and their seed.
        context: T, input tokens of a window.

    Returns:
        `loss_nats` a token and `token_accuracy`, means over the batches, and their standard errors `loss_nats_se` and
        `token_accuracy_se` (deviation of the batch means / sqrt(batches)); `num_tokens` scored.

    Raises:
        UsageError: the split is shorter than a window.
        RunError: the network gives logits that are not numbers.
    """
    room = stream.num_tokens - context
    if room < 1:
        raise UsageError(f"split of {stream.num_tokens} tokens is too short for random windows of {context}")
    starts_NB = np.random.Generator(np.random.PCG64(sampling.seed)).integers(
        room, size=(sampling.num_batches, sampling.batch_windows)
    )
    device = next(iter(network.parameters())).device
    was_training = network.training
    network.eval()
    losses, accuracies = [], []
    for starts_B in starts_NB:
        # in pieces, so that memory does not grow with the batch
        pieces = np.array_split(starts_B, math.ceil(len(starts_B) * context / _PIECE_TOKENS))
        scored = [_score_windows(network, stream, starts, context, device) for starts in pieces]
        loss_sum, num_right = np.sum(scored, axis=0)
        losses.append(loss_sum / (len(starts_B) * context))
        accuracies.append(num_right / (len(starts_B) * context))
    network.train(was_training)
    if not np.isfinite(losses).all():
        raise RunError("the network gives logits that are not finite, so there is no score")
    root = math.sqrt(sampling.num_batches)
    return {
        "loss_nats": fmean(losses),
        "loss_nats_se": stdev(losses) / root,
        "token_accuracy": fmean(accuracies),
        "token_accuracy_se": stdev(accuracies) / root,
        "num_tokens": sampling.num_batches * sampling.batch_windows * context,
    }


def _score_windows(
    network: Network, stream: TokenStream, starts: Iterable[int], context: int, device: torch.device
) -> tuple[float, float]:
    """Return the nats of all targets of some windows, and how many of them the network ranks first."""
    rows = [stream.read(int(start), int(start) + context + 1).astype(np.int64) for start in starts]
    tokens_BT = torch.from_numpy(np.stack(rows)).to(device)
    logits_BTV, targets_BT = network(tokens_BT[:, :-1], last=context), tokens_BT[:, 1:]
    nats = F.cross_entropy(logits_BTV.transpose(1, 2).double(), targets_BT, reduction="sum")
    return float(nats), float((logits_BTV.argmax(-1) == targets_BT).sum())
