"""The phases of a fit: late quantisation, replay of the last batches, distillation, a uniform average (SWA).

A phase begins at the first step at or after its position and goes on to the end. Replay and distillation set the
learning rates; replay says which batches are seen, also under distillation. The average takes in what a step leaves, so
that the weights after the step before its position are the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args

from harness.training.budget import no_extra
from harness.training.schedule import parse_position

Phase = Literal["qat", "replay", "distill", "swa"]

# Replay needs a batch that was seen and distillation weights that were averaged: both take a finished step.
_FIRST_STEP: Mapping[Phase, int] = {"qat": 0, "replay": 1, "distill": 1, "swa": 0}
# Steps before its position at which a phase begins.
_LEAD: Mapping[Phase, int] = {"qat": 0, "replay": 0, "distill": 0, "swa": 1}


def positions_as_logged(settings: Mapping[str, Any], first_steps: Mapping[str, int]) -> dict[str, str]:
    """Return the positions that begin each phase where a fit began it, for its repetition.

    Args:
        settings: section `train` of the run.
        first_steps: steps of the fit finished before each phase that has begun.
    """
    asked = [phase for phase in get_args(Phase) if settings.get(f"{phase}_start")]
    return {f"{phase}_start": str(first_steps[phase] + _LEAD[phase]) if phase in first_steps else "" for phase in asked}


def describe_surprises(settings: Mapping[str, Any], total_steps: int) -> Iterator[str]:
    """Say which phases never begin in a run of so many steps, or before any of it could be as their position asks."""
    for phase in get_args(Phase):
        if text := str(settings.get(f"{phase}_start", "")):
            first = parse_position(text).resolve(total_steps) - _LEAD[phase]
            if first >= total_steps:
                yield f"{phase}_start = {text} is never reached in {total_steps:,} steps"
            elif first < -_LEAD[phase]:
                yield f"{phase}_start = {text} is before the run of {total_steps:,} steps: it begins at once"


def teacher_flops(settings: Mapping[str, Any], network_flops: float) -> Callable[[int], float]:
    """Return the function that gives the operations of the teacher in a fit of n steps.

    Args:
        settings: section `train` of the run.
        network_flops: of the network in one step; the teacher's forward pass is a third of it.
    """
    text = str(settings.get("distill_start", ""))
    if not text:
        return no_extra
    position = parse_position(text)

    def flops(num_steps: int) -> float:
        first = max(_FIRST_STEP["distill"], math.ceil(position.resolve(num_steps)))
        return max(0, num_steps - first) * network_flops / 3

    return flops


class Phases:
    """Which phases a step is in, which batch it reads, and by what its learning rates are multiplied.

    Attributes:
        begun: the first step of each phase that has begun.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Read the positions.

        Args:
            settings: section `train` of a run as plain values; keys that an older record lacks are off.

        Raises:
            ValueError: a position or a number is none.
            KeyError: a phase has a position, but no rate.
        """
        texts = {phase: str(settings.get(f"{phase}_start", "")) for phase in get_args(Phase)}
        self._starts = {phase: parse_position(text) for phase, text in texts.items() if text}
        # the later phase first: its rate is the one that holds
        self._rates = {f"{phase}_lr": float(settings[f"{phase}_lr"]) for phase in ("distill", "replay") if texts[phase]}
        self._replay_batches = int(settings.get("replay_batches", 1))
        self.begun: dict[str, int] = {}

    def advance(self, step: int, total_steps: float) -> list[Phase]:
        """Go on to `step`, and return the phases that begin with it.

        Args:
            step: optimiser steps finished so far.
            total_steps: steps of the fit; where it is an estimate, what has begun goes on though it moves.
        """
        new: list[Phase] = [
            phase
            for phase, start in self._starts.items()
            if phase not in self.begun and step >= max(_FIRST_STEP[phase], start.resolve(total_steps) - _LEAD[phase])
        ]
        self.begun |= dict.fromkeys(new, step)
        return new

    def has_begun(self, phase: Phase) -> bool:
        """Whether the step that was advanced to is in the phase."""
        return phase in self.begun

    def batch_index(self, step: int) -> int:
        """Return the index of the batch that `step` reads: its own, or one of the last before the replay."""
        begin = self.begun.get("replay")
        if begin is None:
            return step
        num_replayed = min(self._replay_batches, begin)
        return begin - num_replayed + (step - begin) % num_replayed

    def lr_scale(self, from_curve: float) -> float:
        """Return the factor of every learning rate, given that of the recipe's curve."""
        return self._rates[name] if (name := self.rate_name) else from_curve

    @property
    def rate_name(self) -> str | None:
        """The setting that gives the learning rates instead of the curve; None where the curve does."""
        return next((name for name in self._rates if name.removesuffix("_lr") in self.begun), None)

    def state_dict(self) -> dict[str, Any]:
        """Return what has begun, and when."""
        return {"begun": dict(self.begun)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.begun = dict(state["begun"])
