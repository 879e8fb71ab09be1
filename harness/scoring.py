"""Asking for scores: what is scored and how, and the fresh process that does it (torch-free on this side).

The process runs `harness.evaluate`; request and result cross as JSON files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from harness.errors import HarnessError, RunError, UsageError

if TYPE_CHECKING:
    from harness.records.schema import Record

Mode = Literal["sliding", "disjoint", "challenge", "challenge-sliding"]
TEST_PURPOSE = "score the artifact"  # why the test split is opened, once
_SECONDS_TO_END = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalMode:
    """How windows are laid over a split; scores of unlike modes are never compared.

    Attributes:
        mode: "sliding" scores every target once, with at least `context - stride` tokens before it after the first
            window; "disjoint" cuts the split into windows of `context` tokens that see nothing of each other, scores
            all but the first token of each and drops the tail, as perplexities of pretrained models are published;
            "challenge" is the 16 MB challenge's cut into windows of `context` without carried context, whose
            tail is dropped; "challenge-sliding" is that contest's sliding window, which scores the tail repeatedly.
        context: input tokens of a window.
        stride: targets scored by a window after the first; equal to `context` in modes "disjoint" and "challenge".
    """

    mode: Mode = "sliding"
    context: int
    stride: int

    @classmethod
    def of_record(cls, record: Record) -> EvalMode:
        """Return how a complete record was scored."""
        assert record.metrics.test is not None, "complete records have a score"
        mode = record.metrics.test.eval_mode
        return cls(mode=mode.mode, context=mode.context, stride=mode.stride)

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise UsageError(f"eval mode '{self.mode}': choose one of {', '.join(get_args(Mode))}")
        if not 1 <= self.stride <= self.context:
            raise UsageError(f"eval stride {self.stride}: choose 1 to {self.context} (the context)")
        if self.mode in ("disjoint", "challenge") and self.stride != self.context:
            raise UsageError(f"eval mode {self.mode} has stride = context = {self.context}, got {self.stride}")
        if self.mode == "disjoint" and self.context < 2:
            raise UsageError("eval mode disjoint: a window needs 2 tokens, the first of which is not scored")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Random windows of a split, as papers score on them; never in place of the whole split.

    Attributes:
        num_batches: batches, whose means are averaged and whose spread is the sampling error.
        batch_windows: windows of a batch, each of the eval mode's context, all of its targets scored.
        seed: of the places of the windows.
    """

    num_batches: int
    batch_windows: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_batches < 2 or self.batch_windows < 1 or self.seed < 0:
            raise UsageError(
                f"samples {self.num_batches}x{self.batch_windows}: give 2 batches or more, 1 window or more"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRequest:
    """What the fresh process is asked to do; everything it knows.

    Attributes:
        artifact: path of the file.
        data: the `--data` value of the corpus.
        data_dir: folder of local corpora.
        encoding_errors: how the corpus was read.
        splits: splits to score, "tune" or "test".
        eval_mode: how windows lie.
        device: torch device.
        scores_path: where the block sums of the test split are written, if anywhere.
        sampling: random windows to score instead of the whole splits.
    """

    artifact: str
    data: str
    data_dir: str | None = None
    encoding_errors: str = "strict"
    splits: tuple[str, ...] = ("test",)
    eval_mode: EvalMode
    device: str = "cpu"
    scores_path: str | None = None
    sampling: Sampling | None = None

    @classmethod
    def for_record(
        cls, record: Record, artifact: Path, *, data_dir: Path | None, device: str, **changes: Any
    ) -> ScoreRequest:
        """Ask for the scores of a file on the text and in the eval mode of a complete record, but for `changes`."""
        asked = cls(
            artifact=str(artifact.resolve()),
            data=record.data.name,
            data_dir=str(data_dir) if data_dir else None,
            encoding_errors=record.data.encoding_errors,
            eval_mode=EvalMode.of_record(record),
            device=device,
        )
        return replace(asked, **changes)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> ScoreRequest:
        """Return the request that `to_json` gave the fields of."""
        sampling = Sampling(**fields["sampling"]) if fields.get("sampling") else None
        mode = EvalMode(**fields["eval_mode"])
        return cls(**{**fields, "eval_mode": mode, "splits": tuple(fields["splits"]), "sampling": sampling})


def score_in_fresh_process(request: ScoreRequest) -> dict[str, Any]:
    """Run `harness.evaluate.score_artifact` in a new interpreter: nothing of this one's memory can leak into a score.

    Raises:
        RunError: the process died; a clean error of the child is raised with its own text and kind.
    """
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        request_path, result_path, said_path = (Path(folder, name) for name in ("request", "result", "said"))
        request_path.write_text(json.dumps(request.to_json()), encoding="utf-8")
        # -P: without it the current folder comes first on sys.path, and with it whatever a stranger put there.
        command = [sys.executable, "-P", "-m", "harness.evaluate", str(request_path), str(result_path)]
        code = _run_child([*command, "--with-parent"], said_path)
        if not result_path.exists():
            said = said_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise RunError(f"the scoring process ended with code {code}: {said[-1] if said else 'no output'}")
        result: dict[str, Any] = json.loads(result_path.read_text(encoding="utf-8"))
    if "error" in result:
        raise error_from_json(result)
    return result


def _run_child(command: list[str], said_path: Path) -> int:
    """Run a command to its end and return its exit code; it does not outlive this process.

    Where waiting is interrupted the child is ended here. Where this process is killed outright the child reads the
    end of its standard input, which nobody writes to, and ends itself.
    """
    with said_path.open("wb") as said:
        child = subprocess.Popen(
            command, env=_child_environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said
        )
    try:
        return child.wait()
    except BaseException:
        child.terminate()
        try:
            child.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        raise
    finally:
        if child.stdin is not None:
            child.stdin.close()


def error_to_json(error: HarnessError) -> dict[str, str]:
    """Return an error as JSON values, for `error_from_json`."""
    return {"error": str(error), "kind": type(error).__name__}


def error_from_json(fields: Mapping[str, str]) -> HarnessError:
    """Return the error of the child, of its own kind where this process knows that kind."""
    kind = next((kind for kind in _error_kinds() if kind.__name__ == fields["kind"]), RunError)
    return kind(fields["error"])


def _error_kinds() -> Iterator[type[HarnessError]]:
    pending: list[type[HarnessError]] = [HarnessError]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        yield kind


def _child_environment() -> dict[str, str]:
    """The parent's environment without the variables that would make the child a rank of a distributed run."""
    ranked = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}
    return {name: value for name, value in os.environ.items() if name not in ranked and "TORCHELASTIC" not in name}
