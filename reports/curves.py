"""Training curves read from logs: a few points of each, evenly spread over the logarithm of the steps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import median

from harness.errors import RecordError
from harness.records.logs import LOG_FILE
from harness.records.safeio import read_bounded

MAX_CURVE_BYTES = 64 * 2**20
NUM_POINTS = 30
# Neighbouring steps whose median is a point: single steps of late training are mostly noise.
NUM_NEIGHBOURS = 7


def read_curve(folder: Path) -> list[tuple[int, float]]:
    """Return points (tokens trained on, training loss in nats a token); empty where the log has none that are read."""
    try:
        raw = read_bounded(folder, LOG_FILE, MAX_CURVE_BYTES)
    except RecordError:
        return []
    lines = [line for line in raw.splitlines() if line.startswith(b'{"event": "step"')]
    points: dict[int, float] = {}
    for index in _spread(len(lines)):
        half = min(NUM_NEIGHBOURS // 2, index, len(lines) - 1 - index)
        near = [found for line in lines[index - half : index + half + 1] if (found := _point(line))]
        if near and (centre := _point(lines[index])):
            points[centre[0]] = round(median(loss for _, loss in near), 5)
    return sorted(points.items())


def _spread(num_lines: int) -> list[int]:
    if num_lines <= NUM_POINTS:
        return list(range(num_lines))
    steps = (math.exp(math.log(num_lines) * at / (NUM_POINTS - 1)) for at in range(NUM_POINTS))
    return sorted({min(num_lines - 1, round(step) - 1) for step in steps})


def _point(line: bytes) -> tuple[int, float] | None:
    try:
        event = json.loads(line)
        tokens, loss_nats = event["tokens"], event["loss_nats"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in (tokens, loss_nats)):
        return None
    is_usable = math.isfinite(loss_nats) and 0 < tokens < 1e18
    return (int(tokens), float(loss_nats)) if is_usable else None
