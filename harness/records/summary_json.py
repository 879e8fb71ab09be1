"""The summary of a foreign record (`submission.json`): any key, any nesting -> claims with line and precision."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from harness.errors import RecordError
from harness.records.numbers import is_sane, last_place, parse_number
from harness.records.safeio import JSON, MAX_JSON_DEPTH, find_twice, index_lines
from harness.records.submission import Problem, Reading
from harness.records.vocabulary import (
    MAX_NAME_CHARACTERS,
    Meaning,
    Quantity,
    normalise,
    read_name,
    speaks_of_other_runs,
)

MAX_SUMMARY_BYTES = 2**20
MAX_CLAIMS = 400
MAX_SEEDS = 400
MAX_PROBLEMS = 10
MAX_LABEL_CHARACTERS = 120
_SEED_KEY = re.compile(r"(?:seed[_ -]?)?(\d{1,12})", re.I)
_PER_SEED = re.compile(r"_(seeds?|seed_results|seed_scores|per_seed|runs|results)_")
_UNITS: tuple[tuple[str, float], ...] = ((r"_ms_", 1e-3), (r"_(min|minutes)_", 60.0), (r"_(h|hours)_", 3600.0))
_TITLE_KEYS = ("name", "run_name", "title")
_REFERENCE_PARTS = frozenset({"compliance", "hardware", "config", "hyperparameters", "env"})


class PrintedFloat(float):
    """A float that remembers how it was printed."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> PrintedFloat:
        """Read a number, and keep its print."""
        number = super().__new__(cls, text)
        number.text = text
        return number


class PrintedInt(int):
    """An integer, which JSON prints in one way only."""

    __slots__ = ()

    @property
    def text(self) -> str:
        """Its print."""
        return str(int(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a summary file says.

    Attributes:
        claims: numbers, with their places.
        seeds: claimed seeds.
        title: what the record calls itself.
        words: its texts, for disclosures.
        track: as stated; empty where it is not.
        problems: met in reading.
    """

    claims: Sequence[Reading] = ()
    seeds: Sequence[Reading] = ()
    title: str = ""
    words: str = ""
    track: str = ""
    problems: Sequence[Problem] = ()


def read_summary(raw: bytes, path: str) -> Summary:
    """Read a summary file.

    Args:
        raw: its bytes.
        path: its place in the folder.

    Raises:
        RecordError: nothing of it can be read; says why.
    """
    value, text, problems = parse_leniently(raw, path)
    if not isinstance(value, dict):
        raise RecordError(f"{path} holds {type(value).__name__}, expected an object with the submission's numbers")
    reader = _Reader(path, index_lines(text))
    claims = list(islice(reader.walk(value, (), _Context()), MAX_CLAIMS))
    if len(claims) == MAX_CLAIMS:
        problems.append(f"only the first {MAX_CLAIMS} numbers of the summary are read")
    title = next((str(value[key]) for key in _TITLE_KEYS if isinstance(value.get(key), str)), "")
    return Summary(
        claims=_mark_headline(claims),
        seeds=reader.seeds,
        title=title[:300],
        words="\n".join(_words(value))[:100_000],
        track=str(value.get("track", ""))[:100],
        problems=[Problem(path=path, message=problem) for problem in problems],
    )


def parse_leniently(raw: bytes, path: str) -> tuple[JSON, str, list[str]]:
    """Parse JSON as strangers write it; what is not strict is read where that is possible, and said.

    Returns:
        The value (numbers remember their print), the text and the problems.

    Raises:
        RecordError: it is no JSON, nested too deeply, or holds numbers that cannot be read.
    """
    problems: list[str] = []

    def note(problem: str) -> None:
        if problem not in problems and len(problems) < MAX_PROBLEMS:
            problems.append(problem)

    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        note(f"not UTF-8 at byte {error.start}")
        text = raw.decode("utf-8", "replace").removeprefix("\ufeff")
    if not text.strip():
        raise RecordError(f"{path} is empty")

    def pairs(items: list[tuple[str, JSON]]) -> dict[str, JSON]:
        table = dict(items)
        if len(table) < len(items):
            note(f"the key {find_twice(key for key, _ in items)!r:.60} stands twice")
        return table

    def constant(word: str) -> None:
        note(f"{word} is not a number in JSON")

    try:
        value: JSON = json.loads(
            text, object_pairs_hook=pairs, parse_constant=constant, parse_float=_parse_float, parse_int=_parse_int
        )
    except json.JSONDecodeError as error:
        raise RecordError(f"{path} is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except RecursionError as error:
        raise RecordError(f"{path} is nested more than {MAX_JSON_DEPTH} levels deep") from error
    except ValueError as error:
        raise RecordError(f"{path} is not acceptable JSON: {error!s:.100}") from error
    return value, text, problems


def _parse_float(text: str) -> PrintedFloat:
    if len(text) > 400:
        raise ValueError("a number of more than 400 characters")
    return PrintedFloat(text)


def _parse_int(text: str) -> PrintedInt | PrintedFloat:
    if len(text) > 19:
        return _parse_float(text)
    return PrintedInt(text)


@dataclass(frozen=True, slots=True)
class _Context:
    seed: str | None = None
    is_reference: bool = False
    words: str = ""


class _Reader:
    def __init__(self, path: str, lines: dict[str, int]) -> None:
        self.path = path
        self.lines = lines
        self.seeds: list[Reading] = []

    def walk(self, value: JSON, keys: tuple[str, ...], context: _Context) -> Iterator[Reading]:
        """Yield the claims at and below a value."""
        if len(keys) > MAX_JSON_DEPTH:
            raise RecordError(f"{self.path} is nested more than {MAX_JSON_DEPTH} levels deep")
        if isinstance(value, dict):
            yield from self._walk_object(value, keys, context)
        elif isinstance(value, list):
            yield from self._walk_list(value, keys, context)
        else:
            yield from self._leaf(value, keys, context)

    def _walk_object(self, value: dict[str, JSON], keys: tuple[str, ...], context: _Context) -> Iterator[Reading]:
        own = value.get("seed")
        if keys and isinstance(own, PrintedInt) and context.seed is None:
            context = replace(context, seed=_seed_text(own.text))
            if not context.is_reference:
                self._claim_seed((*keys, "seed"), own.text)
        for key, child in value.items():
            match = _SEED_KEY.fullmatch(key.strip())
            if match is not None and context.seed is None and keys and isinstance(child, dict | int | float):
                seed = _seed_text(match[1])
                if not context.is_reference:
                    self._claim_seed((*keys, key), seed)
                yield from self.walk(child, (*keys, key), replace(context, seed=seed))
                continue
            yield from self.walk(child, (*keys, key), self._inner(key, context, child))

    def _inner(self, key: str, context: _Context, child: JSON) -> _Context:
        if not isinstance(child, dict | list):
            return context
        is_other = context.is_reference or speaks_of_other_runs(key) or key.lower() in _REFERENCE_PARTS
        return replace(context, is_reference=is_other, words=f"{context.words} {key}"[:MAX_NAME_CHARACTERS])

    def _walk_list(self, value: list[JSON], keys: tuple[str, ...], context: _Context) -> Iterator[Reading]:
        name = normalise(keys[-1]) if keys else ""
        if re.fullmatch(r"_(seeds?|seed_list)_", name) and all(isinstance(item, int | str) for item in value):
            for i, item in enumerate(value):
                text = getattr(item, "text", str(item))
                if _SEED_KEY.fullmatch(text) and not context.is_reference:
                    self._claim_seed((*keys, str(i)), text)
            return
        is_aligned = len(self.seeds) == len(value) and all(isinstance(item, int | float) for item in value)
        seeds = [reading.text for reading in self.seeds] if is_aligned else []
        for i, item in enumerate(value[:MAX_CLAIMS]):
            inner = replace(context, seed=seeds[i]) if is_aligned and context.seed is None else context
            yield from self.walk(item, (*keys, str(i)), inner)

    def _claim_seed(self, keys: tuple[str, ...], text: str) -> None:
        if len(self.seeds) >= MAX_SEEDS:
            return
        seed = _seed_text(text)
        is_list = keys[-1].isdigit() and len(keys) > 1 and normalise(keys[-2]) in ("_seeds_", "_seed_")
        if not is_list and any(reading.text == seed for reading in self.seeds):
            return
        label = ".".join(keys)[:MAX_LABEL_CHARACTERS]
        self.seeds.append(
            Reading(quantity="seed", value=float(seed[:15]), origin="claimed", source="summary", path=self.path,
                    line=self._line(keys), text=seed, label=label, is_headline=is_list)
        )  # fmt: skip

    def _line(self, keys: tuple[str, ...]) -> int | None:
        return self.lines.get(".".join(keys))

    def _leaf(self, value: JSON, keys: tuple[str, ...], context: _Context) -> Iterator[Reading]:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return
        name = next((key for key in reversed(keys) if not key.isdigit() and not _SEED_KEY.fullmatch(key)), "")
        meaning = self._meaning(name, context)
        if meaning is None or (isinstance(value, str) and len(value) > 40):
            return
        if meaning.quantity == "seed":
            if isinstance(value, PrintedInt) and len(keys) == 1:
                self._claim_seed(keys, value.text)
            return
        reading = self._reading(value, keys, name, meaning, context)
        if reading is not None:
            yield reading

    def _meaning(self, name: str, context: _Context) -> Meaning | None:
        meaning = read_name(name)
        if meaning is None and context.seed is not None and _PER_SEED.search(normalise(name)):
            return Meaning("bpb")
        if meaning is not None and not meaning.stage and context.words:
            outer = read_name(f"{context.words} {name}")
            return replace(meaning, stage=outer.stage) if outer else meaning
        return meaning

    def _reading(
        self, value: int | float | str, keys: tuple[str, ...], name: str, meaning: Meaning, context: _Context
    ) -> Reading | None:
        bound, other = "", None
        if isinstance(value, str):
            printed = parse_number(value)
            if printed is None:
                return None
            number, place, text, bound = printed.value, printed.last_place, printed.text, printed.prefix
            factor = printed.factor if printed.unit else _unit_factor(name, meaning.quantity)
            if printed.binary_factor is not None:
                other = number * printed.binary_factor
        else:
            text = str(getattr(value, "text", value))
            number = float(value)
            place = 0.0 if isinstance(value, int) else last_place(text)
            factor = _unit_factor(name, meaning.quantity)
        if not is_sane(number):
            return None
        if meaning.quantity == "bpb" and not 0 <= abs(number) < 100:
            return None
        return Reading(
            quantity=meaning.quantity,
            value=number * factor,
            origin="claimed",
            source="summary",
            path=self.path,
            line=self._line(keys),
            text=text,
            label=".".join(keys)[:MAX_LABEL_CHARACTERS],
            last_place=place * factor if place or factor == 1.0 else factor,
            other_value=other,
            stage=meaning.stage,
            statistic=meaning.statistic,
            seed=context.seed,
            is_reference=(meaning.is_reference and meaning.statistic != "delta") or context.is_reference,
            bound=bound,
        )


def _seed_text(text: str) -> str:
    return (_SEED_KEY.fullmatch(text.strip()) or [text, text])[1].lstrip("0") or "0"


def _unit_factor(name: str, quantity: Quantity) -> float:
    text = normalise(name)
    if quantity in ("train_seconds", "eval_seconds"):
        return next((factor for pattern, factor in _UNITS if re.search(pattern, text)), 1.0)
    if quantity.startswith("bytes"):
        return next((factor for mark, factor in (("_mib_", 2.0**20), ("_mb_", 1e6), ("_kb_", 1e3)) if mark in text), 1.0)
    return 1.0


_HEADLINE_KEYS = (
    "val_bpb", "mean_val_bpb", "val_bpb_mean", "mean_bpb", "bpb", "sliding_val_bpb", "sliding_bpb_mean",
    "post_quant_standard_val_bpb",
)  # fmt: skip


def _mark_headline(claims: Sequence[Reading]) -> list[Reading]:
    """Mark the number that the record is known by: the first headline key, else the first own score at the top."""
    scores = [
        claim
        for claim in claims
        if claim.quantity == "bpb" and claim.seed is None and not claim.is_reference
        and claim.statistic in ("value", "mean") and claim.stage not in ("pre_quant", "pre_ttt")
    ]  # fmt: skip
    by_key = {claim.label: claim for claim in reversed(scores)}
    chosen = next((by_key[key] for key in _HEADLINE_KEYS if key in by_key), scores[0] if scores else None)
    return [replace(claim, is_headline=True) if claim is chosen else claim for claim in claims]


def _words(value: JSON) -> Iterator[str]:
    pending: list[JSON] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            pending += [*item.values(), *item.keys()]
        elif isinstance(item, list):
            pending += item
