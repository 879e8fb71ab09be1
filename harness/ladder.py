"""A scaling ladder: the same comparison at several sizes, a grid each, in a folder of their own.

A size is a preset that every method has, or a number of stored parameters, which every contender's widths come nearest
to. The folder holds `ladder.json` with the names of the sizes and a grid's folder for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import RecordError, UsageError
from harness.files import write_atomic
from harness.grid import Grid, make_folder, open_grid, parse_size, read_grid
from harness.records.safeio import read_json

LADDER_FILE = "ladder.json"
_NUMBER = re.compile(r"[0-9].*")
Grids = Mapping[str, Grid]
# The size of a comparison at one size only: its grid lies in the folder itself.
WHOLE = ""


class Ladder(BaseModel):
    """The content of `ladder.json`.

    Attributes:
        sizes: names of the sizes, in the order that they were asked for; each is the name of a grid's folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = Field(1, alias="schema")
    sizes: tuple[str, ...] = Field(min_length=2)


def make_ladder(sizes: str, preset: str, make_grid: Callable[[str, str | None], Grid]) -> dict[str, Grid]:
    """Return a grid for each of `tiny,small,medium` or `300k,1.2M`.

    Args:
        sizes: as given.
        preset: of the contenders where sizes are numbers of parameters.
        make_grid: makes the grid of a preset, its widths as they are or those of a number of parameters.

    Raises:
        UsageError: fewer than two sizes, one twice, or a contender that names its own preset beside sizes that do.
    """
    names = [part for part in (each.strip() for each in sizes.split(",")) if part]
    if len(set(names)) < max(2, len(names)):
        raise UsageError(f"--sizes {sizes}: name two sizes or more, each once, such as tiny,small,medium or 300k,1.2M")
    grids = {}
    for name in names:
        if _NUMBER.fullmatch(name):
            parse_size(name)
            grids[name] = make_grid(preset, name)
            continue
        grids[name] = make_grid(name, None)
        if own := [each.name for each in grids[name].contenders if each.preset != name]:
            raise UsageError(f"--sizes {sizes}: {own[0]} names a preset of its own; drop /{own[0].partition('/')[2]}")
    return grids


def open_ladder(folder: Path, grids: Grids) -> None:
    """Write the ladder and its grids into a folder, or find the same ones there.

    Raises:
        UsageError: the folder holds other ones, or other things.
    """
    ladder = Ladder(sizes=tuple(grids))
    if (folder / LADDER_FILE).exists():
        if (found := read_ladder(folder)) != ladder:
            raise UsageError(f"--out {folder} holds the sizes {','.join(found.sizes)}; choose another folder")
    else:
        make_folder(folder, LADDER_FILE)
        write_atomic(folder / LADDER_FILE, f"{ladder.model_dump_json(by_alias=True, indent=2)}\n".encode())
    for size, grid in grids.items():
        open_grid(folder / size, grid)


def read_ladder(folder: Path) -> Ladder:
    """Read the ladder of a folder.

    Raises:
        RecordError: its `ladder.json` says something else than a ladder.
    """
    value, _ = read_json(folder, LADDER_FILE)
    try:
        ladder = Ladder.model_validate(value)
    except ValidationError as error:
        raise RecordError(f"{folder / LADDER_FILE}: {error.errors()[0]['msg']}") from error
    if odd := [size for size in ladder.sizes if Path(size).name != size]:
        raise RecordError(f"{folder / LADDER_FILE}: sizes: {odd[0]!r} is no name of a folder")
    return ladder


def read_grids(folder: Path) -> Grids:
    """Read the grids of a comparison, by size.

    Raises:
        UsageError: there is no such folder.
        RecordError: one is missing or broken.
    """
    sizes = read_ladder(folder).sizes if (folder / LADDER_FILE).is_file() else (WHOLE,)
    return {size: read_grid(folder / size) for size in sizes}


def names_of(grids: Sequence[Grid]) -> list[dict[str, str]]:
    """Return for each grid what its contenders are called across sizes, by their names there.

    Where sizes are presets a contender is a method; else it keeps its preset.
    """
    are_presets = len({tuple(each.name for each in grid.contenders) for grid in grids}) > 1
    return [{each.name: each.method if are_presets else each.name for each in grid.contenders} for grid in grids]
