"""How far the rate-distortion frontiers of contenders lie apart, over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.comparison import ALPHA
from harness.envelope import area_between
from harness.errors import RecordError, UsageError
from harness.records.safeio import MAX_INTEGER, read_json
from harness.stats import Interval, holm, paired_interval, two_sided

Label = Annotated[str, Field(max_length=256)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Stored(_Part):
    artifact_bytes: int = Field(gt=0, le=MAX_INTEGER)
    val_bpb: float = Field(gt=0, allow_inf_nan=False)


class _Point(_Part):
    stored: _Stored


class _Frontier(_Part):
    points: tuple[_Point, ...] = Field(min_length=2, max_length=4096, strict=False)


class _Mode(_Part):
    mode: Label
    context: int
    stride: int


class Sweep(_Part):
    """What is read of a file that `harness quantise RECORD --sweep --out FILE` wrote."""

    record: Annotated[str, Field(max_length=4096)]
    method: Label
    preset: Label
    budget: Label
    seed: int
    settings_key: Label
    split: Literal["tune"]
    split_sha256: Label
    eval_mode: _Mode
    frontier: _Frontier

    @property
    def points(self) -> list[tuple[float, float]]:
        """Bytes and bits per byte of each file of the sweep."""
        return [(point.stored.artifact_bytes, point.stored.val_bpb) for point in self.frontier.points]

    @property
    def name(self) -> str:
        """Name of the contender, as that of a comparison of records."""
        return f"{self.method}/{self.preset}, {self.budget}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontierRelation:
    """How the frontier of one contender lies to another's; below zero A is better.

    Attributes:
        first: name of A.
        second: name of B.
        num_seeds: seeds that both have, and whose frontiers have sizes in common.
        bpb: bits per byte A - B at equal bytes, mean over the area and over seeds; None without a common size.
        over_seeds: interval of it over seeds; None for fewer than two.
        bytes_ratio: bytes of A over those of B at equal score, geometric mean; None without a common score.
        p_holm: of no difference, corrected for the number of relations; None for fewer than two seeds.
    """

    first: str
    second: str
    num_seeds: int
    bpb: float | None
    over_seeds: Interval | None
    bytes_ratio: float | None
    p_holm: float | None = None

    @property
    def verdict(self) -> str:
        """The relation in words."""
        if self.bpb is None:
            return "no size in common"
        if self.p_holm is None:
            return "not settled: one seed"
        if self.p_holm >= ALPHA:
            return "not settled"
        return f"{self.first if self.bpb < 0 else self.second} is better"


def read_sweep(path: Path) -> Sweep:
    """Read a file of a sweep.

    Raises:
        UsageError: there is no such file.
        RecordError: it holds something else.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; write it by `harness quantise RECORD --sweep --out {path.name}`")
    value, _ = read_json(path.parent, path.name)
    try:
        return Sweep.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise RecordError(
            f"{path}: {where}: {first['msg']}; write it by `harness quantise RECORD --sweep --out {path.name}`"
        ) from error


def group_sweeps(sweeps: Sequence[Sweep]) -> dict[str, dict[int, Sweep]]:
    """Return the sweeps of each contender by seed.

    Raises:
        UsageError: a seed stands twice, seeds have unlike settings, or sweeps were scored on other text or in another
            eval mode.
    """
    groups: dict[str, dict[int, Sweep]] = {}
    for sweep in sweeps:
        first = sweeps[0]
        if (sweep.split_sha256, sweep.eval_mode) != (first.split_sha256, first.eval_mode):
            raise UsageError(
                f"{sweep.record} was scored on other text or in another eval mode than {first.record}, so their "
                "frontiers cannot be compared"
            )
        own = groups.setdefault(sweep.name, {})
        if own and (other := next(iter(own.values()))).settings_key != sweep.settings_key:
            raise UsageError(
                f"{sweep.record} and {other.record} are both {sweep.name}, at other settings, so they are no seeds of "
                "one thing; compare one of them at a time"
            )
        if sweep.seed in own:
            raise UsageError(f"{sweep.record}: seed {sweep.seed} of {sweep.name} is there already; leave one out")
        own[sweep.seed] = sweep
    return groups


def relate(groups: Mapping[str, Mapping[int, Sweep]]) -> list[FrontierRelation]:
    """Return the relation of each pair of contenders that have a seed in common."""
    pairs = [pair for pair in combinations(groups, 2) if groups[pair[0]].keys() & groups[pair[1]].keys()]
    found = [_relate(pair, groups) for pair in pairs]
    tested = [each for each in found if each.over_seeds is not None and each.bpb is not None]
    p_values = holm([_p_value(each) for each in tested])
    corrected = {(each.first, each.second): p for each, p in zip(tested, p_values, strict=True)}
    return [replace(each, p_holm=corrected.get((each.first, each.second))) for each in found]


def _relate(pair: tuple[str, str], groups: Mapping[str, Mapping[int, Sweep]]) -> FrontierRelation:
    first, second = (groups[name] for name in pair)
    seeds = sorted(first.keys() & second.keys())
    areas = [area_between(first[seed].points, second[seed].points) for seed in seeds]
    scores = [area.bpb for area in areas if area.bpb is not None]
    ratios = [math.log(area.bytes_ratio) for area in areas if area.bytes_ratio is not None]
    return FrontierRelation(
        first=pair[0],
        second=pair[1],
        num_seeds=len(scores),
        bpb=fmean(scores) if scores else None,
        over_seeds=paired_interval(scores) if len(scores) > 1 else None,
        bytes_ratio=math.exp(fmean(ratios)) if ratios else None,
    )


def _p_value(relation: FrontierRelation) -> float:
    assert relation.over_seeds is not None and relation.bpb is not None, "only such relations are tested"
    return two_sided(relation.bpb, relation.over_seeds.standard_error, relation.over_seeds.degrees)
