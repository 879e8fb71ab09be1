"""What a run is asked to do, and the checked job that comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from harness.errors import UsageError
from harness.records.caps import contest_caps

if TYPE_CHECKING:
    from harness.data.shards import TokenData
    from harness.lineage import ParentRecord
    from harness.method import Method
    from harness.plan import Plan
    from harness.pretrained.source import PretrainedSource
    from harness.registry import MethodInfo
    from harness.run_record import RunRecord
    from harness.scoring import EvalMode, Mode
    from harness.settings import RunSettings
    from harness.training.budget import Budget
    from harness.training.clock import Clock
    from harness.training.loop import StepReport
    from harness.training.ranks import Ranks
    from harness.training.repetition import LoggedFit


# Nothing of it waits to be used up: the time that a compression took is in the record.
PRETRAINED_BUDGET = "24h"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """What the user asked for: the options of `harness run`, by their names; kept in `config.toml`."""

    method: str
    budget: str
    preset: str = "small"
    data: str = "shakespeare"
    seed: int = 0
    overrides: tuple[str, ...] = ()
    tokenizer: str | None = None
    encoding_errors: str = "strict"
    eval_mode: str | None = None
    eval_context: int | None = None
    eval_stride: int | None = None
    max_artifact_bytes: int | None = None
    max_params: int | None = None
    target_params: int | None = None
    pretrained: str | None = None
    rules: str | None = None
    parent: str | None = None
    claim: str | None = None

    def resolve_eval_mode(self, context: int) -> EvalMode:
        """Return the eval mode, by default a sliding window of the training context with half of it as stride.

        WikiText-2 is scored in disjoint windows, as others report perplexities on it.
        """
        from harness.scoring import EvalMode

        eval_context = self.eval_context or context
        if eval_context > context:
            raise UsageError(f"--eval-context {eval_context}: the model is trained for a context of {context}")
        asked = self.eval_mode or ("disjoint" if self.data.partition(":")[0] == "wikitext2" else "sliding")
        default_stride = eval_context if asked in ("disjoint", "challenge") else max(1, eval_context // 2)
        mode = cast("Mode", asked)  # EvalMode refuses what is none, and names the choices
        return EvalMode(mode=mode, context=eval_context, stride=self.eval_stride or default_stride)

    def check_caps(self) -> None:
        """Refuse a contest that is not known."""
        if self.rules is not None and self.rules not in contest_caps():
            raise UsageError(f"--rules {self.rules}: known contests are {', '.join(contest_caps())}")


class Reporter(Protocol):
    """Where a run says what it does; the command line shows it, tests collect it."""

    def planned(self, job: Job) -> None:
        """Say what will be done, before the clock starts."""
        ...

    def stepped(self, report: StepReport) -> None:
        """Say how far the training is."""
        ...

    def said(self, message: str) -> None:
        """Say one thing worth knowing."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A run that is ready to begin: everything checked, nothing trained."""

    request: RunRequest
    info: MethodInfo
    settings: RunSettings
    budget: Budget
    eval_mode: EvalMode
    ranks: Ranks
    clock: Clock
    data: TokenData
    data_dir: Path | None
    method: Method
    plan: Plan
    record: RunRecord
    reporter: Reporter
    repeated: tuple[LoggedFit, ...] | None = None
    parent: ParentRecord | None = None
    pretrained: PretrainedSource | None = None

    @property
    def folder(self) -> Path:
        """The record folder."""
        return self.record.folder
