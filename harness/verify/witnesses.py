"""What a claim of a foreign record may rest on: logged values, and means and extremes of them over seeds.

A claim is contradicted only where nothing that the folder logged can be what it states: no run, no stage, no mean,
no extreme, at the precision of its print. So a misread column convicts nobody.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import combinations
from statistics import fmean
from typing import TypeVar, cast

from harness.records.submission import LoggedRun, Reading, Submission
from harness.records.vocabulary import Quantity

# Float sums of printed decimals differ from hand-made ones in the last bits.
_ROUNDING = 1e-9
MAX_SUBSETS = 2000
MAX_DISCLOSURES = 1000
_DISCLOSURE = re.compile(
    r"(?i)\b(?:separate(?:ly)?|post-?hoc|not (?:in|from|part of) the (?:shipped |included )?logs?|"
    r"eval(?:uation)?-?only|re-?evaluat\w*|re-?scored|re-?runs?|offline|independently|log (?:was )?lost|no log)\b"
)
_ABOUT_SCORES = re.compile(
    r"(?i)\b(?:scores?|numbers|results|evaluations?)\b[^.\n]{0,40}\b(?:are|is|come|comes|were|was)\b"
)

Choose = Callable[[LoggedRun], Iterable[Reading]]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Witness:
    """A value that a claim may rest on.

    Attributes:
        value: in the unit of the claim's quantity.
        slack: how far rounding may have moved it.
        reading: the evidence; of a mean, its first part.
        what: in words: "seed 42", "mean of 3 runs".
        kind: "run", "mean", "extreme", "subset" or "part" (a part of the whole, like the model without its code).
    """

    value: float
    slack: float
    reading: Reading
    what: str
    kind: str = "run"


def is_near(claim: Reading, witness: Witness) -> bool:
    """Whether a claim can state a witness: within one unit of the last printed digit (rounded or cut off)."""
    allowed = _allowed(claim, witness)
    if abs(claim.value - witness.value) <= allowed:
        return True
    if claim.other_value is not None and abs(claim.other_value - witness.value) <= allowed:
        return True
    return claim.bound == "<" and witness.value <= claim.value or claim.bound == ">" and witness.value >= claim.value


def _place(claim: Reading) -> float:
    return claim.last_place or (1.0 if claim.quantity in ("train_seconds", "eval_seconds") else 0.0)


def _allowed(claim: Reading, witness: Witness) -> float:
    return _place(claim) + witness.slack + _ROUNDING * max(1.0, abs(witness.value))


def is_binary(claim: Reading, witness: Witness) -> bool:
    """Whether a claim in MB states a witness only if its MB are MiB."""
    return (
        claim.other_value is not None
        and abs(claim.value - witness.value) > _allowed(claim, witness)
        and abs(claim.other_value - witness.value) <= _allowed(claim, witness)
    )


def find(claim: Reading, witnesses: Iterable[Witness]) -> Witness | None:
    """Return the witness that a claim states, or None: one of its own kind and stage, and as exact as there is."""
    near = [witness for witness in _candidates(claim, witnesses) if is_near(claim, witness)]

    def rank(witness: Witness) -> tuple[bool, int, bool, float, float]:
        kind = -1 if claim.statistic == "mean" and witness.kind == "mean" else _KINDS.index(witness.kind)
        is_other_stage = bool(claim.stage) and witness.reading.stage != claim.stage
        values = [claim.value, claim.value if claim.other_value is None else claim.other_value]
        distance = min(abs(value - witness.value) for value in values)
        is_cut_off = distance > claim.last_place / 2 + witness.slack + _ROUNDING
        return is_cut_off, kind, is_other_stage, witness.slack, distance

    return min(near, key=rank, default=None)


def _candidates(claim: Reading, witnesses: Iterable[Witness]) -> Iterable[Witness]:
    """Leave out what a plain claim is far from: there may be thousands, and few that need a closer look."""
    if claim.other_value is not None or claim.bound:
        return witnesses
    value, place = claim.value, _place(claim) + _ROUNDING
    return [w for w in witnesses if abs(value - w.value) <= place + w.slack + _ROUNDING * abs(w.value)]


_KINDS = ("run", "mean", "extreme", "subset", "part")


def nearest(claim: Reading, witnesses: Iterable[Witness]) -> Witness | None:
    """Return the witness nearest to a claim, of the claim's own stage and as exact as there is."""
    known = list(witnesses)
    own = [witness for witness in known if claim.stage and witness.reading.stage == claim.stage] or known
    means = [witness for witness in own if witness.kind == "mean"] if claim.statistic == "mean" else []
    return min(means or own, key=lambda w: (max(0.0, abs(claim.value - w.value) - 4 * w.slack), w.slack), default=None)


def of_runs(runs: Iterable[LoggedRun], choose: Choose) -> Iterator[Witness]:
    """Yield each chosen reading of each run."""
    for run in runs:
        name = name_of(run)
        for reading in choose(run):
            yield Witness(value=reading.value, slack=reading.last_place / 2, reading=reading, what=name)


def of_readings(readings: Iterable[Reading]) -> Iterator[Witness]:
    """Yield each of some readings."""
    for reading in readings:
        yield Witness(value=reading.value, slack=reading.last_place / 2, reading=reading, what=reading.label)


def name_of(run: LoggedRun) -> str:
    """Name a run in a message: its seed where one is known, else its log."""
    seeds = sorted(run.seeds)
    return f"seed {'/'.join(seeds)}" if seeds else run.path


def over_seeds(submission: Submission, choose: Choose, *, with_subsets: bool = False) -> Sequence[Witness]:
    """Return means over runs: of all of a folder of logs, of the claimed seeds, and where asked of the best ones."""
    return remember(submission, (choose, with_subsets), lambda: list(_over_seeds(submission, choose, with_subsets)))


def remember(submission: Submission, key: object, make: Callable[[], T]) -> T:
    """Return what was made for a key before, or make it: hundreds of claims have the same witnesses."""
    if key not in submission.memo:
        submission.memo[key] = make()
    return cast("T", submission.memo[key])


def _over_seeds(submission: Submission, choose: Choose, with_subsets: bool) -> Iterator[Witness]:
    for runs in _groups(submission):
        for readings in _by_stage(runs, choose):
            if len(readings) < 2:
                continue
            yield mean_of(readings)
            yield _median(readings)
            yield _total_range(readings)
            if with_subsets:
                yield from _subsets(readings, len(submission.claimed_seeds))


def mean_of(readings: Sequence[Reading], kind: str = "mean") -> Witness:
    """Return the mean of some readings as a witness."""
    slack = fmean(reading.last_place / 2 for reading in readings)
    is_counted = all(reading.last_place == 0 for reading in readings)
    return Witness(
        value=fmean(reading.value for reading in readings),
        slack=slack + (1.0 if is_counted else 0.0),
        reading=readings[0],
        what=f"mean of {len(readings)} runs",
        kind=kind,
    )


def _median(readings: Sequence[Reading]) -> Witness:
    middle = sorted(readings, key=lambda reading: reading.value)[len(readings) // 2]
    return Witness(value=middle.value, slack=middle.last_place / 2, reading=middle, what="median", kind="extreme")


def _total_range(readings: Sequence[Reading]) -> Witness:
    low, high = min(r.value for r in readings), max(r.value for r in readings)
    return Witness(
        value=(low + high) / 2, slack=readings[0].last_place, reading=readings[0], what="mid-range", kind="extreme"
    )


def _subsets(readings: Sequence[Reading], num_claimed: int) -> Iterator[Witness]:
    size = num_claimed if 2 <= num_claimed < len(readings) else 0
    if size and math.comb(len(readings), size) <= MAX_SUBSETS:
        for chosen in combinations(readings, size):
            yield mean_of(chosen, kind="subset")


def _groups(submission: Submission) -> list[list[LoggedRun]]:
    """Return the sets of runs that a mean may be over.

    Each folder of logs, each family of names in it (`train_seed#.log`), all logs; of these all runs, those that came
    to an end, those of the claimed seeds, and one run a seed where a seed has several.
    """
    sets: dict[object, list[LoggedRun]] = defaultdict(list)
    for run in distinct_runs(submission.runs):
        for key in ("all", ("folder", run.group), ("names", re.sub(r"\d+", "#", run.path))):
            sets[key].append(run)
    sets["copies"] = list(submission.runs)
    claimed = set(submission.claimed_seeds)
    found: dict[tuple[int, ...], list[LoggedRun]] = {}
    for runs in sets.values():
        ended = [run for run in runs if any(reading.step is None for reading in run.finals)]
        own = [run for run in ended if run.seeds & claimed]
        for group in (runs, ended, own, _one_a_seed(own or ended), _one_a_seed((own or ended)[::-1])):
            found.setdefault(tuple(map(id, group)), group)
    return [group for group in found.values() if group]


def _one_a_seed(runs: Sequence[LoggedRun]) -> list[LoggedRun]:
    return list({min(run.seeds, default=run.path): run for run in runs}.values())


def distinct_runs(runs: Sequence[LoggedRun]) -> list[LoggedRun]:
    """Leave out copies of a log: the same scores and curve on the same seed in the same folder."""
    kept: dict[object, LoggedRun] = {}
    for run in sorted(runs, key=lambda run: (run.file_seed is None, run.path)):
        scores = tuple((reading.label, reading.text) for reading in run.finals)
        seed = run.seed.text if run.seed else run.file_seed
        key = (run.group, seed, scores, tuple(run.curve)) if scores else id(run)
        kept.setdefault(key, run)
    return sorted(kept.values(), key=lambda run: run.path)


def _by_stage(runs: Sequence[LoggedRun], choose: Choose) -> list[list[Reading]]:
    """Return for each kind of line the last reading of every run, where every run has one."""
    tables: dict[tuple[str, str, bool], list[Reading]] = defaultdict(list)
    for run in runs:
        latest = {(r.quantity, r.label if r.step is None else "validation", r.step is not None): r for r in choose(run)}
        for key, reading in latest.items():
            tables[key].append(reading)
        by_stage = {(r.quantity, f"stage {r.stage}", False): r for r in choose(run) if r.step is None and r.stage}
        for key, reading in by_stage.items():
            tables[key].append(reading)
    return [readings for readings in tables.values() if len(readings) == len(runs)]


@cache
def readings_of(*quantities: Quantity) -> Choose:
    """Make the choice of a run's readings of some quantities."""
    return lambda run: [reading for reading in run.readings if reading.quantity in quantities]


def is_disclosed(submission: Submission, claim: Reading) -> bool:
    """Whether the folder itself says, on a line with the claimed number, that no log shows it."""
    digits = claim.text.strip()
    is_score = claim.quantity in ("bpb", "loss", "eval_seconds")
    return any(
        (len(digits) >= 4 and digits in line) or (is_score and is_about_scores)
        for line, is_about_scores in _disclosures(submission.text)
    )


@lru_cache(maxsize=4)
def _disclosures(text: str) -> list[tuple[str, bool]]:
    """Return the lines that say that no log shows something, each with whether it speaks of all the scores."""
    lines = [line for line in text.split("\n") if _DISCLOSURE.search(line) is not None]
    return [(line, bool(_ABOUT_SCORES.search(line)) and "log" in line.lower()) for line in lines[:MAX_DISCLOSURES]]


def missing_seeds(submission: Submission) -> list[str]:
    """Return the claimed seeds that no log stands for, or whose every log ends before a score after training."""
    has_scores = any(_has_final(run) for run in submission.runs)
    logged = {seed for run in submission.runs if not has_scores or _has_final(run) for seed in run.seeds}
    return [seed for seed in submission.claimed_seeds if seed not in logged]


def _has_final(run: LoggedRun) -> bool:
    return any(reading.step is None for reading in run.finals)
