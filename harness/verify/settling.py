"""Before a foreign record is judged: which run of a log is the claimed one, which tables are about other runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from harness.records.submission import LoggedRun, Reading, Submission
from harness.verify.witnesses import find, of_runs, readings_of

MIN_CELLS = 3
FEW, MOST = 1 / 3, 2 / 3


def choose_claimed_runs(submission: Submission) -> None:
    """Of several runs in one log the last is claimed, unless the headline score is that of an earlier one."""
    claims = [claim for claim in submission.claims if claim.is_headline and claim.quantity == "bpb"]
    for claim in claims:
        if claim.last_place > 1e-4 or find(claim, of_runs(submission.runs, _finals)) is not None:
            continue
        earlier = [run for run in submission.earlier_runs if find(claim, of_runs([run], _finals)) is not None]
        lasts = [run for run in submission.runs if earlier and run.path == earlier[-1].path]
        if len(lasts) == 1:
            submission.runs[submission.runs.index(lasts[0])] = earlier[-1]
            submission.earlier_runs[submission.earlier_runs.index(earlier[-1])] = lasts[0]


def _finals(run: LoggedRun) -> list[Reading]:
    return [reading for reading in run.finals if reading.step is None]


def set_other_tables_apart(submission: Submission) -> list[int]:
    """Take a table by seed for one of other runs where hardly a cell is logged and another table is.

    Returns:
        The lines of such tables; their claims become references.
    """
    shares = {table: share for table, share in _shares(submission) if share is not None}
    if not any(share >= MOST for share in shares.values()):
        return []
    others = [table for table, share in shares.items() if share <= FEW]
    submission.claims = [
        replace(claim, is_reference=True) if claim.table in others else claim for claim in submission.claims
    ]
    return others


def _shares(submission: Submission) -> Iterator[tuple[int, float | None]]:
    """Yield each table of a README with the share of its cells by seed that the log of the seed has."""
    cells: dict[int, list[Reading]] = defaultdict(list)
    for claim in submission.claims:
        if claim.table is not None and claim.seed is not None and not claim.is_reference:
            cells[claim.table].append(claim)
    for table, claims in cells.items():
        found = []
        for claim in claims:
            witnesses = list(of_runs(submission.runs_of(claim.seed or ""), readings_of(claim.quantity)))
            found += [find(claim, witnesses) is not None] if witnesses else []
        yield table, sum(found) / len(found) if len(found) >= MIN_CELLS else None
