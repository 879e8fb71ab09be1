"""What runs carry beside their figures: what they were sealed for, how large they are, how they were scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from harness.comparison import Run

# The runs that one text chooses, by seed.
Chosen = Mapping[int, Run]


def seals_of(chosen: Sequence[Chosen]) -> tuple[tuple[str, ...], ...]:
    """Return for each run the hashes of the claims that it was sealed for, none for a run that was not.

    Nor is one where seeds of its plan are missing or were added, or the budget is another than was sealed: who looks
    first can stop at the seeds that suit.
    """
    return tuple(hashes for runs in chosen for hashes in _seals(runs))


def _seals(runs: Chosen) -> list[tuple[str, ...]]:
    seals = [run.record.seal for run in runs.values()]
    is_whole = all(
        seal and set(runs) == set(range(seal.num_seeds)) and seal.stopping == run.record.budget.text
        for seal, run in zip(seals, runs.values(), strict=True)
    )
    return [(seal.sha256, *seal.also.values()) if seal and is_whole else () for seal in seals]


def num_params_of(chosen: Sequence[Chosen]) -> int | None:
    """Return the stored parameters of the seeds that all texts chose: means over seeds, geometric mean of the texts.

    None where a record counts none.
    """
    seeds = set.intersection(*(set(runs) for runs in chosen)) if chosen else set()
    parts = [[runs[seed].record.params for seed in sorted(seeds)] for runs in chosen]
    if not seeds or not all(part and part.stored for side in parts for part in side):
        return None
    means = [fmean(part.stored for part in side if part) for side in parts]
    return round(math.prod(means) ** (1 / len(means)))


def eval_modes_of(chosen: Sequence[Chosen]) -> tuple[str, ...]:
    """Return how the runs were scored, mode, window and stride, each way once."""
    modes = (run.record.metrics.test.eval_mode for runs in chosen for run in runs.values() if run.record.metrics.test)
    return tuple(sorted({f"{mode.mode} {mode.context}/{mode.stride}" for mode in modes}))
