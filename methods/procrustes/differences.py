"""Differences between ways by pairs of windows, from the rows that the study kept.

    python -m methods.procrustes.differences FILE.jsonl --pairs "slicing" "whitened SVD" [--splits val]

For each fraction and split: the mean difference of the surprise in a window, first way less second, in thousandths of
a nat a token, its standard error over the windows, and half the width of its 95% interval. Gradients are those of seed
0; in the last column are the differences of the other seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness.errors import HarnessError, UsageError
from methods.procrustes.study import StudyRow, is_drawn, read_rows


def difference_rows(rows: Sequence[StudyRow], first: str, second: str, splits: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a Markdown table, without its head, for one pair of ways.

    Raises:
        UsageError: no fraction has both.
    """
    found = {(row.fraction, row.name, row.seed): row for row in rows}
    fractions = [fraction for fraction, name, seed in found if name == first and seed == 0]
    shared = [fraction for fraction in fractions if (fraction, second, 0) in found]
    if not shared:
        raise UsageError(f"no fraction with rows of '{first}' and of '{second}'. Run the study with both in --rows")
    for fraction in shared:
        for split in splits:
            means = []
            for seed in _shared_seeds(found, fraction, (first, second)):
                a, b = (found[fraction, name, seed if is_drawn(name) else 0] for name in (first, second))
                mean, interval = a.on(split).more_nats_than(b.on(split))
                means.append(f"{1000 * mean:+.2f}")
                if seed == 0:
                    spread = f"{1000 * interval.standard_error:.2f} | {1000 * (interval.high - mean):.2f}"
            yield f"| {first} - {second} | {fraction} | {split} | {means[0]} | {spread} | {', '.join(means[1:])} |"


def _shared_seeds(found: Iterable[tuple[str, str, int]], fraction: str, names: Sequence[str]) -> list[int]:
    """Return the seeds that all ways have which depend on one; 0 among them."""
    drawn = [name for name in names if is_drawn(name)]
    seeds = [{seed for key, other, seed in found if (key, other) == (fraction, name)} for name in drawn]
    return sorted(set.intersection(*seeds)) if seeds else [0]


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m methods.procrustes.differences",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", type=Path)
    parser.add_argument("--pairs", nargs=2, action="append", required=True, metavar=("FIRST", "SECOND"))
    parser.add_argument("--splits", nargs="+", default=["val"])
    options = parser.parse_args(arguments)
    try:
        rows = read_rows(options.rows)
        lines = [
            line for first, second in options.pairs for line in difference_rows(rows, first, second, options.splits)
        ]
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("| difference | r/k | split | mnat a token | standard error | 95% | other seeds |")
    print("| --- | --- | --- | ---: | ---: | ---: | --- |")
    print(*lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
