"""Speed-run records: folders of training logs with val_loss and train_time, in the style of modded-nanogpt."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import re2

from harness.errors import RecordError
from harness.records.folder import RecordFolder
from harness.records.markdown import MAX_CLAIMS, MAX_README_BYTES, read_readme
from harness.records.numbers import parse_number
from harness.records.parameter_golf import keep_path, read_log_file
from harness.records.submission import FileEntry, Problem, Reading, Submission
from harness.records.vocabulary import Quantity, Statistic, read_name

SNIFFED_BYTES = 65536
_LOG = re.compile(r"[\w-]+\.(txt|log)", re.I)
_NO_LOG = re.compile(r"requirements.*|readme.*|license.*", re.I)
_README = re.compile(r"readme(\.\w+)?", re.I)
_LIST = re2.compile(r"(?m)^[ \t]*([a-z_]{3,30})[ \t]*=[ \t]*\[([^\]]+)\]")
_SUMMARY = re.compile(r"\(\s*std\s*=\s*([\d.]+)\s*,\s*mean\s*=\s*([\d.]+)\s*\)")
_LISTED: dict[str, Quantity] = {"losses": "loss", "accs": "loss", "val_losses": "loss", "times": "train_seconds"}


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
    claims += [*_read_lists(readme.text, entry.path), *_read_headline(readme.text, entry.path)]
    submission.keep(submission.claims, claims, "numbers")


def _read_lists(text: str, path: str) -> list[Reading]:
    """Read lists like `losses = [3.2789, 3.2792]`, one value a run, and the statistics printed below them.

    Only the first list of a quantity is about this record; later ones are comparisons.
    """
    claims: list[Reading] = []
    for match in _LIST.finditer(text):
        quantity = _LISTED.get(match[1]) or _quantity(match[1])
        if quantity is None or any(claim.quantity == quantity for claim in claims):
            continue
        line = text.count("\n", 0, match.start()) + 1
        numbers = [parse_number(cell) for cell in match[2].split(",", MAX_CLAIMS)[:MAX_CLAIMS] if cell.strip()]
        values = [number for number in numbers if number is not None]
        claims += [
            Reading(quantity=quantity, value=number.value, origin="claimed", source="readme", path=path, line=line,
                    text=number.text, label=match[1], last_place=number.last_place, seed=f"#{i + 1}")
            for i, number in enumerate(values)
        ]  # fmt: skip
    return [*claims, *_read_statistics(text, path, claims)]


def _read_statistics(text: str, path: str, claims: list[Reading]) -> list[Reading]:
    found: list[Reading] = []
    for quantity, word in (("loss", "loss"), ("train_seconds", "time")):
        match = re.search(rf"(?mi)^#?[ \t]*{word}(?:s|es)?\s*:\s*{_SUMMARY.pattern}", text)
        first = next((claim for claim in claims if claim.quantity == quantity), None)
        if match is None or first is None:
            continue
        line = text.count("\n", 0, match.start()) + 1
        statistics: tuple[tuple[Statistic, str], ...] = (("std", match[1]), ("mean", match[2]))
        for statistic, digits in statistics:
            number = parse_number(digits)
            if number is not None:
                found.append(
                    replace(first, value=number.value, text=number.text, last_place=number.last_place, line=line,
                            seed=None, statistic=statistic, is_headline=(quantity, statistic) == ("loss", "mean"))
                )  # fmt: skip
    return found


def _read_headline(text: str, path: str) -> list[Reading]:
    """Read "in 10.8 minutes on 8xH100" and "p=0.0045": the time of the record, the p-value of its list."""
    found: list[Reading] = []
    forms: tuple[tuple[Quantity, str, float], ...] = (
        ("train_seconds", r"\bin (\d+(?:\.\d+)?) minutes on\b", 60.0),
        ("p_value", r"\bp\s*=\s*(0?\.\d+)", 1.0),
    )
    for quantity, pattern, factor in forms:
        match = re.search(pattern, text)
        number = parse_number(match[1]) if match else None
        if match is not None and number is not None:
            found.append(
                Reading(quantity=quantity, value=number.value * factor, origin="claimed", source="readme", path=path,
                        line=text.count("\n", 0, match.start()) + 1, text=number.text, label=match[0][:60],
                        last_place=number.last_place * factor)
            )  # fmt: skip
    return found


def _quantity(name: str) -> Quantity | None:
    meaning = read_name(name)
    return meaning.quantity if meaning and meaning.quantity in ("loss", "train_seconds") else None
