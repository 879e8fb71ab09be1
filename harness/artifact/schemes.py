"""The grammar of quantisation schemes: the short names that a preset, a plugin or a file uses.

    fp32, fp16                    floats as they are
    int4..int8-row | -tensor      symmetric integers, one scale a row (or tensor), set by its largest number
    int4..int8-step               one step for the tensor, at the squared error of the same name in `-row`;
                                  symbols are not clipped, and the entropy coder makes the common ones short
    ternary-row | -tensor         -1, 0, 1 times a scale; the scale of least squared error, exactly
    step-NUMBER                   one step for the tensor, given: `step-0.004`
    integers                      whole numbers kept exactly (masks, indices); not counted as parameters
    challenge-int8, legendre-int8, legendre-int7, frugendorff-int6
                                  the published quantisers, with their floor on the scale

`-search` after a `-row`, `-tensor` or `-step` scheme clips where the squared error is least; `-nofloor` after
a published one drops its floor. A row is a last axis: a stack (K, out, in) has K * out rows.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from harness.errors import UsageError

Kind = Literal["float", "grid", "step", "ternary", "published", "integers"]
Group = Literal["row", "tensor"]

_INT_PATTERN = re.compile(r"int([4-8])-(row|tensor|step)(-search)?")
_PUBLISHED_PATTERN = re.compile(r"(challenge-int8|legendre-int[78]|frugendorff-int6)(-nofloor)?")
_STEP_PATTERN = re.compile(r"step-([0-9]{1,20}(?:\.[0-9]{1,20})?(?:e-?[0-9]{1,2})?)")
_GRAMMAR = (
    "fp32, fp16, int4..int8 with -row, -tensor or -step (then -search), ternary-row, ternary-tensor, "
    "step-NUMBER, integers, challenge-int8, legendre-int7, legendre-int8, frugendorff-int6 (then -nofloor)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """A parsed scheme.

    Attributes:
        name: the name as written.
        kind: which quantiser.
        bits: width of an integer scheme; 32 or 16 for floats, 0 where it has no meaning.
        group: what shares a scale.
        search: clip by search on squared error.
        floor: whether a published quantiser keeps its floor on the scale.
        step: the given step of `step-NUMBER`, in the unit of the weights, else 0.
    """

    name: str
    kind: Kind
    bits: int = 0
    group: Group = "tensor"
    search: bool = False
    floor: bool = True
    step: float = 0.0

    @property
    def top(self) -> int:
        """Largest symbol of a clipped scheme (127 at 8 bits, 1 for ternary)."""
        return 1 if self.kind == "ternary" else 2 ** (self.bits - 1) - 1

    @property
    def has_scale(self) -> bool:
        """Whether scales are stored beside the symbols."""
        return self.kind not in ("float", "integers")


def _parse(name: str) -> Scheme | None:
    if name in ("fp32", "fp16"):
        return Scheme(name=name, kind="float", bits=int(name[2:]))
    if name == "integers":
        return Scheme(name=name, kind="integers")
    if name in ("ternary-row", "ternary-tensor"):
        return Scheme(name=name, kind="ternary", bits=2, group="row" if name.endswith("row") else "tensor")
    if match := _INT_PATTERN.fullmatch(name):
        bits, group, search = int(match[1]), match[2], match[3] is not None
        if group == "step":
            return Scheme(name=name, kind="step", bits=bits, search=search)
        shared: Group = "row" if group == "row" else "tensor"
        return Scheme(name=name, kind="grid", bits=bits, group=shared, search=search)
    if match := _PUBLISHED_PATTERN.fullmatch(name):
        floor = match[2] is None
        return Scheme(name=name, kind="published", bits=int(match[1][-1]), group="row", floor=floor)
    if match := _STEP_PATTERN.fullmatch(name):
        step = float(match[1])
        return Scheme(name=name, kind="step", step=step) if 0 < step < math.inf else None
    return None


def parse_scheme(name: str) -> Scheme:
    """Parse the name of a quantisation scheme.

    Raises:
        UsageError: the name is not one; with the nearest name and the grammar.
    """
    if (scheme := _parse(name)) is not None:
        return scheme
    close = difflib.get_close_matches(name, known_schemes(), n=1)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    raise UsageError(f"unknown quantisation scheme '{name}'. {hint}Known: {_GRAMMAR}.")


@cache
def known_schemes() -> tuple[str, ...]:
    """Every scheme name that takes no number, the plain ones first."""
    widths, groups = range(8, 3, -1), ("row", "tensor", "step")
    plain = tuple(f"int{bits}-{group}" for group in groups for bits in widths)
    grid = (*plain, *(f"{name}-search" for name in plain))
    published = ("challenge-int8", "legendre-int8", "legendre-int7", "frugendorff-int6")
    bare = tuple(f"{name}-nofloor" for name in published)
    return ("fp32", "fp16", *grid, "ternary-row", "ternary-tensor", "integers", *published, *bare)
