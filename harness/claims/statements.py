"""What a stranger's record folder states, read by the readers of `harness verify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from harness.claims.quantities import Number, between
from harness.claims.reproduction import MissingEvidenceError
from harness.errors import UsageError, suggest
from harness.records.discovery import scan_records
from harness.records.submission import Reading, Source, Submission
from harness.records.vocabulary import Quantity, Stage


class Stated(NamedTuple):
    """A number that a folder states, within the limits of its print, and its place."""

    number: Number
    place: str


def read_submission(folder: Path) -> Submission:
    """Read a foreign record folder.

    Raises:
        MissingEvidenceError: the folder is not there, or no dialect knows it.
    """
    if not folder.is_dir():
        raise MissingEvidenceError(f"{folder} is not there")
    found = scan_records(folder, with_foreign=True).foreign
    if len(found) != 1:
        raise MissingEvidenceError(f"{folder} holds {len(found)} records of a known dialect; name the folder of one")
    return found[0].format.read(found[0].folder)


def find_stated(submission: Submission, quantity: str, source: str, stage: str) -> Stated:
    """Return what a folder states of a quantity: in a log its last run's last word, elsewhere the one value there is.

    Args:
        submission: the folder, read.
        quantity: bpb, loss, bytes_total and so on.
        source: summary, readme, log or file.
        stage: of the run, such as pre_quant, roundtrip or sliding; empty for those that name none.

    Raises:
        UsageError: no such quantity, source or stage, or several unlike values.
        MissingEvidenceError: it states none.
    """
    for kind, given, known in (("quantity", quantity, Quantity), ("source", source, Source), ("stage", stage, Stage)):
        if given not in get_args(known):
            raise UsageError(f"no {kind} '{given}'. {suggest(given, filter(None, get_args(known)))}")
    of_log = submission.runs[-1].readings if submission.runs else []
    pool: Sequence[Reading] = of_log if source == "log" else submission.claims
    found = [
        each
        for each in pool
        if (each.quantity, each.source, each.stage) == (quantity, source, stage)
        and not each.is_reference
        and each.statistic in ("value", "mean")
        and (source == "log" or each.seed is None)
    ]
    if not found:
        where = f" at stage {stage}" if stage else ""
        raise MissingEvidenceError(f"{submission.name}: the {source} states no {quantity}{where}")
    chosen = found[-1] if source == "log" else found[0]
    if source != "log" and (odd := [each for each in found if each.value != chosen.value]):
        raise UsageError(
            f"{submission.name}: the {source} states {quantity} as {chosen.text} ({chosen.place}) and {odd[0].text} "
            f"({odd[0].place}); use field() for one of them"
        )
    half = chosen.last_place / 2
    return Stated(between(chosen.value - half, chosen.value + half, chosen.value), chosen.place)
