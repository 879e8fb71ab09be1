"""Scoring and training again, for the levels evaluate and retrain; what needs torch runs in other processes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from harness.errors import missing_extra
from harness.records.native import ARTIFACT_FILE
from harness.records.schema import Record
from harness.records.scores import SCORES_FILE, read_scores
from harness.scoring import ScoreRequest, score_in_fresh_process
from harness.verify.replay import Rescored, Retrainer, Scorer


def _choose_device(device: str) -> str:
    """Choose the device before the first record: a wrong option is no finding about anyone's record."""
    if find_spec("torch") is None:
        raise missing_extra("scoring or training again", "train")
    from harness.training.ranks import choose_device

    return choose_device(device)


def make_scorer(data_dir: Path | None, device: str) -> Scorer:
    """Return a function that scores a record's artifact again, under the record's own eval mode.

    Args:
        data_dir: folder of local corpora.
        device: torch device, as `--device` takes it.

    Raises:
        MissingExtraError: torch is not installed.
        UsageError: there is no such device here.
    """
    torch_device = _choose_device(device)

    def score(folder: Path, record: Record) -> Rescored:
        with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
            scores_path = str(Path(scratch, SCORES_FILE))
            artifact = folder / ARTIFACT_FILE
            request = ScoreRequest.for_record(
                record, artifact, data_dir=data_dir, device=torch_device, scores_path=scores_path
            )
            result = score_in_fresh_process(request)
            blocks = read_scores(Path(scratch))
        return Rescored(
            metrics=result["metrics"]["test"],
            block_nats=blocks.block_nats,
            manifest=result["data"],
            params=result["params"],
            params_by_part=result["params_by_part"],
        )

    return score


def make_retrainer(data_dir: Path | None, device: str, said: Callable[[str], None]) -> Retrainer:
    """Return a function that trains a record's run again into a scratch folder.

    Args:
        data_dir: folder of local corpora.
        device: torch device, as `--device` takes it.
        said: told what is being trained.

    Raises:
        MissingExtraError: torch is not installed.
        UsageError: there is no such device here.
    """
    _choose_device(device)

    def retrain(folder: Path, record: Record, seed: int) -> Record:
        from harness.progress import SilentReporter
        from harness.runner import repeat_run

        said(f"training {folder} again with seed {seed}: {record.budget.spent.steps:,} steps")
        with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
            out = Path(scratch, "record")
            return repeat_run(folder, seed=seed, out=out, reporter=SilentReporter(), data_dir=data_dir, device=device)

    return retrain
