"""The clock of a run: what was spent on what, how far the run is, and when it has to stop.

Wall-clock time inside the budget belongs to a stage ("train", "compression", "export", ...; "other" where
none is open); data preparation, validation and one-off compilation are outside it and are added up by reason.
The stages add up to the spent seconds; what a process that died had logged since its last checkpoint is stage "lost".
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

from harness.errors import SmallBudgetError, UsageError
from harness.training.budget import Budget, no_extra, whole_steps

OutsideReason = Literal["data", "validation", "compilation"]

_RECENT_STEPS = 32  # the step time follows a machine that slows down, yet one slow step hardly moves it
# The export is timed once, early; on a machine that got busy it takes longer, and so does the checkpoint before it.
EXPORT_MARGIN, EXPORT_MARGIN_SECONDS = 0.5, 0.25
_MOST_SHARE = 1 + 1e-9  # 0.7 + 0.2 + 0.1 is a little above 1
_PLAIN_STATE = (
    "device_seconds",
    "num_steps",
    "num_tokens",
    "num_flops",
    "num_segments",
    "export_seconds",
)


@dataclass(kw_only=True, slots=True)
class _Segment:
    """One `fit`: the part of the budget that it may use, in the unit of the budget."""

    begin_spent: float = 0.0
    end_share: float = 0.0
    num_steps: int = 0
    max_steps: int | None = None
    tokens_per_step: int = 0
    flops_per_step: float = 0.0


class Clock:
    """Counts what a run spends; make it just before the plugin's first call.

    Attributes:
        budget: what may be spent.
        num_devices: devices held at the same time; device seconds are wall-clock seconds times this.
        stage_seconds: seconds inside the budget, by stage.
        outside_seconds: seconds outside the budget, by reason.
        device_seconds: device seconds inside the budget.
        num_steps: optimiser steps so far, over all segments.
        num_tokens: training tokens so far.
        num_flops: floating-point operations of these steps.
        num_segments: segments begun so far.
        export_seconds: seconds kept for the export, the margin included.
        stopped_by: what ended the training, for example "seconds" or "interrupt"; None while it may go on.
    """

    def __init__(self, budget: Budget, *, num_devices: int = 1, now: Callable[[], float] = time.monotonic) -> None:
        """Start the clock.

        Args:
            budget: what may be spent.
            num_devices: devices held at the same time.
            now: monotonic time in seconds.
        """
        self.budget = budget
        self.num_devices = num_devices
        self.stage_seconds: dict[str, float] = {}
        self.outside_seconds: dict[str, float] = {}
        self.device_seconds = 0.0
        self.num_steps = 0
        self.num_tokens = 0
        self.num_flops = 0.0
        self.num_segments = 0
        self.stopped_by: str | None = None
        self._segment = _Segment()
        self.export_seconds = 0.0
        self._recent_seconds: list[float] = []
        self._step_marks: dict[str, float] = {}
        self._now = now
        self._settled_at = now()
        self._open: list[tuple[str, bool]] = [("other", True)]
        self._finished = False

    # What is spent

    @property
    def spent_seconds(self) -> float:
        """Wall-clock seconds inside the budget so far, those of a resumed checkpoint included."""
        self._settle()
        return math.fsum(self.stage_seconds.values())

    @property
    def spent(self) -> float:
        """What is spent so far in the unit of the budget."""
        seconds = self.spent_seconds
        match self.budget.kind:
            case "seconds":
                return seconds
            case "gpu_seconds":
                return self.device_seconds
            case "steps":
                return float(self.num_steps)
            case "tokens":
                return float(self.num_tokens)
            case "flops":
                return self.num_flops

    @property
    def overrun(self) -> float:
        """What was spent beyond the budget, in its unit; 0 when it was kept."""
        return max(0.0, self.spent - self.budget.amount)

    @property
    def is_within_tolerance(self) -> bool:
        """Whether the budget was kept to one step or 1%, whichever is more."""
        return self.overrun <= max(self._step_cost(None), self.budget.amount / 100)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Account the time inside to the stage `name`, inside the budget (unless a pause is open)."""
        is_counted = self._open[-1][1]
        with self._account(name if is_counted else self._open[-1][0], is_counted):
            yield

    @contextmanager
    def pause(self, reason: OutsideReason) -> Iterator[None]:
        """Account the time inside to `reason`, outside the budget."""
        with self._account(reason, False):
            yield

    def finish(self) -> None:
        """Stop for good: the artifact file is written."""
        self._settle()
        self._finished = True

    # How far the run is

    def begin_segment(
        self,
        share: float,
        *,
        tokens_per_step: int,
        flops_per_step: float,
        extra_flops: Callable[[int], float] = no_extra,
        num_steps: int | None = None,
    ) -> None:
        """Open the next part of the training; a run without stages has one, with a share of 1.

        Args:
            share: part of the whole budget, in (0, 1]; the shares of a run add up to at most 1.
            tokens_per_step: training tokens of one optimiser step.
            flops_per_step: floating-point operations of one optimiser step.
            extra_flops: operations of n steps of the segment beyond that.
            num_steps: steps to take instead of those that the share holds, for a repetition.

        Raises:
            UsageError: the shares add up to more than the budget.
        """
        asked_share = self._segment.end_share + share
        if not (share > 0 and asked_share <= _MOST_SHARE):
            raise UsageError(
                f"fit(share={share:g}): the shares of this method add up to {asked_share:.0%} of the budget. "
                f"Let each be above 0 and all together at most 1."
            )
        self._segment = _Segment(
            begin_spent=self.spent,
            end_share=min(asked_share, 1.0),
            tokens_per_step=tokens_per_step,
            flops_per_step=flops_per_step,
        )
        if num_steps is not None:
            self._segment.max_steps = num_steps
        elif not self.budget.is_timed:
            extra = extra_flops if self.budget.kind == "flops" else no_extra
            self._segment.max_steps = whole_steps(self._left(), self._step_cost(None), extra)
        self.num_segments += 1
        self.stopped_by = None
        self._recent_seconds = []
        self._mark_step()

    def reserve_export(self, seconds: float) -> None:
        """Keep wall-clock seconds of a timed budget for the export: what it took when it was timed, and a margin."""
        self.export_seconds = seconds * (1 + EXPORT_MARGIN) + EXPORT_MARGIN_SECONDS

    def count_step(self, extra_flops: float = 0.0) -> None:
        """Count one finished optimiser step of the open segment and learn from how long it took.

        Args:
            extra_flops: operations of this step beyond those of every step.
        """
        self._settle()
        self.num_steps += 1
        self.num_tokens += self._segment.tokens_per_step
        self.num_flops += self._segment.flops_per_step + extra_flops
        self._segment.num_steps += 1
        if self._segment.num_steps == 2:  # the first step of a segment also fills caches and allocates
            self._recent_seconds = []
        stage = self._open[-1][0]
        step_seconds = self.stage_seconds.get(stage, 0.0) - self._step_marks.get(stage, 0.0)
        self._recent_seconds = [*self._recent_seconds, step_seconds][-_RECENT_STEPS:]
        self._mark_step()

    def count_flops(self, flops: float) -> None:
        """Count operations that belong to no step."""
        self.num_flops += flops

    @property
    def segment_steps(self) -> int:
        """Optimiser steps finished in the open segment: the step index of a schedule."""
        return self._segment.num_steps

    @property
    def step_seconds(self) -> float | None:
        """Median wall-clock seconds of the latest steps; None before the first."""
        return median(self._recent_seconds) if self._recent_seconds else None

    @property
    def total_steps(self) -> float:
        """Steps of the open segment: exact for counted budgets, else an estimate, infinite at first."""
        if self._segment.max_steps is not None:
            return float(self._segment.max_steps)
        # by elapsed time, not by the latest steps: one slow step must not move the learning rate
        progress = self.progress()
        return self._segment.num_steps / progress if progress and self._segment.num_steps else math.inf

    def progress(self) -> float:
        """Return the part of the open segment that is over: steps / all steps, or elapsed / allowed time."""
        if self._segment.max_steps is not None:
            done = self._segment.num_steps / max(1, self._segment.max_steps)
        else:
            begin, end = self._segment.begin_spent, self._segment_end()
            done = (self.spent - begin) / (end - begin) if end > begin else 1.0
        return min(max(done, 0.0), 1.0)

    # When to stop

    def should_stop(self, next_step_seconds: float | None = None) -> bool:
        """Say whether one more step would go beyond the open segment, and set `stopped_by` if so.

        Args:
            next_step_seconds: expected seconds of the next step; the median of the latest when None.
        """
        if self.stopped_by is None and not self._has_room(next_step_seconds):
            self.stopped_by = self.budget.kind
        return self.stopped_by is not None

    def stop(self, reason: str) -> None:
        """Stop for another reason than the budget, for example "max_artifact_bytes" or "interrupt"."""
        self.stopped_by = reason

    def require_one_step(self, next_step_seconds: float | None = None) -> None:
        """Refuse to begin a segment that has no room for one step.

        Args:
            next_step_seconds: measured seconds of one step, for timed budgets.

        Raises:
            SmallBudgetError: the budget is too small for one step and an export; says what each takes.
        """
        if self._has_room(next_step_seconds):
            return
        unit, share = self.budget.kind.replace("_", " "), self._segment.end_share
        cost, reserved = self._step_cost(next_step_seconds), self._reserved()
        part = f" (this stage may use {share:.0%} of it)" if share < 1 else ""
        raise SmallBudgetError(
            f"budget {self.budget.text} is too small for one step and an export{part}: "
            f"{self.spent:,.4g} {unit} are spent, one step takes {cost:,.4g}, "
            f"the export with a margin {reserved:,.4g}. "
            f"Give --budget more than {(self.spent + cost) / share + reserved:,.4g} {unit}."
        )

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return the spent budget and the open segment as plain numbers, for a checkpoint."""
        self._settle()
        return {
            **{name: getattr(self, name) for name in _PLAIN_STATE},
            "stage_seconds": dict(self.stage_seconds),
            "outside_seconds": dict(self.outside_seconds),
            "recent_seconds": list(self._recent_seconds),
            "segment": asdict(self._segment),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint, also one of a run that was interrupted.

        The time since this clock was made is accounted outside the budget, as "resume".
        """
        self._settle()
        resume_seconds = math.fsum((*self.stage_seconds.values(), *self.outside_seconds.values()))
        for name in _PLAIN_STATE:
            setattr(self, name, state[name])
        self.stage_seconds = dict(state["stage_seconds"])
        self.outside_seconds = dict(state["outside_seconds"])
        self.outside_seconds["resume"] = self.outside_seconds.get("resume", 0.0) + resume_seconds
        self._recent_seconds = list(state["recent_seconds"])
        self._segment = _Segment(**state["segment"])
        self.stopped_by = None
        self._mark_step()

    def catch_up(self, logged_seconds: float) -> None:
        """Count what the log of a process that died says was spent, where that is more than its checkpoint says."""
        lost_seconds = logged_seconds - self.spent_seconds
        if lost_seconds > 0:
            self.stage_seconds["lost"] = self.stage_seconds.get("lost", 0.0) + lost_seconds
            self.device_seconds += lost_seconds * self.num_devices

    def _settle(self) -> None:
        """Give the time since the last call to whatever is open."""
        now = self._now()
        elapsed, self._settled_at = now - self._settled_at, now
        if self._finished:
            return
        name, is_counted = self._open[-1]
        seconds_by_name = self.stage_seconds if is_counted else self.outside_seconds
        seconds_by_name[name] = seconds_by_name.get(name, 0.0) + elapsed
        if is_counted:
            self.device_seconds += elapsed * self.num_devices

    @contextmanager
    def _account(self, name: str, is_counted: bool) -> Iterator[None]:
        self._settle()
        self._open.append((name, is_counted))
        try:
            yield
        finally:
            self._settle()
            self._open.pop()

    def _mark_step(self) -> None:
        self._settle()
        self._step_marks = dict(self.stage_seconds)

    def _reserved(self) -> float:
        devices = {"seconds": 1, "gpu_seconds": self.num_devices}.get(self.budget.kind, 0)
        return self.export_seconds * devices

    def _segment_end(self) -> float:
        return self._segment.end_share * (self.budget.amount - self._reserved())

    def _left(self) -> float:
        return self._segment_end() - self.spent

    def _has_room(self, next_step_seconds: float | None) -> bool:
        if self._segment.max_steps is not None:
            return self._segment.num_steps < self._segment.max_steps
        return self._left() >= max(self._step_cost(next_step_seconds), math.ulp(0.0))

    def _step_cost(self, next_step_seconds: float | None) -> float:
        seconds = self.step_seconds if next_step_seconds is None else next_step_seconds
        match self.budget.kind:
            case "seconds":
                return seconds or 0.0
            case "gpu_seconds":
                return (seconds or 0.0) * self.num_devices
            case "steps":
                return 1.0
            case "tokens":
                return float(self._segment.tokens_per_step)
            case "flops":
                return self._segment.flops_per_step
