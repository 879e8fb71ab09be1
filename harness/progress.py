"""What a run shows in the terminal: the plan, one live line, what is worth knowing."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Self

from harness.plan import MAX_EPOCHS
from harness.tables import Table, fmt
from harness.training.phases import describe_surprises

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from harness.job import Job
    from harness.training.loop import StepReport


class TerminalReporter:
    """Renders a run on a console: a progress bar where it is a terminal, plain lines where it is a file.

    A context manager: however the run ends, the bar is taken down and the terminal has its cursor back.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def planned(self, job: Job) -> None:
        """Print what will be done."""
        plan, settings = job.plan, job.settings.train
        steps = fmt(plan.max_steps) if plan.max_steps is not None else "as many as fit"
        epochs = f", {plan.epochs(plan.max_steps):.2f} epochs" if plan.max_steps is not None else ""
        spent_flops = f", {plan.max_steps * plan.flops_per_step:.3g} in all" if plan.max_steps is not None else ""
        test_bytes = job.data.manifest()["splits"]["test"]["num_bytes"]
        tokens = f"{job.data.train.num_tokens:,} training tokens, {test_bytes:,} test bytes"
        if job.pretrained is not None:
            budget, operations = f"{job.budget.text}, of which a compression takes what it takes", "no step is trained"
        else:
            budget = f"{job.budget.text}: {steps} steps of {settings.batch_tokens:,} tokens{epochs}"
            operations = f"{plan.flops_per_step:.3g} FLOPs a step{spent_flops}"
        rows = [
            ("method", f"{job.info.name}, preset {job.request.preset}, seed {job.request.seed}"),
            ("data", f"{job.request.data}: {tokens}, vocabulary {job.method.task.vocab_size:,}"),
            ("parameters", f"{plan.num_params_trained:,} trained, {plan.params.effective:,} effective"),
            ("file", f"about {plan.expected_artifact_bytes:,} bytes before entropy coding"),
            ("budget", budget),
            ("operations", operations),
            ("device", f"{job.ranks.device}, {job.ranks.size} process(es)"),
            ("record", str(job.folder)),
        ]
        if job.parent is not None:
            rows.insert(1, ("starts from", f"{job.parent.folder}, {job.parent.record.method.name}"))
        if job.pretrained is not None:
            rows.insert(1, ("compresses", f"{job.pretrained.name}, {job.pretrained.architecture['model_type']}"))
        Table(title="plan", columns=("what", "value"), rows=rows).print_to(self._console)
        if plan.max_steps is not None:
            self._warn_epochs(plan.epochs(plan.max_steps))
            for surprise in describe_surprises(settings.model_dump(), plan.max_steps):
                self._console.print(f"warning: train.{surprise}")

    def stepped(self, report: StepReport) -> None:
        """Move the bar."""
        if not self._console.is_terminal:
            return
        if self._progress is None:
            self._start_bar()
        assert self._progress is not None and self._task is not None
        total = f"{report.total_steps:,.0f}" if math.isfinite(report.total_steps) else "?"
        text = f"step {report.step:,}/{total}  loss {report.loss_nats:.4f}  {report.tokens_per_second:,.0f} tok/s"
        self._progress.update(self._task, completed=report.progress, description=text)
        if report.progress >= 1 or report.step >= report.total_steps:
            self._progress.stop()

    def said(self, message: str) -> None:
        """Print one line."""
        self._console.print(message)

    def _warn_epochs(self, epochs: float) -> None:
        if epochs > MAX_EPOCHS:
            self._console.print(f"warning: {epochs:.0f} epochs of this corpus; a larger --data would say more")

    def _start_bar(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        text = TextColumn("{task.description}", markup=False)
        self._progress = Progress(text, *columns, console=self._console, transient=True)
        self._task = self._progress.add_task("", total=1.0)
        self._progress.start()


class SilentReporter:
    """Shows nothing; for runs inside other commands."""

    def planned(self, job: Job) -> None:
        """Show nothing."""

    def stepped(self, report: StepReport) -> None:
        """Show nothing."""

    def said(self, message: str) -> None:
        """Show nothing but warnings."""
        if message.startswith("warning"):
            print(message, file=sys.stderr)
