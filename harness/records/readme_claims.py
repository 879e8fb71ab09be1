"""What a README says, and how a printed number becomes a claim of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from harness.records.numbers import Printed
from harness.records.submission import Problem, Reading, Statement
from harness.records.vocabulary import Meaning, Quantity, normalise

MAX_CLAIMS = 400


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
    elif (
        quantity in ("bpb", "loss")
        and (unit not in ("", "bpb", "bpp", "nats") or abs(printed.value) >= 100)
        or quantity in ("steps", "params")
        and unit in ("s", "ms", "mb", "%")
    ):
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
