"""What a README says, and how a printed number becomes a claim of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from harness.records.numbers import Printed
from harness.records.submission import Problem, Reading, Statement
from harness.records.vocabulary import Meaning, Quantity, normalise

MAX_CLAIMS = 400
# A smaller bare number under a name with "bytes" is a score of a byte model, or a count of something else.
MIN_BYTES = 256


@dataclass(kw_only=True, slots=True)
class Readme:
    """What a README says.

    Attributes:
        claims: numbers, with their places.
        seeds: seeds that a table of results names.
        pairs: (bits a byte, nats a token) that one sentence gives for the same difference.
        differences: (first, second, claimed difference) of rows of a comparison.
        gaps: (score of a former record, claimed difference to it).
        commands: scripts that it runs by a bare name.
        title: its first heading.
        text: everything, for disclosures.
        problems: met in reading.
    """

    claims: list[Reading] = field(default_factory=list)
    seeds: list[Reading] = field(default_factory=list)
    pairs: list[tuple[Reading, Reading]] = field(default_factory=list)
    differences: list[tuple[Reading, Reading, Reading]] = field(default_factory=list)
    gaps: list[tuple[Reading, Reading]] = field(default_factory=list)
    commands: list[Statement] = field(default_factory=list)
    title: str = ""
    text: str = ""
    problems: list[Problem] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether it has stated as much as is read."""
        lengths = (len(self.claims), len(self.seeds), len(self.pairs), len(self.differences), len(self.commands))
        return max(lengths) >= MAX_CLAIMS


def make_reading(printed: Printed, line: int, path: str, label: str, meaning: Meaning) -> Reading | None:
    """Make the claim of a printed number, or None where unit and meaning do not go together."""
    scale = _scale(printed, meaning.quantity, label)
    if scale is None:
        return None
    factor, other_factor = scale
    return Reading(
        quantity=meaning.quantity,
        value=printed.value * factor,
        origin="claimed",
        source="readme",
        path=path,
        line=line,
        text=printed.text[:40],
        label=re.sub(r"[*`]", "", label)[:80],
        last_place=_place(printed, factor, meaning.quantity),
        other_value=None if other_factor is None else printed.value * other_factor,
        stage=meaning.stage,
        statistic=meaning.statistic,
        is_reference=meaning.is_reference,
        bound=printed.prefix if printed.prefix != "~" else "",
    )


def _scale(printed: Printed, quantity: Quantity, label: str) -> tuple[float, float | None] | None:
    """Return the factor to the quantity's unit, and the other one that "MB" may mean; None where the unit is odd."""
    unit, name = printed.unit.lower(), normalise(label)
    if quantity.startswith("bytes"):
        return _scale_bytes(printed, unit, name)
    if quantity in ("train_seconds", "eval_seconds"):
        if unit:
            is_time = unit in ("s", "ms", "sec", "secs", "seconds", "min", "mins", "minutes", "m", "h", "hours")
            return (printed.factor, None) if is_time and printed.unit != "M" else None
        return 1e-3 if "_ms_" in name else 60.0 if "_min_" in name else 1.0, None
    if quantity == "step_ms":
        return 1e3 if unit in ("s", "sec", "seconds") else 1.0, None
    if quantity in ("bpb", "loss") and (unit not in ("", "bpb", "bpp", "nats") or abs(printed.value) >= 100):
        return None
    if quantity in ("steps", "params") and unit in ("s", "ms", "mb", "%"):
        return None
    return printed.factor, None


def _scale_bytes(printed: Printed, unit: str, name: str) -> tuple[float, float | None] | None:
    if unit in ("s", "ms", "min", "h", "%", "nats", "bpb"):
        return None
    if unit:
        return 1e6 if unit == "m" else printed.factor, printed.binary_factor
    factor = 1e6 if "_mb_" in name else 1e3 if "_kb_" in name else 1.0
    if factor == 1.0 and abs(printed.value) < MIN_BYTES:
        return None
    return factor, 2.0**20 if factor == 1e6 else None


def _place(printed: Printed, factor: float, quantity: Quantity) -> float:
    is_exact = (
        printed.last_place == 1.0
        and factor == 1.0
        and printed.prefix == ""
        and quantity not in ("train_seconds", "eval_seconds")
    )
    place = printed.last_place * factor
    if printed.prefix == "~" and printed.last_place == 1.0 and printed.value >= 1000:
        digits = str(int(printed.value))
        place = factor * 10.0 ** (len(digits) - len(digits.rstrip("0")))
    return 0.0 if is_exact else place
