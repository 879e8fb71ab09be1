"""A grid of runs: methods x presets x seeds under one budget, its folder, and how far each cell is.

A grid's folder holds `grid.json` with everything that was asked for, and a record folder for each cell. What is done
is read from the records, so a killed grid goes on by being started again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import RecordError, UsageError
from harness.files import write_atomic
from harness.records.native import RECORD_FILE, read_record
from harness.records.safeio import MAX_INTEGER, read_json

GRID_FILE = "grid.json"


class Contender(BaseModel):
    """A method at a preset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    preset: str

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.method}/{self.preset}"

    @property
    def folder_name(self) -> str:
        """Name of the folder of its runs."""
        return f"{self.method}-{self.preset}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One run of a grid, its folder, and its `--set` beside those of the contender."""

    contender: Contender
    seed: int
    folder: Path
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"{self.contender.name}, seed {self.seed}"

    @property
    def is_complete(self) -> bool:
        """Whether its record is finished."""
        return self.has_record and read_record(self.folder).status == "complete"

    @property
    def has_record(self) -> bool:
        """Whether it was begun."""
        return (self.folder / RECORD_FILE).exists()


class Grid(BaseModel):
    """What a comparison was asked to run, the content of `grid.json`.

    Attributes:
        contenders: methods at presets, in the order they were named.
        seeds: seeds of each, the same for all.
        budget: of each cell.
        data: corpus.
        overrides: `--set` of every contender; one that begins with the name of a method in the grid is of that only.
        target_bytes: size that every cell's file fills, within 2%; 0 stores each under its own schemes.
        target_params: stored parameters that every contender's widths come nearest to; 0 leaves the presets' widths.
        eval_context: input tokens of a window in scoring, which no contender was trained for less of; 0 before it is
            settled.
        tokenizer: None for the corpus's own.
        num_trials: trials of each contender before its cells; 0 leaves the presets as they are.
        parent: record that every cell starts from, for comparisons after training; None from scratch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = Field(1, alias="schema")
    contenders: tuple[Contender, ...]
    seeds: tuple[int, ...]
    budget: str
    data: str = "shakespeare"
    overrides: tuple[str, ...] = ()
    target_bytes: int = Field(0, ge=0)
    target_params: int = Field(0, ge=0)
    eval_context: int = Field(0, ge=0)
    tokenizer: str | None = None
    num_trials: int = Field(0, ge=0)
    parent: str | None = None

    def cells(self, folder: Path) -> Iterator[Cell]:
        """Yield the cells seed by seed, so that an unfinished grid has the same seeds of everything."""
        for seed in self.seeds:
            for contender in self.contenders:
                place = folder / contender.folder_name / f"seed{seed}"
                yield Cell(contender=contender, seed=seed, folder=place)

    def overrides_of(self, contender: Contender) -> list[str]:
        """Return the settings of one contender: those of all, and those that name its method."""
        methods = {each.method for each in self.contenders}
        size = [f"export.target_bytes={self.target_bytes}"] if self.target_bytes else []
        named = [(text.partition("=")[0].partition("."), text) for text in (*size, *self.overrides)]
        return [
            text for (prefix, dot, _), text in named if not (dot and prefix in methods) or prefix == contender.method
        ]


def parse_contenders(methods: str, preset: str) -> tuple[Contender, ...]:
    """Read `dense,legendre/published,mpo`: methods, each at its own preset or the common one.

    Raises:
        UsageError: none or one is named, or one twice, or there is no such method or preset.
    """
    from harness.registry import find_method

    found: list[Contender] = []
    for text in filter(None, (part.strip() for part in methods.split(","))):
        method, slash, own = text.partition("/")
        contender = Contender(method=method, preset=own if slash else preset)
        find_method(method).preset(contender.preset)
        if contender in found:
            raise UsageError(f"--methods names {contender.name} twice")
        found.append(contender)
    if len(found) < 2:
        raise UsageError("--methods: name at least two, for example --methods dense,legendre,low_rank")
    return tuple(found)


def open_grid(folder: Path, grid: Grid) -> None:
    """Write the grid into its folder, or find the same one there.

    Raises:
        UsageError: the folder holds another grid, or other things.
    """
    if (folder / GRID_FILE).exists():
        found = read_grid(folder)
        for name in Grid.model_fields:
            if getattr(found, name) != getattr(grid, name):
                raise UsageError(
                    f"--out {folder} holds a grid with other {name}; choose another folder, or go on with "
                    f"--resume {folder}"
                )
        return
    make_folder(folder, GRID_FILE)
    write_atomic(folder / GRID_FILE, f"{grid.model_dump_json(by_alias=True, indent=2)}\n".encode())


def make_folder(folder: Path, file_name: str) -> None:
    """Make the folder of a comparison, or take an empty one.

    Raises:
        UsageError: the folder holds other things, without the file that would say what they are.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--out {folder} is not empty and holds no {file_name}; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)


def read_grid(folder: Path) -> Grid:
    """Read the grid of a folder.

    Raises:
        UsageError: there is no such folder.
        RecordError: its `grid.json` is missing or says something else than a grid.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} does not exist; give the folder of a comparison")
    value, _ = read_json(folder, GRID_FILE)
    try:
        return Grid.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecordError(f"{folder / GRID_FILE}: {where}: {first['msg']}") from error


TARGETED = {"bytes": "16MB", "params": "1.2M"}


def check_match(budget_kind: str, match: str | None, target: str | None) -> dict[str, int]:
    """Refuse to match a quantity that neither the budget nor the target fixes; returns the target as fields of a grid.

    Raises:
        UsageError: says how to find a budget in that unit.
    """
    if match in TARGETED and target is None:
        raise UsageError(f"--match {match} needs --target, for example --match {match} --target {TARGETED[match]}")
    if match in TARGETED and target is not None:
        return {f"target_{match}": parse_size(target)}
    if target is not None:
        raise UsageError(f"--target {target}: say of what, --match bytes or --match params")
    if match is not None and match != budget_kind:
        example = {"steps": "2000steps", "tokens": "50Mtok", "flops": "1e15flop", "seconds": "10m"}.get(match)
        if example is None:
            raise UsageError(f"--match {match}: choose seconds, steps, tokens, flops, bytes or params")
        raise UsageError(
            f"--match {match} needs a budget in {match}, for example --budget {example}, since a budget in "
            f"{budget_kind.replace('_', ' ')} gives each method its own number of them"
        )
    return {}


def parse_size(text: str) -> int:
    """Read a number of bytes or parameters: 16MB, 900kB, 1.2M, 16000000; prefixes are decimal, as in the contest's cap.

    Raises:
        UsageError: it is none.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kKMG]?)B?", text.strip())
    size = round(float(match[1]) * {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}[match[2]]) if match else 0
    if not 0 < size <= MAX_INTEGER:
        raise UsageError(f"--target {text}: write a number such as 16MB, 900kB, 1.2M or 16000000")
    return size
