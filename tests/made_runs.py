"""Runs and contenders around given scores, for statistics over them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from record_factory import record_fields, scores_of

from harness.comparison import Group, Run
from harness.records.schema import Record
from harness.records.scores import BlockScores


def make_run(seed: int, bpb: float, num_bytes: int = 100, text: int = 0, **changes: object) -> Run:
    """A run of five blocks around a score, with noise by seed and `text`."""
    scores = scores_of(0)
    noise = np.random.default_rng((seed, text)).uniform(-0.001, 0.001, 5)
    scores["block_nats"] = (bpb + noise - noise.mean()) * 100 * math.log(2)
    fields = record_fields(seed, b"x" * num_bytes, {"blocks": num_bytes}, scores)
    record = Record.model_validate({**fields, **changes})
    names = ("block_nats", "block_bytes", "block_tokens", "block_correct")
    return Run(record, BlockScores(**{name: scores[name] for name in names}, context=32, stride=16))


def group(name: str, scores: Sequence[float], num_bytes: int = 100, text: int = 0) -> Group:
    """A contender with a run for each score, seeds 0, 1, ..."""
    return Group(name=name, runs={seed: make_run(seed, bpb, num_bytes, text) for seed, bpb in enumerate(scores)})
