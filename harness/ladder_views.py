"""What `harness compare --sizes` says: each relation at every size, and how it goes with size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from harness.compare_views import read_groups
from harness.comparison import compare
from harness.ladder import Grids, names_of
from harness.tables import Table, View, fmt
from harness.trend import Rung, Trend, find_trends


def read_rungs(folder: Path, grids: Grids) -> Iterator[Rung]:
    """Read the complete cells of a ladder's grids, contenders named alike at all sizes.

    Args:
        folder: of the ladder.
        grids: by size.
    """
    for (size, grid), names in zip(grids.items(), names_of(list(grids.values())), strict=True):
        groups, _ = read_groups(grid, list(grid.cells(folder / size)))
        renamed = [replace(group, name=names[group.name]) for group in groups]
        yield Rung(size=size, comparison=compare(renamed, target_params=grid.target_params))


def ladder_view(folder: Path, grids: Grids, views: Sequence[View]) -> View:
    """Join what is said of each size with the trend of each pair.

    Args:
        folder: of the ladder.
        grids: by size.
        views: of the grids, in the same order.
    """
    trends = find_trends(list(read_rungs(folder, grids)))
    return View(
        tables=[table for view in views for table in view.tables] + ([_trends_table(trends)] if trends else []),
        data={
            "folder": str(folder),
            "sizes": {size: view.data for size, view in zip(grids, views, strict=True)},
            "trends": [{**asdict(trend), "verdict": trend.verdict} for trend in trends],
        },
    )


def _trends_table(trends: Sequence[Trend]) -> Table:
    rows = [
        (
            trend.first,
            trend.second,
            str(trend.num_seeds),
            ", ".join(
                f"{difference:+.4f} ({number:,.0f})"
                for difference, number in zip(trend.differences, trend.num_params, strict=True)
            ),
            f"{trend.slope:+.4f}",
            "-" if trend.low is None or trend.high is None else f"{trend.low:+.4f} to {trend.high:+.4f}",
            fmt(trend.p_holm),
            trend.verdict,
        )
        for trend in trends
    ]
    return Table(
        title="bits/byte of pairs with size; slope: of a doubling of the stored parameters, between these sizes only",
        columns=("A", "B", "seeds", "A - B (stored)", "slope", "95% of the slope", "p (Holm)", "with size"),
        rows=rows,
        right=frozenset({2, 4, 5, 6}),
    )
