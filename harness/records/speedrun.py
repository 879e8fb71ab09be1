"""Speed-run records: folders of training logs with val_loss and train_time, in the style of modded-nanogpt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import NamedTuple

import re2

from harness.errors import RecordError
from harness.records.folder import RecordFolder
from harness.records.markdown import MAX_README_BYTES, read_readme
from harness.records.numbers import Printed, parse_number
from harness.records.parameter_golf import keep_path, read_log_file
from harness.records.submission import FileEntry, LoggedRun, Problem, Reading, Submission
from harness.records.vocabulary import Quantity, Statistic, read_name

SNIFFED_BYTES = 65536
# A loss printed this coarsely, or coarser, is the target that was reached, not the loss of a run.
TARGET_PLACE = 0.01
MIN_MILLISECONDS = 10_000
MAX_MINUTES = 30

_LOG = re.compile(r"[\w-]+\.(txt|log)", re.I)
_NO_LOG = re.compile(r"requirements.*|readme.*|license.*", re.I)
_README = re.compile(r"readme(\.\w+)?", re.I)
_LIST = re2.compile(r"(?mi)^[ \t]*([a-z_]{3,30})[ \t]*=[ \t]*\[([^\]]+)\]")
_LISTED: dict[str, Quantity] = {"losses": "loss", "accs": "loss", "val_losses": "loss", "times": "train_seconds"}
_NAMES: dict[Quantity, str] = {"loss": r"(?:val_)?loss(?:es)?", "train_seconds": r"(?:train_)?times?"}
_STATISTIC = re.compile(r"(?i)\b(std|mean)\s*[:=]\s*(\d+\.?\d*(?:e-?\d+)?)")
# Printed by torch.std_mean
_TENSORS = re.compile(r"\(\s*tensor\(([\d.]+)[^()]*\)\s*,\s*tensor\(([\d.]+)[^()]*\)\s*\)")
_P_VALUE = re.compile(r"(?i)\bp(?:[- _]?val(?:ue)?)?\s*[=:]\s*(\d?\.\d+(?:e-?\d+)?|\d+e-\d+)")
_LOSS = re.compile(r"(?i)(?<![\d.])(\d\.\d{1,6})\s+(?:\w+\s+){0,2}val(?:idation)?[ _]loss\b")
_TIME = re.compile(r"(?i)\bin [~≈]?(\d+(?:\.\d+)?)\s*(minutes|mins?|seconds|s)\b")
_IS_ABOUT_RECORD = re.compile(r"(?i)\brecord\b|\bon \d+ ?x|\bspeed ?run")
_OTHERS = re.compile(r"(?i)\b(?:previous|prior|former|old|baseline|vs|versus|from|was|without|ablation|instead|PR ?#)")


class SpeedRun:
    """Reads folders of speed-run logs: no summary file, the README's lists are the claims."""

    name = "speed-run"

    def is_surely_record(self, names: Iterable[str]) -> bool:
        """No name alone makes a speed-run record."""
        return False

    def may_be_record(self, names: Iterable[str]) -> bool:
        """A folder with text logs may be one."""
        return any(_is_log(name) for name in names)

    def is_record(self, folder: RecordFolder) -> bool:
        """Whether a log ends in validations with a training time and no bits a byte."""
        logs = [name for name in folder.names() if _is_log(name)]
        return any(_is_speedrun(folder.tail(name, SNIFFED_BYTES)) for name in logs[:3])

    def read(self, folder: RecordFolder) -> Submission:
        """Read a record folder; see `RecordFormat.read`."""
        submission = Submission(format=self.name, folder=folder.path, name=folder.name, files=folder.files)
        submission.problems += folder.problems
        for entry in folder.files:
            if _is_log(entry.path) and "/" not in entry.path:
                read_log_file(folder, entry, submission)
            elif "/" not in entry.path and _README.fullmatch(entry.path):
                _read_readme(folder, entry, submission)
        for run in submission.runs:
            _add_final(run)
        return submission


def _is_log(name: str) -> bool:
    return _LOG.fullmatch(name) is not None and not _NO_LOG.fullmatch(name)


def _is_speedrun(tail: bytes) -> bool:
    return b"val_loss" in tail and b"train_time" in tail and b"val_bpb" not in tail


def _read_readme(folder: RecordFolder, entry: FileEntry, submission: Submission) -> None:
    if not keep_path(submission, submission.readmes, entry, "READMEs"):
        return
    try:
        raw = folder.read(entry.path, MAX_README_BYTES)
    except RecordError as error:
        submission.problems.append(Problem(path=entry.path, message=str(error), is_fatal=True))
        return
    readme = read_readme(raw, entry.path)
    submission.add_text(readme.text)
    submission.title = submission.title or readme.title
    submission.problems += readme.problems
    claims = [claim for claim in readme.claims if claim.seed is not None]
    submission.keep(submission.claims, [*claims, *_Readme(readme.text, entry.path).read()], "numbers")


def _add_final(run: LoggedRun) -> None:
    """The validation at the last planned step is the result of a run."""
    last = run.readings[-1].step if run.readings else None
    if last is not None and last == run.planned_steps:
        ends = [r for r in run.readings if r.step == last and r.quantity in ("loss", "train_seconds")]
        run.readings += [replace(reading, step=None, label="final validation") for reading in ends]


class _List(NamedTuple):
    quantity: Quantity
    name: str
    start: int
    end: int
    numbers: list[tuple[int, Printed]]


class _Readme:
    """Reads what a README of a speed run claims: the list of its results with their statistics, and its headline.

    Only the first list of a quantity, and what is printed before the next one, is about this record.
    """

    def __init__(self, text: str, path: str) -> None:
        self.text = text
        self.path = path

    def read(self) -> list[Reading]:
        """Return the claims."""
        lists = list(self._find_lists())
        claims = [*self._read_lists(lists, "loss"), *self._read_lists(lists, "train_seconds")]
        has_headline = any(claim.is_headline for claim in claims)
        return [*claims, *self._read_p_value(lists), *self._read_sentences(is_headline=not has_headline)]

    def _find_lists(self) -> Iterator[_List]:
        for match in _LIST.finditer(self.text):
            quantity = _LISTED.get(match[1].lower()) or _quantity(match[1])
            if quantity is None:
                continue
            cells = [(cell.start() + match.start(2), cell[0]) for cell in re.finditer(r"[^,\s][^,]*", _plain(match[2]))]
            numbers = [(place, parse_number(cell)) for place, cell in cells]
            known = [(place, number) for place, number in numbers if number is not None]
            if len(known) == len(numbers):
                yield _List(quantity, match[1], match.start(), match.end(), known)

    def _read_lists(self, lists: Sequence[_List], quantity: Quantity) -> Iterator[Reading]:
        own = [found for found in lists if found.quantity == quantity]
        if not own:
            return
        first, end = own[0], own[1].start if len(own) > 1 else len(self.text)
        factor = _factor([number for _, number in first.numbers]) if quantity == "train_seconds" else 1.0
        # A list that was printed as a whole lacks the zeros at the end of its numbers.
        last_place = factor * min((number.last_place for _, number in first.numbers), default=0.0)
        for i, (place, number) in enumerate(first.numbers, 1):
            claim = self._claim(quantity, place, number, first.name, factor=factor)
            yield replace(claim, seed=f"#{i}", last_place=last_place)
        after = [found.start for found in lists if found.start > first.start]
        for statistic, place, number in self._find_statistics(first, end, min(after, default=end)):
            claim = self._claim(quantity, place, number, first.name, factor=factor)
            yield replace(claim, statistic=statistic, is_headline=(quantity, statistic) == ("loss", "mean"))

    def _find_statistics(self, first: _List, end: int, end_of_unnamed: int) -> Iterator[tuple[Statistic, int, Printed]]:
        """Find "# losses: (std=0.0007, mean=3.2790)" anywhere before `end`, or an unnamed pair right below the list."""
        line = re.compile(rf"(?mi)^[ \t#*-]*{_NAMES[first.quantity]}\s*[:=][^\n]*").search(self.text, first.end, end)
        found: list[tuple[Statistic, int, str]] = []
        if line is not None:
            found = [
                ("std" if match[1].lower() == "std" else "mean", line.start() + match.start(), match[2])
                for match in _STATISTIC.finditer(line[0])
            ]
        elif (pair := _TENSORS.search(self.text, first.end, end_of_unnamed)) is not None:
            found = [("std", pair.start(1), pair[1]), ("mean", pair.start(2), pair[2])]
        for statistic, place, digits in found:
            if (number := parse_number(digits)) is not None:
                yield statistic, place, number

    def _read_p_value(self, lists: Sequence[_List]) -> Iterator[Reading]:
        """Read "p=0.0045": of the first list of losses where there is one."""
        own = [found for found in lists if found.quantity == "loss"]
        start, end = own[0].end if own else 0, own[1].start if len(own) > 1 else len(self.text)
        match = _P_VALUE.search(self.text, start, end)
        if match is not None and (number := parse_number(match[1])) is not None:
            yield self._claim("p_value", match.start(), number, match[0])

    def _read_sentences(self, *, is_headline: bool) -> Iterator[Reading]:
        """Read "3.28 FineWeb val loss in 10.8 minutes": a loss that was reached, and the time of the record."""
        for line in re.finditer(r"[^\n]+", self.text):
            own = _OTHERS.split(line[0])[0]
            loss, time = _LOSS.search(own), _TIME.search(own)
            if time is None or (loss is None and not _IS_ABOUT_RECORD.search(own)):
                continue
            if loss is not None and (number := parse_number(loss[1])) is not None:
                claim = self._claim("loss", line.start(), number, "val loss")
                bound = "<" if number.last_place >= TARGET_PLACE else ""
                yield replace(claim, bound=bound, is_headline=is_headline)
            if (number := parse_number(time[1])) is not None:
                factor = 60.0 if time[2].lower().startswith("m") else 1.0
                yield self._claim("train_seconds", line.start(), number, time[0], factor=factor)
            return

    def _claim(
        self,
        quantity: Quantity,
        place: int,
        number: Printed,
        label: str,
        *,
        factor: float = 1.0,
    ) -> Reading:
        return Reading(
            quantity=quantity,
            value=number.value * factor,
            origin="claimed",
            source="readme",
            path=self.path,
            line=self.text.count("\n", 0, place) + 1,
            text=number.text,
            label=label[:60],
            last_place=number.last_place * factor,
        )


def _plain(cells: str) -> str:
    """Blank out comments in a list, so that places stay."""
    return re.sub(r"#[^\n]*", lambda match: " " * len(match[0]), cells)


def _factor(numbers: Sequence[Printed]) -> float:
    """Return the unit of a list of times in seconds: no run takes less than 30 s, or hours."""
    middle = median(number.value for number in numbers)
    return 1e-3 if middle >= MIN_MILLISECONDS else 60.0 if middle < MAX_MINUTES else 1.0


def _quantity(name: str) -> Quantity | None:
    meaning = read_name(name)
    is_own = meaning is not None and not meaning.is_reference and meaning.statistic == "value"
    return meaning.quantity if meaning and is_own and meaning.quantity in _NAMES else None
