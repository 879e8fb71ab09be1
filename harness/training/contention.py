"""Whether a machine did other work beside a timed run: a short kernel before and after it, whose times must agree."""

from __future__ import annotations

import time
from statistics import median

import torch

MAX_DRIFT = 0.05
_SIZE = 512
_CALLS, _REPEATS = 8, 15


def kernel_seconds(device: str) -> float:
    """Return the median time of a fixed piece of work on a device, products of 512 x 512 float32 matrices.

    The median, since a contended machine is slow most of the time; one hiccup is none.
    """
    matrix = torch.eye(_SIZE, device=device)
    seconds = []
    for _ in range(_REPEATS + 1):
        _wait(device)
        started = time.monotonic()
        for _ in range(_CALLS):
            matrix = matrix @ matrix
        _wait(device)
        seconds.append(time.monotonic() - started)
    return median(seconds[1:])  # the first call also starts threads and libraries


def drifted(before_seconds: float, after_seconds: float) -> bool:
    """Whether two times of the kernel are further apart than a quiet machine's."""
    slower, faster = max(before_seconds, after_seconds), min(before_seconds, after_seconds)
    return slower > faster * (1 + MAX_DRIFT)


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
