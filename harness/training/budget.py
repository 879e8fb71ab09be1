"""What a run may spend: `27h`, `90m`, `600s`, `27gpuh`, `2000steps`, `50Mtok`, `1e15flop`."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from harness.errors import RunError, UsageError

Kind = Literal["seconds", "gpu_seconds", "steps", "tokens", "flops"]

ACCEPTED_FORMS = "27h, 90m, 600s (wall clock), 27gpuh (device time), 2000steps, 50Mtok, 1e15flop"

_SECONDS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_COUNTED: dict[str, Kind] = {
    "step": "steps",
    "steps": "steps",
    "tok": "tokens",
    "toks": "tokens",
    "token": "tokens",
    "tokens": "tokens",
    "flop": "flops",
    "flops": "flops",
}
_PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12, "P": 1e15}
_FORM = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]*)?(?:[eE]\+?[0-9]+)?|\.[0-9]+)\s*(?P<unit>[A-Za-z]+)")
_NUMBER = re.compile(r"[0-9]*\.?[0-9]+(?:[eE]\+?[0-9]+)?")
_TIMED_TERM = r"([0-9]+(?:\.[0-9]+)?)(d|h|min|m|sec|s)\s*"
_COUNTED_UNIT = re.compile(rf"(?P<prefix>[kKMGBTP]?)(?P<noun>{'|'.join(sorted(_COUNTED, reverse=True))})")


def no_extra(num_steps: int) -> float:
    """Say that steps cost nothing beyond what each of them does."""
    return 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """An amount of one thing that a run may spend.

    Attributes:
        kind: what is limited: wall-clock seconds, device seconds, optimiser steps, training tokens, or FLOPs.
        amount: how much, in the unit of `kind`.
        text: the budget as the user wrote it.
    """

    kind: Kind
    amount: float
    text: str

    @property
    def is_timed(self) -> bool:
        """Whether a clock decides the end, so that the number of steps depends on the machine."""
        return self.kind in ("seconds", "gpu_seconds")

    def max_steps(
        self, tokens_per_step: float, flops_per_step: float, extra_flops: Callable[[int], float] = no_extra
    ) -> int | None:
        """Return the number of whole optimiser steps that fit; None where a clock decides.

        Args:
            tokens_per_step: training tokens of one optimiser step.
            flops_per_step: floating-point operations of one optimiser step.
            extra_flops: operations of n steps beyond that.

        Raises:
            RunError: not even one step fits.
        """
        if self.is_timed:
            return None
        cost = {"steps": 1.0, "tokens": float(tokens_per_step), "flops": float(flops_per_step)}[self.kind]
        num_steps = whole_steps(self.amount, cost, extra_flops if self.kind == "flops" else no_extra)
        if num_steps < 1:
            raise RunError(
                f"budget {self.text} is too small for one step, which costs {cost:,.6g} {self.kind}. "
                f"Give --budget at least {cost:,.6g} {self.kind} or set a smaller batch_tokens."
            )
        return num_steps


def whole_steps(amount: float, cost: float, extra: Callable[[int], float] = no_extra) -> int:
    """Return how many steps fit into `amount`; 1e-9 absorbs the rounding of 0.3 / 0.1.

    Args:
        amount: to be spent.
        cost: of each step, above 0.
        extra: what n steps cost beyond that, rising with n.
    """
    room = amount * (1 + 1e-9)
    most = max(0, math.floor(amount / cost * (1 + 1e-9)))
    if extra is no_extra:
        return most
    return bisect_right(range(1, most + 1), room, key=lambda n: n * cost + extra(n))


def parse_budget(text: str) -> Budget:
    """Read a budget.

    Args:
        text: a number and a unit: d, h, m (or min), s; gpud, gpuh, gpum (or gpumin), gpus for device time;
            steps, tok, flop, each with an optional prefix k, M, G (or B), T, P.

    Raises:
        UsageError: the text is no such form, or the amount is not a positive, finite number.
    """
    stripped = text.strip()
    match = _FORM.fullmatch(stripped)
    if match is None and (minutes := _minutes_of_compound(stripped)):
        raise _refuse(text, f" has two units (write {minutes:.10g}m)")
    if match is None:
        hint = f" has no unit (did you mean {stripped}m or {stripped}steps?)"
        raise _refuse(text, hint if _NUMBER.fullmatch(stripped) else " is not a positive number and a unit")
    number, unit = float(match["number"]), match["unit"]
    kind, factor = _parse_unit(text, unit)
    amount = number * factor
    if not 0 < amount < math.inf:
        raise _refuse(text, " is not above zero" if amount == 0 else " is beyond any machine")
    if kind in ("steps", "tokens"):
        if abs(amount - round(amount)) > 1e-6:
            raise _refuse(text, f" is {amount:g} {kind}, not a whole number")
        amount = float(round(amount))
    return Budget(kind=kind, amount=amount, text=stripped)


def _minutes_of_compound(text: str) -> float | None:
    """Read what other programs take, such as 1h30m, to name the form that this one takes; None for anything else."""
    if not re.fullmatch(rf"(?:{_TIMED_TERM}){{2,}}", text):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(_TIMED_TERM, text)) / 60


def _parse_unit(text: str, unit: str) -> tuple[Kind, float]:
    if unit in _SECONDS:
        return "seconds", _SECONDS[unit]
    if unit.startswith("gpu") and unit[3:] in _SECONDS:
        return "gpu_seconds", _SECONDS[unit[3:]]
    if match := _COUNTED_UNIT.fullmatch(unit):
        return _COUNTED[match["noun"]], _PREFIXES[match["prefix"]]
    raise _refuse(text, f" has the unknown unit '{unit}'")


def _refuse(text: str, reason: str) -> UsageError:
    return UsageError(f"--budget '{text}'{reason}. Accepted: {ACCEPTED_FORMS}.")
