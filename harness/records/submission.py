"""What a foreign record folder says, whatever its dialect: claims, logged runs, files, problems of reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

from harness.records.log_stream import LogBudget
from harness.records.values import Origin, Value
from harness.records.vocabulary import Quantity, Stage, Statistic

Source = Literal["summary", "readme", "log", "file"]

# What is kept of one record; real ones have a tenth of it.
MAX_CLAIMS = 800
MAX_TEXT_CHARACTERS = 2**20
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """A number that the folder states, with everything its place says of it.

    Attributes:
        quantity: what is measured.
        value: in bits a byte, nats a token, bytes, seconds, milliseconds or counts.
        origin: "claimed" (summary, README), "logged" or "measured" (size of a file).
        source: kind of file.
        path: file inside the folder.
        line: from 1; None for files without lines.
        text: as printed.
        label: key, heading or line family.
        last_place: one unit of the last printed digit, in the unit of `value`; 0 where the value is exact.
        other_value: the value if "MB" means MiB; None where the print is unambiguous.
        stage: of the run at which it was measured; empty where unknown.
        statistic: over seeds.
        seed: the seed that it belongs to, "#3" for the third run of a list without seeds; None where it belongs to
            no single one.
        step: the optimiser step that it belongs to; None where it is no point of a curve.
        is_reference: whether it speaks of another run.
        is_headline: whether it is the number that the folder is known by.
        bound: "<" or ">" where the print is only a bound.
        context: sentence, for messages and disclosures.
        table: line of the heading of the table that it is a cell of; None outside of tables.
    """

    quantity: Quantity
    value: float
    origin: Origin
    source: Source
    path: str
    line: int | None = None
    text: str = ""
    label: str = ""
    last_place: float = 0.0
    other_value: float | None = None
    stage: Stage = ""
    statistic: Statistic = "value"
    seed: str | None = None
    step: int | None = None
    is_reference: bool = False
    is_headline: bool = False
    bound: str = ""
    context: str = ""
    table: int | None = None

    @property
    def place(self) -> str:
        """`train.log:1431 final_sliding_window_exact`, for messages."""
        line = f":{self.line}" if self.line is not None else ""
        return f"{self.path}{line}{f' {self.label}' if self.label else ''}"

    @property
    def shown(self) -> int | float:
        """The value as a finding shows it: whole numbers without a point."""
        return int(self.value) if self.value == int(self.value) and abs(self.value) < 2**53 else self.value

    def as_value(self) -> Value:
        """Return the evidence of a finding."""
        return Value(origin=self.origin, value=self.shown, path=self.path, line=self.line, label=self.label)


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """A line of text that a rule may quote: a violation that a log reports of itself, a limited evaluation."""

    path: str
    line: int
    text: str


@dataclass(kw_only=True, slots=True)
class LoggedRun:
    """One run of a log.

    Attributes:
        path: the log.
        first_line: where the run begins.
        seed: as printed in the run; None where it prints none.
        file_seed: as the name of the log says; None where it says none.
        file_number: a number in its name that may be the seed; None where there is none.
        readings: everything that it logged, in order.
        curve: (step, losses as printed) of validations and the first training steps: two seeds never share it.
        violations: lines in which the run says itself that it is over a size or not valid.
        overruns: lines in which the run says itself that it took too long.
        limits: lines that say that only a part of the validation split was used.
        vocab_size: as logged; None where it is not.
        dataset: name of the token data set as logged; empty where it is not.
        calibration: on training data after the training clock; None where not logged.
        planned_steps: the number of steps that validations are counted against; None where not logged.
    """

    path: str
    first_line: int = 1
    seed: Reading | None = None
    file_seed: str | None = None
    file_number: str | None = None
    readings: list[Reading] = field(default_factory=list)
    curve: list[tuple[int, str]] = field(default_factory=list)
    violations: list[Statement] = field(default_factory=list)
    overruns: list[Statement] = field(default_factory=list)
    limits: list[Statement] = field(default_factory=list)
    vocab_size: int | None = None
    dataset: str = ""
    calibration: Reading | None = None
    planned_steps: int | None = None
    _by_quantity: dict[Quantity, list[Reading]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _num_indexed: int = field(default=0, init=False, repr=False, compare=False)

    @property
    def seeds(self) -> set[str]:
        """The seeds that this run can stand for: as printed and as its file is named."""
        printed = {self.seed.text} if self.seed else set()
        return printed | ({self.file_seed} if self.file_seed else set())

    @property
    def group(self) -> str:
        """Folder of the log; logs of unlike folders are unlike evaluations."""
        return self.path.rpartition("/")[0]

    def of(self, quantity: Quantity) -> list[Reading]:
        """Return the readings of a quantity, in order."""
        if self._num_indexed != len(self.readings):
            self._by_quantity = {}
            for reading in self.readings:
                self._by_quantity.setdefault(reading.quantity, []).append(reading)
            self._num_indexed = len(self.readings)
        return self._by_quantity.get(quantity, [])

    @property
    def finals(self) -> list[Reading]:
        """The scores after training, in order; where none is, the last validation."""
        scores = self.of("bpb") or self.of("loss")
        return [reading for reading in scores if reading.step is None] or scores[-1:]

    @property
    def has_training(self) -> bool:
        """Whether the run trained, rather than only scored a stored model."""
        return len(self.curve) > 0 or bool(self.of("steps"))


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """A file of the folder: path inside it and size in bytes."""

    path: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something that kept a file from being read as it should be; `is_fatal` where nothing of it could be."""

    path: str
    message: str
    line: int | None = None
    is_fatal: bool = False


@dataclass(kw_only=True, slots=True)
class Submission:
    """A foreign record folder, read.

    Attributes:
        format: name of the dialect.
        folder: where it lies.
        name: its path as found.
        files: everything in it.
        claims: numbers of the summary and the README.
        runs: of all logs, the last of each log last.
        earlier_runs: runs of a log that another run of the same log follows; not claimed unless the text says so.
        problems: met in reading.
        seeds: claimed seeds with their place; repeated ones are kept.
        text: README and summary texts, for disclosures.
        title: what the record calls itself.
        is_main_track: whether the contest's time limit applies; None where unknown.
        summaries: paths of summary files.
        readmes: paths of READMEs.
        logs: paths of logs.
        scripts: code files.
        commands: scripts that the README runs, with their place.
        pairs: (bits a byte, nats a token) that one sentence gives for the same difference.
        differences: (first, second, claimed difference) of rows of a comparison.
        gaps: (score of a former record, claimed difference to it).
        log_budget: how much of its logs is still read.
        memo: what was computed from it, by what it is; nothing changes after reading.
    """

    format: str
    folder: Path
    name: str
    files: Sequence[FileEntry] = ()
    claims: list[Reading] = field(default_factory=list)
    runs: list[LoggedRun] = field(default_factory=list)
    earlier_runs: list[LoggedRun] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    seeds: list[Reading] = field(default_factory=list)
    text: str = ""
    title: str = ""
    is_main_track: bool | None = None
    byte_cap: int | None = None
    summaries: list[str] = field(default_factory=list)
    readmes: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    scripts: list[FileEntry] = field(default_factory=list)
    commands: list[Statement] = field(default_factory=list)
    pairs: list[tuple[Reading, Reading]] = field(default_factory=list)
    differences: list[tuple[Reading, Reading, Reading]] = field(default_factory=list)
    gaps: list[tuple[Reading, Reading]] = field(default_factory=list)
    log_budget: LogBudget = field(default_factory=LogBudget)
    memo: dict[object, object] = field(default_factory=dict)

    def keep(self, kept: list[T], more: Sequence[T], what: str, limit: int = MAX_CLAIMS) -> None:
        """Add to one of the lists, up to a limit; what is beyond it makes one problem.

        Args:
            kept: the list.
            more: what is added to it.
            what: the items in words.
            limit: how many it may hold.
        """
        room = max(0, limit - len(kept))
        kept += islice(more, room)
        problem = Problem(path="", message=f"more than the {limit:,} {what} that are looked at", is_fatal=True)
        if len(more) > room and problem not in self.problems:
            self.problems.append(problem)

    def add_text(self, text: str) -> None:
        """Add to the texts in which disclosures are looked for."""
        self.text = f"{self.text}{text}"[:MAX_TEXT_CHARACTERS]

    def claimed(self, *quantities: Quantity, source: Source | None = None) -> Iterator[Reading]:
        """Yield the claims of some quantities that speak of this submission itself."""
        for claim in self.claims:
            if claim.quantity in quantities and not claim.is_reference and source in (None, claim.source):
                yield claim

    def listed(self, quantity: Quantity) -> list[Reading]:
        """Return the claims of a list of results without seeds, one a run."""
        return [claim for claim in self.claimed(quantity) if claim.seed is not None and claim.seed.startswith("#")]

    @property
    def claimed_seeds(self) -> list[str]:
        """The claimed seeds, each once: those of the summary, else those of the README's tables, else its mention."""
        for keep in (lambda s: s.source == "summary", lambda s: not s.is_reference, lambda s: True):
            if chosen := [reading.text for reading in self.seeds if keep(reading)]:
                return list(dict.fromkeys(chosen))
        return []

    def runs_of(self, seed: str) -> list[LoggedRun]:
        """Return the runs of a seed: by the name of the log, else by the printed seed."""
        by_name = [run for run in self.runs if run.file_seed == seed]
        return by_name or [run for run in self.runs if run.file_seed is None and run.seed and run.seed.text == seed]

    def settle_seeds(self) -> None:
        """Take the number in the name of a log for its seed where claims say so and the log prints no claimed one."""
        claimed = set(self.claimed_seeds)
        for run in (*self.runs, *self.earlier_runs):
            printed = run.seed.text if run.seed else None
            if (
                run.file_seed is None
                and run.file_number is not None
                and (run.file_number == printed or (run.file_number in claimed and printed not in claimed))
            ):
                run.file_seed = run.file_number

    def all_readings(self) -> Iterator[Reading]:
        """Yield every value found: claims, then runs, earlier runs last."""
        yield from self.claims
        for run in (*self.runs, *self.earlier_runs):
            yield from run.readings


def with_seed(reading: Reading, seed: str | None) -> Reading:
    """Return a reading that belongs to a seed."""
    return replace(reading, seed=seed)
