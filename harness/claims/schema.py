"""The content of a claim file: who claimed what, the published numbers as facts, predicates over evidence."""

from __future__ import annotations

import ast
import shlex
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from harness.claims.effects import effect_of
from harness.claims.expressions import FUNCTIONS, calls_in, names_in, parse_expression
from harness.claims.fetches import FETCH_KINDS
from harness.claims.quantities import Number, parse_printed
from harness.errors import UsageError, suggest

MAX_FILE_BYTES = 2**20

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=32)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000, strip_whitespace=True)]
Kind = Literal["arithmetic", "construction", "record", "reproduction"]


# options of `harness run` that the plan of a claim sets itself
_OF_THE_PLAN = ("--seed", "--out", "--claim", "--resume", "--device", "--devices", "--data-dir")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Part):
    """Where the claims were published."""

    id: Name = Field(description="prefix of the claims' ids, such as mpo in mpo.C5")
    title: Text
    url: Text
    date: Text = Field(description="of the publication, 2026-03-30")
    authors: str = Field("", max_length=500)


class Fact(_Part):
    """A number that was published, as it was printed."""

    value: Text = Field(description="as printed: 1.2054, 52.8%, 13.0x, 17.6B; the last digit says how exact it is")
    where: Text = Field(description="place in the source: a table, a file and line, a sentence")
    note: str = Field("", max_length=2000)

    @property
    def number(self) -> Number:
        """The value with the limits of its print."""
        return parse_printed(self.value)


class Margin(_Part):
    """How large a difference would not matter, fixed before the evidence."""

    value: Text = Field(description="as a fact's value")
    reason: Text

    @property
    def number(self) -> Number:
        """The value, taken as exact."""
        value = parse_printed(self.value).value
        return Number(value=value, low=value, high=value)


class Predicate(_Part):
    """One thing that has to be so if the claim is."""

    says: Text = Field(description="what it asks, in words")
    holds_if: Text = Field(description="an expression, see `harness claims language`")
    reading: str = Field(
        "", max_length=200, description="the reading of the claim that it belongs to; empty: every one"
    )
    is_reduced: bool = Field(False, description="evidence at another scale than the claim's, which never closes it")

    series: Name | Literal[""] = Field(
        "",
        description="of predicates at reduced scale that ask the same of runs of another size each: shows the effect's "
        "trend; each compares one difference() or ratio() with a number",
    )

    @cached_property
    def tree(self) -> ast.expr:
        """The expression, parsed."""
        return parse_expression(self.holds_if)

    @property
    def kind(self) -> Kind:
        """The dearest kind of evidence that it uses."""
        kinds = {FETCH_KINDS[name] for name in calls_in(self.tree) if name in FETCH_KINDS}
        order: tuple[Kind, ...] = ("reproduction", "record", "construction")
        return next((kind for kind in order if kind in kinds), "arithmetic")


class Plan(_Part):
    """Runs that would decide a claim: `harness claims run` makes them, sealed.

    Attributes:
        arguments: of `harness run`, as typed, without seed, folder and claim; one run each. `{seed}` stands for the
            seed, where each has a model of its own.
        seeds: 0, 1, ... of each.
        also: ids of other claims of the file that the runs are to decide; they are sealed for these, too.
    """

    arguments: tuple[Text, ...] = Field(
        min_length=1, max_length=64, description="of `harness run`, one run each; {seed} stands for its seed"
    )
    seeds: int = Field(3, ge=1, le=1000, description="seeds 0, 1, ... of each")
    also: tuple[Id, ...] = Field((), max_length=64, description="other claims of this file that the runs are to decide")

    @field_validator("arguments")
    @classmethod
    def _check_arguments(cls, arguments: tuple[str, ...]) -> tuple[str, ...]:
        for each in arguments:
            try:
                words = shlex.split(each)
            except ValueError as error:
                raise ValueError(f"{each!r}: {error}") from None
            if given := [word for word in words if word.partition("=")[0] in _OF_THE_PLAN]:
                raise ValueError(f"{each!r}: {given[0]} is set by `harness claims run`; leave it out")
        return arguments


class Claim(_Part):
    """A claim in our words, and what decides it."""

    id: Id
    statement: Text
    scale: str = Field("", max_length=500, description="scale that it is made at; empty where it claims to hold always")
    stated_reading: str = Field("", max_length=200, description="the reading in which it was published")
    unpublished: str = Field("", max_length=2000, description="what was not published, without which nobody can check")
    evidence: bool = Field(False, description="a published fact by which other claims are judged, not judged itself")
    decide: str = Field("", max_length=500, description="cheapest command that would decide it")
    cost: str = Field("", max_length=200, description="what that command takes")
    counter: str = Field("", max_length=500, description="command by which the author can see the counter-evidence")
    remark: str = Field("", max_length=4000, description="what follows and what does not, in words")
    plan: Plan | None = Field(None, description="runs that would decide it, or say something at reduced scale")
    predicates: tuple[Predicate, ...] = Field((), max_length=50)

    @property
    def readings(self) -> list[str]:
        """The readings that predicates belong to, the stated one first."""
        named = dict.fromkeys(each.reading for each in self.predicates if each.reading)
        return sorted(named, key=lambda reading: reading != self.stated_reading)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.stated_reading and self.stated_reading not in self.readings:
            raise ValueError(f"stated_reading '{self.stated_reading}' has no predicate")
        if self.readings and not self.stated_reading and not any(not each.reading for each in self.predicates):
            raise ValueError("every predicate has a reading: say in stated_reading which one was published")
        if not self.scale and any(each.is_reduced for each in self.predicates):
            raise ValueError("a claim without a scale has no evidence at reduced scale: drop is_reduced, or give scale")
        if not self.predicates and not self.unpublished and not self.evidence and not self.decide:
            raise ValueError(
                "nothing decides it: give predicates, or decide (a command), or unpublished (why nobody can)"
            )
        return self


class ClaimFile(_Part):
    """A claim file."""

    schema_version: Literal[1] = Field(alias="schema")
    source: Source
    facts: dict[Name, Fact] = Field({}, max_length=2000)
    margins: dict[Name, Margin] = Field({}, max_length=200)
    claims: tuple[Claim, ...] = Field(min_length=1, max_length=500)

    @model_validator(mode="after")
    def _check(self) -> Self:
        counts = Counter(claim.id for claim in self.claims)
        if twice := next((each for each, count in counts.items() if count > 1), None):
            raise ValueError(f"claim {twice} stands twice")
        if both := self.facts.keys() & self.margins.keys():
            raise ValueError(f"{min(both)} is a fact and a margin")
        for key, part in (*self.facts.items(), *self.margins.items()):
            _said(f"{key}.value", lambda part=part: part.number)
        if none := next((key for key, margin in self.margins.items() if not margin.number.value > 0), None):
            raise ValueError(
                f"margins.{none}.value: {self.margins[none].value} is no difference that would not matter; give a "
                "number above 0, or write the comparison without a margin"
            )
        for claim in self.claims:
            if claim.plan and (unknown := sorted(set(claim.plan.also) - (counts.keys() - {claim.id}))):
                raise ValueError(f"claim {claim.id}, plan.also: {unknown[0]} is no other claim of this file")
            for at, predicate in enumerate(claim.predicates):
                _said(f"claim {claim.id}, predicate {at + 1}, holds_if", lambda each=predicate: self._check_names(each))
            _check_series(claim)
        return self

    def _check_names(self, predicate: Predicate) -> None:
        known = {*self.facts, *self.margins}
        for name in sorted(names_in(predicate.tree) - known):
            raise UsageError(f"no fact or margin '{name}'. {suggest(name, known)}")
        functions = {*FUNCTIONS, *FETCH_KINDS}
        for name in sorted(calls_in(predicate.tree) - functions):
            raise UsageError(f"no function '{name}'. {suggest(name, functions)}")


def _check_series(claim: Claim) -> None:
    """Refuse a series whose predicates do not ask one thing of runs of another size each."""
    first: dict[str, tuple[int, str]] = {}
    asked: dict[tuple[str, str], int] = {}
    for at, predicate in enumerate(claim.predicates, start=1):
        if not (name := predicate.series):
            continue
        where = f"claim {claim.id}, predicate {at}, series '{name}'"
        if (twin := asked.setdefault((name, ast.dump(predicate.tree)), at)) != at:
            raise ValueError(f"{where}: asks of the same runs as predicate {twin}; a series has each size once")
        if not predicate.is_reduced:
            raise ValueError(f"{where}: is for predicates at reduced scale; set is_reduced, or leave series out")
        if (effect := effect_of(predicate.tree)) is None:
            raise ValueError(f'{where}: holds_if has another form than difference(A, B, "figure") < number')
        earlier, asks = first.setdefault(name, (at, effect.asks))
        if asks != effect.asks:
            raise ValueError(f"{where}: asks {effect.asks}, but predicate {earlier} {asks}; name another series")


def _said(where: str, check: Any) -> None:
    try:
        check()
    except UsageError as error:
        raise ValueError(f"{where}: {error}") from None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoadedClaims:
    """A claim file and where it lies."""

    path: Path
    content: ClaimFile

    def name_of(self, claim: Claim) -> str:
        """The name of a claim across files."""
        return f"{self.content.source.id}.{claim.id}"

    def claim(self, claim_id: str) -> Claim:
        """The claim of an id, which has to be one of the file's."""
        return next(claim for claim in self.content.claims if claim.id == claim_id)


@cache
def numbers_of(loaded: LoadedClaims, factor: float) -> Mapping[str, Number]:
    """Return facts and margins by name, the margins times a factor."""
    found = {name: fact.number for name, fact in loaded.content.facts.items()}
    for name, margin in loaded.content.margins.items():
        value = factor * margin.number.value
        found[name] = Number(value=value, low=value, high=value)
    return found


def read_claims(path: Path) -> LoadedClaims:
    """Read a claim file.

    Raises:
        UsageError: there is no such file, or it is no claim file; names the line or the key.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; `harness claims new {path.name}` writes a template")
    try:
        if (size_bytes := path.stat().st_size) > MAX_FILE_BYTES:
            raise UsageError(f"{path}: {size_bytes:,} bytes; a claim file has at most {MAX_FILE_BYTES:,}")
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return LoadedClaims(path=path, content=ClaimFile.model_validate(tomllib.loads(raw.decode("utf-8"))))
    except ValidationError as error:
        raise UsageError(f"{path}: {_first_error(error)}") from error
    except ValueError as error:  # no TOML, no UTF-8, or a number of too many digits
        raise UsageError(f"{path}: {error}") from error
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply") from None


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
