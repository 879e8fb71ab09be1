"""The README of a foreign record: tables, lists and headline sentences -> claims with their lines.

Only numbers whose meaning is plain are claims: cells of a table by seed, of a table "metric | value", of a training
curve, list items with a known label, and the score in title or headline. Ablations, other people's numbers and
prose are left alone: nobody is convicted by a sentence that may mean something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

import re2

from harness.records.numbers import Printed, parse_number
from harness.records.submission import Problem, Reading, Statement
from harness.records.vocabulary import Meaning, Quantity, Statistic, normalise, read_name, read_stage, speaks_of_other_runs

MAX_README_BYTES = 4 * 2**20
MAX_README_CHARACTERS = 2**20
MAX_LINES = 20_000
MAX_LINE_CHARACTERS = 4000
MAX_COLUMNS = 64
MAX_CLAIMS = 400

_SEPARATOR = re2.compile(r"^\|?\s*:?-+:?\s*(\|\s*:?-*:?\s*)*\|?\s*$")
_CELL = re.compile(r"(?:\\.|[^|\\])*")
_SEED_HEADING = re.compile(r"^_(random_)?seeds?_$|^_run_seed_$|^_seed_(id|no)_$")
_SEED_CELL = re2.compile(r"(?i)^(?:seed\s*[=:]?\s*)?(\d{1,12})(?:\s*[(*].*|\s+\D.*)?$")
_SEED_COLUMN = re.compile(r"^_?seed_(\d{1,12})_?$")
_MEAN = re.compile(r"^_(mean|avg|average)(_|$)|_(mean|avg|average)_$")
_STD = re.compile(r"^_(std|stdev|sd|std_dev|sigma|sample_std|population_std)(_|$)")
_LABEL = re2.compile(r"^\s*(?:[-*+]|\d+\.)?\s*(?:\*\*|`|_)*([A-Za-z][^:=|]{1,60}?)(?:\*\*|`|_)*\s*(?:[:=]|≈)\s*(.{1,200})$")
_BPB_BEFORE = re.compile(r"(?:val[_ ]?)?(?:bpb|bpp)\W{0,8}?(?:of|is|:|=|≈|~)?\W{0,6}?(\d\.\d{2,10})(?!\d*[%x])", re.I)
_BPB_AFTER = re.compile(r"(?<![\d.+−-])(\d\.\d{3,10})\W{0,3}\s?(?:val[_ ]?)?(?:bpb|bpp)\b", re.I)
_DELTA_PAIR = re.compile(
    r"(?<![\d.])([-−+]?0?\.\d{3,6})\s*(?:BPB|BPP|bpb|bpp)\b[^.|\n]{0,60}?(?<![\d.])([-−+]?0?\.\d{3,6})\s*nats?\b(?!\s*/)"
    r"|(?<![\d.])([-−+]?0?\.\d{3,6})\s*nats?\b(?!\s*/)[^.|\n]{0,60}?(?<![\d.])([-−+]?0?\.\d{3,6})\s*(?:BPB|BPP|bpb|bpp)\b"
)
_STOPPED = re.compile(r"(?:stopped|stops|stopping|ended|finished)(?: early| by the (?:clock|cap|wallclock cap))? at\W{0,6}([\d,]{3,9})(?:\s*/\s*[\d,]+)?\W{0,4}\s*(?:training )?steps?", re.I)
_STEPS_IN = re.compile(r"(?<![~\d,/])([\d,]{3,9})\s+(?:training )?steps in (?:600|599|10 ?min)", re.I)
_SCRIPT = re2.compile(r"(?:torchrun|python3?)\s(?:[^\n#]*?[^\w./#\n-])?([A-Za-z0-9_\-]+\.py)\b")
_LOSS_IN = re.compile(r"\bval[_ ]loss\W{0,8}(\d+\.\d{3,10})(?!\d*[%x])", re.I)
_NUM_SEEDS = re.compile(r"\b(\d{1,2})[- ]seeds? (?:mean|avg|average)|\b(?:mean|average) (?:of|over|across) (\d{1,2}) seeds", re.I)
_STD_IN = re.compile(r"\b(?:std|sd|σ)\W{0,4}(0?\.\d{3,8})\b", re.I)
_MEGABYTES = re.compile(r"(?<![\d.])(\d{1,2}\.\d{1,3}\s?Mi?B)\b(?!\s*(?:limit|cap|budget))")
_DELTA_IN = re.compile(
    r"(?<![\d.])(\d\.\d{3,8})\W{0,3}\s?(?:BPB|BPP|bpb).{0,30}?\b(?:delta|Δ|improvement|gain)\b\W{0,8}([-−+]?0?\.\d{3,8})", re.I
)
_MILLIONS = re.compile(r"(?<![\d.~])(\d{1,4}(?:\.\d+)?)\s?M(?:illion)? (?:total |trainable |model )?param", re.I)
_DELTA_HEADING = re.compile(r"_delta_|_diff(erence)?_")


@dataclass(kw_only=True, slots=True)
class Readme:
    """What a README says.

    Attributes:
        claims: numbers, with their places.
        seeds: seeds that a table of results names.
        pairs: (bits a byte, nats a token) that one sentence gives for the same difference.
        differences: (first, second, claimed difference) of rows of a comparison.
        commands: scripts that it runs by a bare name.
        title: its first heading.
        text: everything, for disclosures.
        problems: met in reading.
    """

    claims: list[Reading] = field(default_factory=list)
    seeds: list[Reading] = field(default_factory=list)
    pairs: list[tuple[Reading, Reading]] = field(default_factory=list)
    differences: list[tuple[Reading, Reading, Reading]] = field(default_factory=list)
    commands: list[Statement] = field(default_factory=list)
    title: str = ""
    text: str = ""
    problems: list[Problem] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether it has stated as much as is read."""
        kept: tuple[Sized, ...] = (self.claims, self.seeds, self.pairs, self.differences, self.commands)
        return any(len(items) >= MAX_CLAIMS for items in kept)


class _Line(NamedTuple):
    number: int
    text: str
    is_code: bool


class _Column(NamedTuple):
    place: int
    heading: str
    meaning: Meaning


def read_readme(raw: bytes, path: str) -> Readme:
    """Read a README: Markdown in any state, never an error.

    Args:
        raw: its bytes.
        path: its place in the folder.
    """
    text = raw.decode("utf-8-sig", "replace").replace("\r\n", "\n")
    readme = Readme(text=text[:MAX_README_CHARACTERS])
    lines = list(islice(_lines(readme.text), MAX_LINES))
    tables, used = _find_tables(lines)
    for table in tables:
        if not readme.is_full:
            _TableReader(path, readme).read(table)
    headline = _Headline(path)
    for line in lines:
        if line.number in used:
            continue
        if line.is_code:
            _read_command(line, path, readme)
        else:
            _read_sentence(line, path, readme, headline)
        if readme.is_full:
            break
    if readme.is_full or len(text) > MAX_README_CHARACTERS or len(lines) == MAX_LINES:
        readme.problems.append(Problem(path=path, message=f"{path} is long or holds many numbers: not all of it was read"))
    return readme


def _lines(text: str) -> Iterator[_Line]:
    fence = ""
    for number, line in enumerate(text.split("\n", MAX_LINES), 1):
        start = line.lstrip()[:3]
        if fence:
            is_end = start == fence
            yield _Line(number, line[:MAX_LINE_CHARACTERS], True)
            fence = "" if is_end else fence
        elif start in ("```", "~~~"):
            fence = start
            yield _Line(number, "", True)
        else:
            yield _Line(number, line[:MAX_LINE_CHARACTERS], False)


# Tables


def _find_tables(lines: Sequence[_Line]) -> tuple[list[list[_Line]], set[int]]:
    tables: list[list[_Line]] = []
    used: set[int] = set()
    i = 0
    while i + 1 < len(lines):
        if not lines[i].is_code and "|" in lines[i].text and _SEPARATOR.match(lines[i + 1].text.strip()) and "-" in lines[i + 1].text:
            end = i + 2
            while end < len(lines) and "|" in lines[end].text and not lines[end].is_code:
                end += 1
            tables.append([lines[i], *lines[i + 2 : end]])
            used.update(line.number for line in lines[i:end])
            i = end
        else:
            i += 1
    return tables, used


def split_cells(line: str) -> list[str]:
    """Split a table row at its unescaped pipes."""
    text = line.strip()
    text = text[1:] if text.startswith("|") else text
    cells = [match[0] for match in _CELL.finditer(text)]
    # finditer yields an empty match at each pipe and at the end
    result, expect = [], True
    for cell in cells:
        if expect or cell:
            result.append(cell.strip())
        expect = not cell if not expect else False
    return result[:-1] if text.endswith("|") and result and not result[-1] else result


class _TableReader:
    def __init__(self, path: str, readme: Readme) -> None:
        self.path = path
        self.readme = readme

    def read(self, table: list[_Line]) -> None:
        """Read a table of a kind whose cells have a plain meaning."""
        headings = split_cells(table[0].text)[:MAX_COLUMNS]
        names = [normalise(heading) for heading in headings]
        rows = [(line, split_cells(line.text)) for line in table[1:]]
        self._read_differences(headings, rows)
        if (seed := next((i for i, name in enumerate(names) if _SEED_HEADING.match(name)), None)) is not None:
            self._read_by_seed(seed, headings, rows)
        elif sum(bool(_SEED_COLUMN.match(name)) for name in names) >= 1 and not _SEED_COLUMN.match(names[0]):
            self._read_turned(headings, rows)
        elif names and re.match(r"^_steps?_$", names[0]):
            self._read_curve(headings, rows)
        elif len(headings) == 2 and names[1] in ("_value_", "_result_", "_values_"):
            self._read_values(rows)

    def _columns(self, headings: Sequence[str], skip: int) -> list[_Column]:
        columns = []
        for i, heading in enumerate(headings):
            meaning = read_name(heading)
            if i == skip or meaning is None or meaning.is_reference or meaning.statistic == "delta":
                continue
            columns.append(_Column(i, heading, meaning))
        return columns

    def _read_by_seed(self, index: int, headings: Sequence[str], rows: Sequence[tuple[_Line, list[str]]]) -> None:
        columns = self._columns(headings, index)
        is_comparison = any(speaks_of_other_runs(heading) for heading in headings)
        for line, cells in rows:
            if index >= len(cells):
                continue
            cell = re.sub(r"[*`~]", "", cells[index]).strip()
            name = normalise(cell)
            match = _SEED_CELL.match(cell)
            statistic: Statistic = "mean" if _MEAN.search(name) else "std" if _STD.match(name) else "value"
            if match is None and statistic == "value":
                continue
            seed = (match[1].lstrip("0") or "0") if match and statistic == "value" else None
            if seed is not None and columns and not is_comparison:
                self._claim_seed(line, seed)
            for column in columns:
                self._read_cell(line, cells, column, seed, statistic, is_reference=False)

    def _claim_seed(self, line: _Line, seed: str) -> None:
        if len(self.readme.seeds) < MAX_CLAIMS and all(reading.text != seed for reading in self.readme.seeds):
            self.readme.seeds.append(
                Reading(quantity="seed", value=float(seed), origin="claimed", source="readme", path=self.path,
                        line=line.number, text=seed, label="table by seed")
            )  # fmt: skip

    def _read_turned(self, headings: Sequence[str], rows: Sequence[tuple[_Line, list[str]]]) -> None:
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

    def _read_curve(self, headings: Sequence[str], rows: Sequence[tuple[_Line, list[str]]]) -> None:
        if any(normalise(heading).startswith(("_config", "_model", "_run", "_variant", "_method")) for heading in headings):
            return
        columns = [column for column in self._columns(headings, 0) if column.meaning.quantity in ("bpb", "loss")]
        for line, cells in rows:
            step = parse_number(cells[0]) if cells else None
            if step is None or step.value != int(step.value):
                continue
            for column in columns:
                self._read_cell(line, cells, column, None, "value", step=int(step.value * step.factor))

    def _read_values(self, rows: Sequence[tuple[_Line, list[str]]]) -> None:
        for line, cells in rows:
            meaning = read_name(re.sub(r"[*`]", "", cells[0])) if len(cells) > 1 else None
            if meaning is None or meaning.is_reference or meaning.statistic == "delta":
                continue
            self._read_cell(line, cells, _Column(1, cells[0], meaning), None, meaning.statistic)

    def _read_cell(
        self,
        line: _Line,
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
        if reading is None:
            return
        self.readme.claims.append(replace(reading, seed=seed, statistic=statistic, step=step, context=line.text[:300]))

    def _read_differences(self, headings: Sequence[str], rows: Sequence[tuple[_Line, list[str]]]) -> None:
        """Rows of "metric | theirs | ours | delta": the last is the difference of the two others."""
        deltas = [i for i, heading in enumerate(headings) if _DELTA_HEADING.search(normalise(heading))]
        if len(headings) != 4 or len(deltas) != 1:
            return
        others = [i for i in range(1, 4) if i != deltas[0]]
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


def make_reading(printed: Printed, line: int, path: str, label: str, meaning: Meaning) -> Reading | None:
    """Make the claim of a printed number, or None where unit and meaning do not go together."""
    quantity = meaning.quantity
    factor, other = printed.factor, None
    unit = printed.unit.lower()
    if quantity.startswith("bytes"):
        if unit in ("s", "ms", "min", "h", "%", "nats", "bpb"):
            return None
        if not unit:
            name = normalise(label)
            factor = 1e6 if re.search(r"_mb_", name) else 1e3 if re.search(r"_kb_", name) else 1.0
            other = printed.value * 2.0**20 if factor == 1e6 else None
        factor = 1e6 if unit == "m" else factor
        if printed.binary_factor is not None:
            other = printed.value * printed.binary_factor
    elif quantity in ("train_seconds", "eval_seconds"):
        if not unit:
            factor = 1e-3 if "_ms_" in normalise(label) else 60.0 if "_min_" in normalise(label) else 1.0
        elif unit not in ("s", "ms", "sec", "secs", "seconds", "min", "mins", "minutes", "m", "h", "hours"):
            return None
    elif quantity == "step_ms":
        factor = 1e3 if unit in ("s", "sec", "seconds") else 1.0
    elif quantity in ("bpb", "loss") and (unit not in ("", "bpb", "bpp", "nats") or abs(printed.value) >= 100):
        return None
    elif quantity in ("steps", "params") and unit in ("s", "ms", "mb", "%"):
        return None
    return Reading(
        quantity=quantity,
        value=printed.value * factor,
        origin="claimed",
        source="readme",
        path=path,
        line=line,
        text=printed.text[:40],
        label=re.sub(r"[*`]", "", label)[:80],
        last_place=_place(printed, factor, quantity),
        other_value=other,
        stage=meaning.stage,
        statistic=meaning.statistic,
        is_reference=meaning.is_reference,
        bound=printed.prefix if printed.prefix != "~" else "",
    )


def _place(printed: Printed, factor: float, quantity: Quantity) -> float:
    is_exact = printed.last_place == 1.0 and factor == 1.0 and printed.prefix == "" and quantity not in ("train_seconds", "eval_seconds")
    place = printed.last_place * factor
    if printed.prefix == "~" and printed.last_place == 1.0 and printed.value >= 1000:
        digits = str(int(printed.value))
        place = factor * 10.0 ** (len(digits) - len(digits.rstrip("0")))
    return 0.0 if is_exact else place


# Sentences


@dataclass(slots=True)
class _Headline:
    path: str
    is_found: bool = False
    num_lines: int = 0


def _read_sentence(line: _Line, path: str, readme: Readme, headline: _Headline) -> None:
    text = line.text
    if not text.strip():
        return
    headline.num_lines += 1
    if text.lstrip().startswith("#") and not readme.title:
        readme.title = text.strip("# ")[:300]
    _read_pairs(line, path, readme)
    _read_steps(line, path, readme)
    if headline.num_lines <= 25:
        if not headline.is_found:
            _read_headline(line, path, readme, headline)
        _read_beside_headline(line, path, readme)
    if not text.lstrip().startswith(("#", ">")):
        _read_label(line, path, readme)


def _read_headline(line: _Line, path: str, readme: Readme, headline: _Headline) -> None:
    """The first score of a title or of a bold line; what stands behind "vs" or "PR" is somebody else's."""
    text = line.text
    if not (text.lstrip().startswith("#") or "**" in text or _LABEL.match(text)):
        return
    own = re.split(r"(?i)\bvs\.?\b|\bover\b|\bfrom\b|PR ?#|baseline|SOTA|previous|prior|merged", text)[0]
    match = _BPB_BEFORE.search(own) or _BPB_AFTER.search(own)
    if match is None or read_stage(own[: match.start()]) in ("pre_quant", "pre_ttt"):
        return
    printed = parse_number(match[1])
    if printed is None:
        return
    reading = make_reading(printed, line.number, path, "headline", Meaning("bpb"))
    if reading is not None and 0.2 < reading.value < 8:
        is_mean = re.search(r"(?i)\bmean\b|\bavg\b|\baverage\b|\d-seed", text) is not None
        readme.claims.append(
            replace(reading, is_headline=True, statistic="mean" if is_mean else "value", context=text[:300])
        )
        headline.is_found = True


def _read_beside_headline(line: _Line, path: str, readme: Readme) -> None:
    """Loss, deviation, size and number of seeds in a line with the headline; a number of parameters near the top."""
    text = line.text
    _read_delta(line, path, readme)
    if _is_about_others(text):
        return
    statistic: Statistic = "mean" if "mean" in text.lower() else "value"
    is_bold = text.lstrip().startswith("#") or "**" in text
    has_score = any(claim.line == line.number and claim.is_headline for claim in readme.claims)
    for pattern, label, meaning, is_wanted in (
        (_LOSS_IN, "val_loss", Meaning("loss", "", statistic), is_bold),
        (_NUM_SEEDS, "number of seeds", Meaning("num_seeds"), is_bold),
        (_STD_IN, "std", Meaning("bpb", "", "std"), has_score),
        (_MEGABYTES, "size", Meaning("bytes_total"), has_score),
    ):
        match = pattern.search(text) if is_wanted else None
        printed = parse_number(next(group for group in match.groups() if group)) if match else None
        reading = make_reading(printed, line.number, path, label, meaning) if printed else None
        known = [(claim.line, claim.quantity, claim.statistic) for claim in readme.claims]
        if reading is not None and (line.number, reading.quantity, reading.statistic) not in known:
            readme.claims.append(replace(reading, context=text[:300]))
    match = _MILLIONS.search(text)
    printed = parse_number(match[1]) if match else None
    if printed is not None and (reading := make_reading(printed, line.number, path, "million parameters", Meaning("params"))):
        place = printed.last_place * 1e6
        readme.claims.append(replace(reading, value=printed.value * 1e6, last_place=place, text=f"{printed.text}M"))


def _read_delta(line: _Line, path: str, readme: Readme) -> None:
    """A former score and the difference to it: "SOTA: 1.1147 BPB. Delta: -0.0250"."""
    own = next((claim for claim in readme.claims if claim.is_headline), None)
    match = _DELTA_IN.search(line.text)
    numbers = [parse_number(group) for group in match.groups()] if match else []
    if own is None or len(numbers) != 2 or own.line == line.number or not _is_about_others(line.text):
        return
    former, delta = (
        Reading(quantity="bpb", value=number.value, origin="claimed", source="readme", path=path, line=line.number,
                text=number.text, label=label, last_place=number.last_place)
        for number, label in zip(numbers, ("former score", "difference"), strict=True) if number is not None
    )  # fmt: skip
    if abs(own.value - former.value) < 0.2:
        readme.differences.append((own, former, delta))


def _is_about_others(text: str) -> bool:
    return re.search(r"(?i)\bvs\b|\bversus\b|baseline|PR ?#|\bsota\b|previous|\bfrom\b|\bprior\b", text) is not None


def _read_label(line: _Line, path: str, readme: Readme) -> None:
    """A list item or line "label: value"."""
    match = _LABEL.match(line.text)
    if match is None:
        return
    label, rest = match[1], match[2]
    meaning = read_name(label)
    if meaning is None or meaning.is_reference or meaning.statistic == "delta" or meaning.quantity in ("bpb", "loss", "seed"):
        if meaning is not None and meaning.quantity == "seed" and (seed := re.match(r"[*`\s]*(\d{1,12})[*`\s]*$", rest)):
            readme.seeds.append(
                Reading(quantity="seed", value=float(seed[1]), origin="claimed", source="readme", path=path,
                        line=line.number, text=seed[1].lstrip("0") or "0", label="seed", is_reference=True)
            )  # fmt: skip
        if meaning is None or meaning.quantity not in ("bpb", "loss") or meaning.is_reference or meaning.statistic == "delta":
            return
    printed = parse_number(rest, whole=False)
    if printed is None or printed.rest.startswith(("/", "x", "->", "→", "to ", "-", "over ")):
        return
    if _is_about_others(line.text):
        return
    reading = make_reading(printed, line.number, path, label, meaning)
    if reading is not None:
        readme.claims.append(replace(reading, context=line.text[:300]))


def _read_pairs(line: _Line, path: str, readme: Readme) -> None:
    for match in _DELTA_PAIR.finditer(line.text):
        bpb, nats = (match[1], match[2]) if match[1] else (match[4], match[3])
        first, second = parse_number(bpb), parse_number(nats)
        if first is None or second is None or not 0 < abs(first.value) < 0.5:
            continue
        readme.pairs.append(
            (
                _difference(first, "bpb", "difference in bits a byte", line, path),
                _difference(second, "loss", "difference in nats", line, path),
            )
        )


def _difference(number: Printed, quantity: Quantity, label: str, line: _Line, path: str) -> Reading:
    return Reading(
        quantity=quantity,
        value=abs(number.value),
        origin="claimed",
        source="readme",
        path=path,
        line=line.number,
        text=number.text,
        label=label,
        last_place=number.last_place,
        statistic="delta",
        context=line.text[:300],
    )


def _read_steps(line: _Line, path: str, readme: Readme) -> None:
    match = _STOPPED.search(line.text) or _STEPS_IN.search(line.text)
    if match is None or (printed := parse_number(match[1])) is None:
        return
    if re.search(r"(?i)\bvs\b|\bversus\b", line.text) or speaks_of_other_runs(line.text.partition(match[0])[0]):
        return
    reading = make_reading(printed, line.number, path, "stopped at", Meaning("steps"))
    if reading is not None:
        readme.claims.append(replace(reading, context=line.text[:300]))


def _read_command(line: _Line, path: str, readme: Readme) -> None:
    match = _SCRIPT.search(line.text.replace("\\", ""))
    if match is not None:
        readme.commands.append(Statement(path=path, line=line.number, text=match[1]))
