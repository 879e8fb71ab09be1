"""The training loop: the harness's side of `TrainingRun`, with the clock, the checkpoints and the log.

One optimiser step: `begin_step` gives the leaves, micro-batches sum gradients on them in a fixed order (over ranks
too), `finish_step` carries the sum to the parameters, then clipping, the optimisers, the averages.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor

from harness.data.shards import TokenData
from harness.errors import RecordError, RunError, UsageError
from harness.method import ExportSettings, Method, Observed, Parent
from harness.nn.network import Network
from harness.records.logs import most_seconds
from harness.training.calibration import calibration_batches, input_moments
from harness.training.checkpoint import load_checkpoint, save_checkpoint
from harness.training.clock import Clock
from harness.training.gradients import TreeSum, micro_batches_of_rank, sum_over_ranks
from harness.training.operations import count_operations
from harness.training.optim import optimiser_flops
from harness.training.phases import teacher_flops
from harness.training.qat import as_stored
from harness.training.ranks import Ranks
from harness.training.recipe import Recipe
from harness.training.repetition import LoggedFit, LoggedStep
from harness.training.state import FitState, copy_state, start_fit

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHECKPOINT_SECONDS = 60.0
# A scheduler signals launchers and their processes alike, and launchers pass it on: one stop, heard twice.
SAME_STOP_SECONDS = 2.0
# Formulas leave out elementwise work, torch's counter too; what is declared may be this much below what is counted.
MIN_DECLARED_FLOPS = 0.95

# Part of a timed fit that must be over before its number of steps is believed enough to begin a phase.
MIN_PROGRESS = 0.1


class EventLog(Protocol):
    """Where events go; a resumed run cuts it back to its last checkpoint."""

    def write(self, event: str, **fields: Any) -> None:
        """Append one event."""
        ...

    @property
    def offset(self) -> int:
        """Bytes written so far."""
        ...

    def truncate(self, offset: int) -> Sequence[Mapping[str, Any]]:
        """Forget what was written after `offset`, and return it."""
        ...

    def sync(self) -> None:
        """Force what was written to the disk."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """What a progress display may show after a step."""

    step: int
    total_steps: float
    progress: float
    loss_nats: float
    step_seconds: float
    tokens_per_second: float


class Trainer:
    """Trains networks under one clock; a method's `train` gets it as its `TrainingRun`."""

    def __init__(  # noqa: PLR0913  keyword-only: everything a method must not choose for itself
        self,
        *,
        method: Method,
        recipe: Recipe,
        clock: Clock,
        data: TokenData,
        seed: int,
        ranks: Ranks,
        log: EventLog | None,
        checkpoint_path: Path,
        flops_per_step: float,
        probe_export: Callable[[Network], float],
        validate: Callable[[Network, int], None],
        num_validations: int = 4,
        on_ready: Callable[[float], None] = lambda _: None,
        on_step: Callable[[StepReport], None] = lambda _: None,
        repeated: Sequence[LoggedFit] | None = None,
        parent: Parent | None = None,
        pretrained: PreTrainedModel | None = None,
        export: ExportSettings | None = None,
    ) -> None:
        """Prepare a trainer.

        Args:
            method: names the parameter groups and counts operations.
            recipe: optimisers, schedules, batch shapes.
            clock: already running.
            data: training tokens; the test split is never asked for.
            seed: of the data order.
            ranks: the processes of the run.
            log: events, steps included; None on the ranks that write nothing.
            checkpoint_path: written every `CHECKPOINT_SECONDS`, read when it exists.
            flops_per_step: operations of one optimiser step, generation and optimiser included.
            probe_export: exports noise of the network's shapes; returns the seconds it took.
            validate: scores the network on a piece of the tune split at a step, and logs it.
            num_validations: evenly spaced validations during training.
            on_ready: told the seconds of a warm step, before the first one that counts.
            on_step: called after each step on rank 0.
            repeated: the fits of a run under the clock that is repeated: number of steps, rates, phases and progress
                are those of its log.
            parent: the stored network that the method is to start from.
            pretrained: the model that it is to compress.
            export: how tensors will be stored, which late quantisation looks at.
        """
        self._export = export or ExportSettings()
        self._method, self._recipe, self._clock, self._data = method, recipe, clock, data
        self._seed, self._ranks, self._log, self._path = seed, ranks, log, checkpoint_path
        self._probe_export, self._validate, self._on_step = probe_export, validate, on_step
        self._num_validations, self._repeated = num_validations, repeated
        self._flops_per_step, self._on_ready = flops_per_step, on_ready
        self._parent, self._parent_was_taken = parent, False
        self._pretrained = pretrained
        self._stopped_at: float | None = None
        self._pending = load_checkpoint(checkpoint_path) if checkpoint_path.exists() else None
        self._num_fits = 0
        self._finished: list[dict[str, Tensor]] = []
        self.step_seconds: list[float] = []

    @property
    def parent(self) -> Parent | None:
        """The stored network that the method is to start from."""
        self._parent_was_taken = True
        return self._parent

    def fit(
        self,
        network: Network,
        *,
        share: float = 1.0,
        flops_per_step: Callable[[int], float] | None = None,
        before_step: Callable[[float], None] | None = None,
    ) -> Network:
        """Train `network` for `share` of the budget; goes on from the checkpoint where one exists.

        See `harness.method.TrainingRun` for the arguments.

        Raises:
            UsageError: a parent was given, but the method has not asked for it.
            RecordError: the run that is repeated had fewer fits.
            RunError: the budget does not hold one step and an export, or the loss is not a number.
            KeyboardInterrupt: the user or the scheduler asked to stop; the checkpoint is written.
        """
        if self._parent is not None and not self._parent_was_taken:
            raise UsageError("--from: this method does not start from a record; run it without")
        self._num_fits += 1
        pending_fit = self._pending["clock"]["num_segments"] if self._pending else 0
        if self._pending and self._num_fits < pending_fit:
            return self._restore_finished(network, self._pending)
        state = self._start(network, flops_per_step or self._method.flops_per_step, before_step)
        flops = self._flops_per_step if flops_per_step is None else self._count_flops(state)
        network_flops = state.flops_per_step(self._recipe.batch_tokens)
        self._clock.begin_segment(
            share,
            tokens_per_step=self._recipe.batch_tokens,
            flops_per_step=flops,
            extra_flops=teacher_flops(self._recipe.model_dump(), network_flops),
            num_steps=len(state.logged.steps) if state.logged else None,
        )
        if self._pending and self._num_fits == pending_fit:
            if self._recipe.compile:
                self._warm_up(state)  # compiles outside the clock; the checkpoint then overwrites its effects
            self._resume(state, self._pending)
        else:
            self._begin(state)
            if self._recipe.qat_start:
                with as_stored(state.network, self._method, self._export):
                    pass  # a method for which it cannot be done is refused now, not at the end of a long run
            if self._log is not None:
                total_steps = self._clock.total_steps
                known = int(total_steps) if math.isfinite(total_steps) else None
                self._log.write("fit", step=self._clock.num_steps, steps=known)
        with self._listen_for_signals(), self._clock.stage("train"):
            self._steps(state)
        state.averages.copy_to(state.network)
        self._finished.append(copy_state(state.network.state_dict()))
        return state.network

    def _begin(self, state: FitState) -> None:
        """Prime, time a step and an export, and refuse a budget that has no room for both."""
        step_seconds = self._ranks.share(self._warm_up(state))
        self._clock.reserve_export(self._ranks.share(self._probe_export(state.network)))
        self._clock.require_one_step(step_seconds)
        self._on_ready(step_seconds)

    def _restore_finished(self, network: Network, pending: dict[str, Any]) -> Network:
        """Give back the result of a `fit` that was over before the checkpoint was written."""
        network = network.to(self._ranks.device)
        network.load_state_dict(pending["finished"][self._num_fits - 1])
        self._finished.append(copy_state(network.state_dict()))
        return network

    def calibrate(self, network: Network, *, num_tokens: int) -> dict[str, Tensor]:
        """Measure the inputs of the linear maps of `network` on the first `num_tokens` tokens of training.

        Every rank runs all of them, so that the moments do not depend on the number of ranks. Its operations count, as
        torch counts them; it takes neither steps nor tokens of a budget.
        """
        tokens = calibration_batches(self._recipe.batches(self._data.train, self._seed), num_tokens)
        with count_operations() as counter:
            moments = input_moments(network.to(self._ranks.device), tokens)
        self._clock.count_flops(counter.get_total_flops())
        return moments

    @property
    def pretrained(self) -> PreTrainedModel:
        """The model that the method is to compress, on the run's device."""
        assert self._pretrained is not None, "only a method's pretrained.py asks for it"
        return cast("PreTrainedModel", self._pretrained.to(self._ranks.device))  # type: ignore[arg-type]

    def observe(self, watch: Callable[[Tensor], Observed], *, num_tokens: int) -> Observed:
        """Hand the first `num_tokens` tokens of training to `watch`; its operations count, as torch counts them."""
        batches = calibration_batches(self._recipe.batches(self._data.train, self._seed), num_tokens)
        tokens_BT = torch.cat(list(batches)).to(self._ranks.device)
        with count_operations() as counter:
            seen = watch(tokens_BT)
        self._clock.count_flops(counter.get_total_flops())
        return seen

    def _start(
        self,
        network: Network,
        flops_per_step: Callable[[int], float],
        before_step: Callable[[float], None] | None,
    ) -> FitState:
        return start_fit(
            network.to(self._ranks.device).train(),
            method=self._method,
            recipe=self._recipe,
            batches=self._recipe.batches(self._data.train, self._seed),
            flops_per_step=flops_per_step,
            before_step=before_step,
            logged=self._logged_fit(),
        )

    def _logged_fit(self) -> LoggedFit | None:
        if self._repeated is None:
            return None
        if self._num_fits > len(self._repeated):
            raise RecordError(f"the run had {len(self._repeated)} fits by its log, its method now asks for more")
        return self._repeated[self._num_fits - 1]

    def _count_flops(self, state: FitState) -> float:
        """Count the operations of one step of a stage whose network is not the one that the run was planned with."""
        groups = self._method.param_groups(state.network)
        return state.flops_per_step(self._recipe.batch_tokens) + optimiser_flops(state.network, groups, self._recipe)

    def _steps(self, state: FitState) -> None:
        clock, ranks = self._clock, self._ranks
        saved_at = time.monotonic()
        while not ranks.share(clock.should_stop()):
            started = time.monotonic()
            loss_nats, decided = self._train_step(state)
            clock.count_step(state.teacher_flops(self._recipe.batch_tokens))
            self._report(state, loss_nats, decided, time.monotonic() - started)
            self._validate_if_due(state)
            if ranks.any(self._stopped_at is not None):
                self._clock.stop("interrupt")
                self._save(state)
                raise KeyboardInterrupt
            if ranks.share(time.monotonic() - saved_at >= CHECKPOINT_SECONDS):
                self._save(state)
                saved_at = time.monotonic()
        self._save(state)

    def _train_step(self, state: FitState) -> tuple[float, LoggedStep]:
        """Do one optimiser step; returns the mean loss of its tokens, and what the clock decided."""
        recipe, step = self._recipe, self._clock.segment_steps
        total_steps = self._ranks.share(self._clock.total_steps)
        # early in a timed run the estimate is far too low, and what has begun does not end again
        is_settled = self._ranks.share(not self._clock.budget.is_timed or self._clock.progress() >= MIN_PROGRESS)
        state.advance(step, total_steps if is_settled else math.inf)
        logged = state.logged.steps[step] if state.logged else None
        decided = logged or LoggedStep(
            lr_scale=state.phases.lr_scale(recipe.lr_curve.value(step, total_steps)),
            momentum=recipe.momentum_curve.value(step, total_steps),
            progress=self._ranks.share(self._clock.progress()),
        )
        if state.before_step is not None:
            state.before_step(decided.progress)
        with self._as_seen(state):
            loss_nats = self._accumulate(state, state.phases.batch_index(step))
        if not loss_nats < float("inf"):
            raise RunError(
                f"the loss is {loss_nats} at step {step}; the run cannot go on. Lower the learning rates "
                "(--set train.matrix_lr=... train.embedding_lr=...) or set train.grad_clip=1.0"
            )
        state.optimisers.clip(recipe.grad_clip)
        state.optimisers.set_schedule(decided.lr_scale, decided.momentum)
        state.optimisers.step()
        state.optimisers.zero_grad()
        state.average()
        return loss_nats, decided

    def _as_seen(self, state: FitState) -> AbstractContextManager[None]:
        is_late = state.phases.has_begun("qat")
        return as_stored(state.network, self._method, self._export) if is_late else nullcontext()

    def _accumulate(self, state: FitState, index: int) -> float:
        """Sum gradients over this rank's micro-batches of batch `index`, then over ranks; returns the mean loss."""
        num_micro, ranks, device = self._recipe.num_micro_batches, self._ranks, self._ranks.device
        leaves = state.network.begin_step()
        total = TreeSum()
        for micro in micro_batches_of_rank(num_micro, ranks.rank, ranks.size):
            tokens, targets = state.batches.batch(index, micro)
            tokens_BT = torch.from_numpy(tokens).to(device, non_blocking=True)
            targets_BT = torch.from_numpy(targets).to(device, non_blocking=True)
            with self._autocast():
                loss, nats = state.objective(tokens_BT, targets_BT)
            total.add([*torch.autograd.grad(loss / num_micro, leaves), nats.detach() / num_micro])
        *gradients, loss_sum = sum_over_ranks(total.total(), ranks.size)
        state.network.finish_step(gradients)
        return float(loss_sum)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._recipe.precision == "float32":
            return nullcontext()
        return torch.autocast(torch.device(self._ranks.device).type, dtype=torch.bfloat16)

    def _warm_up(self, state: FitState) -> float:
        """Run the recipe's warm-up steps and undo them: compilers and caches are primed, and a step is timed."""
        before = copy_state(state.state_dict())
        seconds = 0.0
        with self._clock.pause("compilation"):
            if not self._recipe.compile:
                self._check_flops(state)
            for _ in range(max(self._method.cost_period, self._recipe.warmup_steps)):
                started = time.monotonic()
                self._train_step(state)
                seconds = time.monotonic() - started
            if self._recipe.compile and self._recipe.distill_start:
                state.begin_distillation(step=0)
                for _ in range(self._method.cost_period):
                    self._accumulate(state, 0)
            state.load_state_dict(before)
        return seconds

    def _check_flops(self, state: FitState) -> None:
        """Hold the method's formula against the operations that torch counts; budgets in FLOPs rest on it.

        Raises:
            RunError: clearly fewer operations are declared than are done.
        """
        period = self._method.cost_period
        with count_operations() as counter:
            for _ in range(period):
                self._accumulate(state, 0)
        counted = counter.get_total_flops() * self._ranks.size / period
        declared = state.flops_per_step(self._recipe.batch_tokens)
        if declared < MIN_DECLARED_FLOPS * counted:
            raise RunError(
                f"the method declares {declared:.4g} FLOPs a step, torch counts {counted:.4g}: mend flops_per_step, "
                "since budgets in FLOPs and comparisons rest on it"
            )

    def _report(self, state: FitState, loss_nats: float, decided: LoggedStep, seconds: float) -> None:
        self.step_seconds.append(seconds)
        clock = self._clock
        if self._log is None:
            return
        for phase, begin in state.phases.begun.items():
            if begin == clock.segment_steps - 1:
                self._log.write("phase", step=clock.num_steps, phase=phase)
        self._log.write(
            "step",
            step=clock.num_steps,
            loss_nats=round(loss_nats, 6),
            lr_scale=decided.lr_scale,
            momentum=decided.momentum,
            seconds=round(clock.spent_seconds, 3),
            tokens=clock.num_tokens,
            **({"progress": decided.progress} if clock.budget.is_timed else {}),
        )
        self._on_step(
            StepReport(
                step=clock.segment_steps,
                total_steps=clock.total_steps,
                progress=clock.progress(),
                loss_nats=loss_nats,
                step_seconds=seconds,
                tokens_per_second=self._recipe.batch_tokens / seconds,
            )
        )

    def _validate_if_due(self, state: FitState) -> None:
        due = int(self._ranks.share(self._clock.progress()) * (self._num_validations + 1))
        if state.next_validation <= min(due, self._num_validations):
            state.next_validation = due + 1
            if self._ranks.is_main:
                with self._clock.pause("validation"), state.averages.applied(state.network):
                    self._validate(state.network, self._clock.num_steps)

    def _save(self, state: FitState) -> None:
        if self._log is None:
            return
        with self._clock.stage("checkpoint"):
            self._log.write("checkpoint", step=self._clock.num_steps)
            self._log.sync()  # the checkpoint points into the log, so the log must be on disk first
            payload = {
                "state": state.state_dict(),
                "clock": self._clock.state_dict(),
                "log_offset": self._log.offset,
                "finished": self._finished,
                "step_seconds": self.step_seconds,
            }
            save_checkpoint(self._path, payload)

    def _resume(self, state: FitState, payload: dict[str, Any]) -> None:
        self._pending = None
        self.step_seconds = list(payload["step_seconds"])
        state.load_state_dict(payload["state"])
        self._clock.load_state_dict(payload["clock"])
        dropped = self._log.truncate(payload["log_offset"]) if self._log is not None else ()
        self._clock.catch_up(self._ranks.share(most_seconds(dropped)))
        if self._log is not None:
            self._log.write("resume", step=self._clock.num_steps, seconds=self._clock.spent_seconds)

    @contextmanager
    def _listen_for_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM stop the run after the step in hand; a second one, later, stops it at once."""

        def note(_: int, __: FrameType | None) -> None:
            if self._stopped_at is None:
                self._stopped_at = time.monotonic()
            elif time.monotonic() - self._stopped_at > SAME_STOP_SECONDS:
                raise KeyboardInterrupt

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
