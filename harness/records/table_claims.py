"""Cells of a README's tables whose meaning is plain -> claims: by seed, by step, metric | value, comparisons."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import re2

from harness.records.numbers import parse_number
from harness.records.readme_claims import MAX_CLAIMS, Readme, make_reading
from harness.records.readme_tables import Line, ReadmeTable
from harness.records.submission import Reading
from harness.records.vocabulary import Meaning, Statistic, normalise, read_name, read_stage, speaks_of_other_runs

_SEED_HEADING = re.compile(r"^_(random_)?seeds?_$|^_run_seed_$|^_seed_(id|no)_$")
_SEED_CELL = re2.compile(r"(?i)^(?:\S{0,40}?seed\s*[_=:-]?\s*)?(\d{1,12})(?:\s*[(*].*|\s+\D.*|\.(?:log|txt))?$")
_NAMED_SEED = re.compile(r"(?i)\bseed\W{0,2}\d|seed[_-]?\d+\.(?:log|txt)")
_SEED_COLUMN = re.compile(r"^_?seed_(\d{1,12})_?$")
_MEAN = re.compile(r"^_(mean|avg|average)(_|$)|_(mean|avg|average)_$")
_STD = re.compile(r"^_(std|stdev|sd|std_dev|sigma|sample_std|population_std)(_|$)")
_DELTA_HEADING = re.compile(r"_delta_|_diff(erence)?_")
_OURS = re.compile(r"(?i)\bthis\b|\bours?\b|\bnew\b|submission|\bmine\b")


class _Column(NamedTuple):
    place: int
    heading: str
    meaning: Meaning
    is_guess: bool = False


def _find_seed_column(names: Sequence[str], rows: Sequence[tuple[Line, list[str]]]) -> int | None:
    """Return the column that names the seeds: by heading, else a first column of "seed 42" or `train_seed42.log`."""
    by_heading = next((i for i, name in enumerate(names) if _SEED_HEADING.match(name)), None)
    if by_heading is not None:
        return by_heading
    first = [cells[0] for _, cells in rows if cells]
    return 0 if sum(_NAMED_SEED.search(cell) is not None for cell in first) >= 2 else None


def _is_row_of_others(cells: Sequence[str], index: int) -> bool:
    """Whether a cell beside the seed says that the row is of another submission."""
    words = [cell for i, cell in enumerate(cells) if i != index and re.search(r"[A-Za-z]{3}", cell)]
    return any(speaks_of_other_runs(word) and not _OURS.search(word) for word in words)


def _is_plain_score(reading: Reading) -> bool:
    """Whether a number under a heading that names only a stage can be bits a byte and nothing else."""
    return 0.95 <= reading.value <= 1.6 and reading.last_place <= 1e-3


class TableReader:
    """Reads the tables of one README into its claims."""

    def __init__(self, path: str, readme: Readme) -> None:
        self.path = path
        self.readme = readme

    def read(self, table: ReadmeTable) -> None:
        """Read a table of a kind whose cells have a plain meaning; what it says of other runs is a reference."""
        start = len(self.readme.claims)
        seeds = list(self.readme.seeds)
        self._read_kind(table)
        claims = self.readme.claims[start:]
        self.readme.claims[start:] = [
            replace(claim, table=table.line, is_reference=claim.is_reference or table.is_about_others)
            for claim in claims
        ]
        if table.is_about_others:
            self.readme.seeds[:] = seeds

    def _read_kind(self, table: ReadmeTable) -> None:
        headings, rows = table.headings, table.rows
        names = [normalise(heading) for heading in headings]
        self._read_differences(headings, rows)
        if (seed := _find_seed_column(names, rows)) is not None:
            self._read_by_seed(seed, headings, rows)
        elif sum(bool(_SEED_COLUMN.match(name)) for name in names) >= 1 and not _SEED_COLUMN.match(names[0]):
            self._read_turned(headings, rows)
        elif names and re.match(r"^_steps?_$", names[0]):
            self._read_curve(headings, rows)
        elif len(headings) == 2 and names[1] in ("_value_", "_result_", "_values_", "__", "_bytes_"):
            self._read_values(rows, "bytes" if names[1] == "_bytes_" else "")

    def _columns(self, headings: Sequence[str], skip: int) -> list[_Column]:
        columns = []
        for i, heading in enumerate(headings):
            meaning = read_name(heading)
            if meaning is None and read_stage(heading) and not speaks_of_other_runs(heading):
                meaning = Meaning("bpb", read_stage(heading))
                columns += [_Column(i, heading, meaning, is_guess=True)] if i != skip else []
                continue
            if i == skip or meaning is None or meaning.is_reference or meaning.statistic == "delta":
                continue
            columns.append(_Column(i, heading, meaning))
        return columns

    def _read_by_seed(self, index: int, headings: Sequence[str], rows: Sequence[tuple[Line, list[str]]]) -> None:
        columns = self._columns(headings, index)
        is_comparison = any(speaks_of_other_runs(heading) for heading in headings)
        for line, cells in rows:
            if index >= len(cells):
                continue
            cell = re.sub(r"[*`~]", "", cells[index]).strip()
            name = normalise(cell)
            match = _SEED_CELL.match(cell)
            statistic: Statistic = "mean" if _MEAN.search(name) else "std" if _STD.match(name) else "value"
            if (match is None and statistic == "value") or _is_row_of_others(cells, index):
                continue
            seed = (match[1].lstrip("0") or "0") if match and statistic == "value" else None
            if seed is not None and columns and not is_comparison:
                self._claim_seed(line, seed)
            for column in columns:
                self._read_cell(line, cells, column, seed, statistic, is_reference=False)

    def _claim_seed(self, line: Line, seed: str) -> None:
        if len(self.readme.seeds) < MAX_CLAIMS and all(reading.text != seed for reading in self.readme.seeds):
            self.readme.seeds.append(
                Reading(quantity="seed", value=float(seed), origin="claimed", source="readme", path=self.path,
                        line=line.number, text=seed, label="table by seed")
            )  # fmt: skip

    def _read_turned(self, headings: Sequence[str], rows: Sequence[tuple[Line, list[str]]]) -> None:
        for line, cells in rows:
            meaning = read_name(cells[0]) if cells else None
            if meaning is None or meaning.is_reference or meaning.statistic == "delta":
                continue
            for i, heading in enumerate(headings[1:], 1):
                name = normalise(heading)
                match = _SEED_COLUMN.match(name)
                statistic: Statistic = "mean" if _MEAN.search(name) else "std" if _STD.match(name) else "value"
                if match is None and statistic == "value":
                    continue
                seed = (match[1].lstrip("0") or "0") if match else None
                if seed is not None:
                    self._claim_seed(line, seed)
                self._read_cell(line, cells, _Column(i, cells[0], meaning), seed, statistic, is_reference=False)

    def _read_curve(self, headings: Sequence[str], rows: Sequence[tuple[Line, list[str]]]) -> None:
        if any(
            normalise(heading).startswith(("_config", "_model", "_run", "_variant", "_method")) for heading in headings
        ):
            return
        columns = [column for column in self._columns(headings, 0) if column.meaning.quantity in ("bpb", "loss")]
        for line, cells in rows:
            step = parse_number(cells[0]) if cells else None
            if step is None or step.value != int(step.value):
                continue
            for column in columns:
                self._read_cell(line, cells, column, None, "value", step=int(step.value * step.factor))

    def _read_values(self, rows: Sequence[tuple[Line, list[str]]], unit: str) -> None:
        for line, cells in rows:
            meaning = read_name(f"{re.sub(r'[*`]', '', cells[0])} {unit}") if len(cells) > 1 else None
            if meaning is None or meaning.is_reference or meaning.statistic == "delta":
                continue
            self._read_cell(line, cells, _Column(1, cells[0], meaning), None, meaning.statistic)

    def _read_cell(
        self,
        line: Line,
        cells: Sequence[str],
        column: _Column,
        seed: str | None,
        statistic: Statistic,
        *,
        is_reference: bool = False,
        step: int | None = None,
    ) -> None:
        if len(self.readme.claims) >= MAX_CLAIMS or column.place >= len(cells):
            return
        if (printed := parse_number(cells[column.place])) is None:
            return
        meaning = column.meaning
        statistic = statistic if statistic != "value" else meaning.statistic
        reading = make_reading(printed, line.number, self.path, column.heading, meaning)
        if reading is None or (column.is_guess and statistic != "std" and not _is_plain_score(reading)):
            return
        self.readme.claims.append(replace(reading, seed=seed, statistic=statistic, step=step, context=line.text[:300]))

    def _read_differences(self, headings: Sequence[str], rows: Sequence[tuple[Line, list[str]]]) -> None:
        """Rows of "metric | theirs | ours | delta": the last is the difference of the two others."""
        deltas = [i for i, heading in enumerate(headings) if _DELTA_HEADING.search(normalise(heading))]
        if len(headings) != 4 or len(deltas) != 1:
            return
        others = [i for i in range(1, 4) if i != deltas[0]]
        if sum(speaks_of_other_runs(headings[i]) for i in others) != 1 or not any(
            _OURS.search(headings[i]) for i in others
        ):
            return
        scale = 1e-3 if "mb" in normalise(headings[deltas[0]]) else 1.0
        for line, cells in rows:
            if len(cells) < 4 or len(self.readme.differences) >= MAX_CLAIMS:
                continue
            numbers = [parse_number(cells[i]) for i in (*others, deltas[0])]
            meaning = read_name(cells[0]) or read_name(headings[others[0]]) or Meaning("bpb")
            if any(number is None or number.unit for number in numbers):
                continue
            readings = [
                Reading(quantity=meaning.quantity, value=number.value * factor, origin="claimed", source="readme",
                        path=self.path, line=line.number, text=number.text, label=headings[i],
                        last_place=number.last_place * factor)
                for number, i, factor in zip(numbers, (*others, deltas[0]), (1.0, 1.0, scale), strict=True)
                if number is not None
            ]  # fmt: skip
            self.readme.differences.append((readings[0], readings[1], readings[2]))
