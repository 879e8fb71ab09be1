"""Every folder with exactly one contradiction."""

from __future__ import annotations

from .broken_runs import RUNS
from .broken_scores import METRICS
from .broken_sizes import SIZES
from .broken_stats import STATS
from .cases import FAMILIES, Case

BROKEN: list[Case] = METRICS + STATS + SIZES + RUNS

__all__ = ["BROKEN", "FAMILIES", "Case"]
