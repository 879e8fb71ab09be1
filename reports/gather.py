"""What lies under the given paths: records, comparisons, sweeps, findings, claims and replies, each read once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.areas import Sweep, read_sweep
from harness.claims.command import Judged, judge_file, judge_plugins
from harness.compare_views import is_trial
from harness.errors import HarnessError, RecordError, UsageError
from harness.grid import GRID_FILE, Grid
from harness.ladder import LADDER_FILE, WHOLE, read_grids
from harness.record_views import Found
from harness.records.discovery import scan_records
from harness.records.native import RECORD_FILE, read_record
from harness.responses import Response, find_responses
from harness.verify.findings import Report
from harness.verify.run import verify_paths

LEVELS = ("static", "decode")
SWEEP_PATTERN = "*sweep*.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class GridFound:
    """A comparison as found: its folder, what it asked for, what `harness compare` says of it.

    Attributes:
        folder: of the grid.
        grid: content of its `grid.json`.
        data: of the view; None where it cannot be compared.
        problem: why not.
    """

    folder: Path
    grid: Grid
    data: Mapping[str, Any] | None
    problem: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """Everything that a report is made from.

    Attributes:
        paths: as given.
        records: readable ones, trials of a tuning included.
        trials: folders of those that are trials.
        unreadable: why a record could not be read, by its folder.
        grids: comparisons.
        ladders: what is said of comparisons at several sizes, by folder.
        sweeps: rate-distortion sweeps by file.
        findings: of `harness verify`; None where no path holds a record.
        judged: claims.
        responses: replies of authors.
    """

    paths: Sequence[Path]
    records: Sequence[Found]
    trials: frozenset[Path]
    unreadable: Mapping[Path, str]
    grids: Sequence[GridFound]
    ladders: Mapping[Path, Any]
    sweeps: Mapping[Path, Sweep]
    findings: Report | None
    judged: Judged
    responses: Sequence[Response] = field(default=())


def gather(paths: Sequence[Path], *, claim_files: Sequence[Path] = (), level: str = "static") -> Material:
    """Read everything under some paths.

    Args:
        paths: folders of records, comparisons and foreign records, or sweep files.
        claim_files: judged beside those of the methods here.
        level: of `harness verify`: static or decode.

    Raises:
        UsageError: a path does not exist or holds nothing, or there is no such level.
        HarnessError: a claim file is wrong.
    """
    if level not in LEVELS:
        raise UsageError(f"--level {level}: a report is made from files alone; choose static or decode")
    holding = [path for path in paths if _holds_record(path)]
    sweeps = dict(_read_sweeps(paths))
    if empty := [path for path in paths if path not in holding and not _has_sweep(path, sweeps)]:
        raise UsageError(f"no record or sweep found at or below {empty[0]}; a record folder holds a {RECORD_FILE}")
    records, unreadable = _read_records(holding)
    folders = [path for path in paths if path.is_dir()]
    grids, ladders = _read_comparisons(folders)
    judged = judge_plugins(folders)
    for path in claim_files:
        judged = _with_claims(judged, path, folders)
    return Material(
        paths=paths,
        records=records,
        trials=frozenset(found.folder for found in records if is_trial(found.folder)),
        unreadable=unreadable,
        grids=grids,
        ladders=ladders,
        sweeps=sweeps,
        findings=verify_paths(holding, level=level) if holding else None,
        judged=judged,
        responses=list(find_responses(folders)),
    )


def _with_claims(judged: Judged, path: Path, folders: Sequence[Path]) -> Judged:
    """Judge one more claim file, unless it was.

    Raises:
        UsageError: a claim of it has the name of another.
    """
    if path.resolve() in {loaded.path.resolve() for loaded, _ in judged}:
        return judged
    more = judge_file(path, None, folders)
    known = {each.name: loaded.path for loaded, judgements in judged for each in judgements}
    for each in (each for _, judgements in more for each in judgements):
        if each.name in known:
            where = f"{known[each.name].parent.name}/{known[each.name].name}"
            raise UsageError(f"--claims {path}: claim {each.name} stands in {where}, too; give its source another id")
    return [*judged, *more]


def _holds_record(path: Path) -> bool:
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    tree = scan_records(path, with_foreign=True)
    return bool(tree.folders or tree.foreign)


def _read_records(paths: Sequence[Path]) -> tuple[list[Found], dict[Path, str]]:
    found: dict[Path, Found] = {}
    unreadable: dict[Path, str] = {}
    for folder in (each for path in paths for each in scan_records(path).folders):
        try:
            found.setdefault(folder.resolve(), Found(folder, read_record(folder)))
        except RecordError as error:
            unreadable[folder] = str(error)
    return list(found.values()), unreadable


def _read_sweeps(paths: Sequence[Path]) -> Iterator[tuple[Path, Sweep]]:
    for path in paths:
        is_file = path.is_file() and path.suffix == ".json" and path.name != RECORD_FILE
        for place in [path] if is_file else sorted(path.rglob(SWEEP_PATTERN)):
            try:
                yield place, read_sweep(place)
            except HarnessError:
                if is_file:  # asked for by name
                    raise


def _has_sweep(path: Path, sweeps: Mapping[Path, Sweep]) -> bool:
    return any(place == path or place.is_relative_to(path) for place in sweeps)


def _read_comparisons(folders: Sequence[Path]) -> tuple[list[GridFound], dict[Path, Any]]:
    grids: dict[Path, GridFound] = {}
    ladders: dict[Path, Any] = {}
    for folder in folders:
        for place in sorted({each.parent for each in folder.rglob(LADDER_FILE)}):
            _read_comparison(place, grids, ladders)
        for place in sorted({each.parent for each in folder.rglob(GRID_FILE)}):
            if place.resolve() not in grids:
                _read_comparison(place, grids, ladders)
    return list(grids.values()), ladders


def _read_comparison(place: Path, found: dict[Path, GridFound], ladders: dict[Path, Any]) -> None:
    from harness.compare import show_comparison

    try:
        asked = read_grids(place)
    except HarnessError:
        return  # not of this program, or broken; its records are read all the same
    for size, grid in asked.items():
        folder = place / size
        try:
            data, problem = show_comparison(folder, {WHOLE: grid}).data, ""
        except HarnessError as error:
            data, problem = None, str(error)
        found[folder.resolve()] = GridFound(folder=folder, grid=grid, data=data, problem=problem)  # type: ignore[arg-type]
    if len(asked) > 1:
        try:
            ladders[place] = show_comparison(place, asked).data
        except HarnessError:
            return
