"""What the log of a run under the clock says of its steps, so that the run can be repeated at any speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import RecordError
from harness.records.logs import LogStep, read_log


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedStep:
    """What the clock decided about one step.

    Attributes:
        lr_scale: factor on every learning rate.
        momentum: of the matrix optimiser.
        progress: part of the fit that was over before it.
    """

    lr_scale: float
    momentum: float
    progress: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedFit:
    """The steps of one fit, at least one, and the steps of it that were finished before each phase."""

    steps: tuple[LoggedStep, ...]
    phases: Mapping[str, int]


def read_fits(folder: Path) -> tuple[LoggedFit, ...]:
    """Read the fits of a record folder's log.

    Raises:
        RecordError: the log misses what is needed, for example since an older version wrote it.
    """
    log = read_log(folder)
    begins = [_whole(event.fields, "step", folder) for event in log.events if event.event == "fit"]
    if not begins or begins != sorted(begins) or begins[0] != 0:
        raise RecordError(f"{folder}: its log does not say where fits begin, so the run cannot be repeated")
    first_steps = [
        (str(event.fields.get("phase")), _whole(event.fields, "step", folder) - 1)
        for event in log.events
        if event.event == "phase"
    ]
    fits = []
    for begin, end in zip(begins, [*begins[1:], len(log.steps)], strict=True):
        steps = tuple(_decided(step, folder) for step in log.steps[begin:end])
        phases = {phase: first - begin for phase, first in first_steps if begin <= first < end}
        if not steps:
            raise RecordError(f"{folder}: its log has a fit without steps, so the run cannot be repeated")
        fits.append(LoggedFit(steps=steps, phases=phases))
    return tuple(fits)


def _decided(step: LogStep, folder: Path) -> LoggedStep:
    if step.lr_scale is None or step.momentum is None or step.progress is None:
        raise RecordError(
            f"{folder}: its log misses rate, momentum or progress of step {step.step}, so the run cannot be repeated"
        )
    return LoggedStep(lr_scale=step.lr_scale, momentum=step.momentum, progress=step.progress)


def _whole(fields: Mapping[str, Any], key: str, folder: Path) -> int:
    value = fields.get(key)
    if not isinstance(value, int):
        raise RecordError(f"{folder}: its log has an event without a whole {key}, so the run cannot be repeated")
    return value
