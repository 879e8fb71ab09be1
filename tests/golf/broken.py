"""Every folder with exactly one contradiction."""

from __future__ import annotations

from .broken_forms import FORMS
from .broken_odd import ODD
from .broken_runs import RUNS
from .broken_scores import METRICS
from .broken_sizes import SIZES
from .broken_stats import STATS
from .cases import FAMILIES, Build, Case

BROKEN: list[Case] = METRICS + STATS + SIZES + RUNS + ODD + FORMS

# the true folders that the broken ones were made from: nothing may fail on these either
BASES: dict[str, Build] = {case.base.__name__: case.base for case in BROKEN}

__all__ = ["BASES", "BROKEN", "FAMILIES", "Case"]
