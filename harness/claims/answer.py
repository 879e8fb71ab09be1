"""What the evidence says of one predicate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.claims.evidence import Item
from harness.claims.quantities import Truth
from harness.claims.schema import Predicate

Standing = Literal["sealed", "exploratory", ""]
ALPHA = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the evidence says of one predicate.

    Attributes:
        predicate: that was asked.
        truth: yes, no, or undecided.
        items: evidence that was fetched.
        missing: why it could not be asked; empty where it was.
        is_wrong: whether that is a mistake in the claim file.
        p_value: level at which the answer of the point estimates ceases; None where no run of ours is in it.
        alpha: level that it was asked at, after Holm.
        truth_at_half_margin: the answer at half of its margins; None where undecided or without margins.
        truth_at_double_margin: at the double.
        margins: names of the margins in it.
        flip_factor: nearest factor on its margins, up to 1,024 either way, at which the answer is another; None for
            none.
        standing: `sealed` where all runs in its evidence were made for this predicate as it stands, else
            `exploratory`; empty without runs.
    """

    predicate: Predicate
    truth: Truth
    items: tuple[Item, ...] = ()
    missing: str = ""
    is_wrong: bool = False
    p_value: float | None = None
    alpha: float = ALPHA
    truth_at_half_margin: Truth = None
    truth_at_double_margin: Truth = None
    margins: tuple[str, ...] = ()
    flip_factor: float | None = None
    standing: Standing = ""
