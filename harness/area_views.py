"""What `harness compare --frontiers` says: the frontier of each contender, and the area between each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from harness.areas import FrontierRelation, group_sweeps, read_sweep, relate
from harness.tables import Table, View


def frontiers_view(paths: Sequence[Path]) -> View:
    """Compare the frontiers in files that `harness quantise RECORD --sweep --out FILE` wrote.

    Raises:
        UsageError: no such file, a seed twice, or frontiers that cannot be compared.
        RecordError: a file holds something else.
    """
    groups = group_sweeps([read_sweep(path) for path in paths])
    relations = relate(groups)
    rows = []
    for name, own in groups.items():
        sizes = [size for sweep in own.values() for size, _ in sweep.points]
        scores = [min(bpb for _, bpb in sweep.points) for sweep in own.values()]
        rows.append((name, str(len(own)), f"{min(sizes):,.0f}", f"{max(sizes):,.0f}", f"{fmean(scores):.4f}"))
    contenders = Table(
        title="rate-distortion frontiers on the tune split",
        columns=("contender", "n", "fewest bytes", "most bytes", "best bits/byte"),
        rows=rows,
        right=frozenset({1, 2, 3, 4}),
    )
    return View(
        tables=[contenders, *([_relations_table(relations)] if relations else [])],
        data={
            "contenders": [
                {"name": name, "seeds": list(own), "points": {str(seed): sweep.points for seed, sweep in own.items()}}
                for name, own in groups.items()
            ],
            "relations": [{**asdict(each), "verdict": each.verdict} for each in relations],
        },
    )


def _relations_table(relations: Sequence[FrontierRelation]) -> Table:
    rows = [
        (
            each.first,
            each.second,
            str(each.num_seeds),
            "-" if each.bpb is None else f"{each.bpb:+.4f}",
            "-" if each.over_seeds is None else f"{each.over_seeds.low:+.4f} to {each.over_seeds.high:+.4f}",
            "-" if each.bytes_ratio is None else f"{each.bytes_ratio - 1:+.1%}",
            "-" if each.p_holm is None else f"{each.p_holm:.4f}",
            each.verdict,
        )
        for each in relations
    ]
    return Table(
        title="area between frontiers, tune split: bits/byte at equal bytes, bytes at equal bits/byte, over what both "
        "cover; errors of seeds only",
        columns=("A", "B", "seeds", "A - B", "95% over seeds", "bytes of A", "p (Holm)", "verdict"),
        rows=rows,
        right=frozenset(range(2, 7)),
    )
