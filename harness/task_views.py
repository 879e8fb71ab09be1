"""What `harness evaluate --tasks` says: the scores of tasks with their standard errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from harness.errors import UsageError, missing_extra
from harness.provenance import has_module
from harness.record_views import read_records
from harness.records.native import ARTIFACT_FILE
from harness.tables import Table, View, fmt


def tasks_view(paths: Sequence[Path], tasks: str, *, device: str, limit: int | None) -> View:
    """Run tasks on the stored file of every complete record at or below the paths.

    Raises:
        MissingExtraError: lm-eval is not installed.
        UsageError: no record, one that is not complete, or tasks that cannot be run.
        ArtifactError: a file makes no network.
    """
    if not has_module("lm_eval"):
        raise missing_extra("harness evaluate --tasks", "tasks")
    from harness.tasks.run import run_tasks
    from harness.training.ranks import choose_device

    torch_device = choose_device(device)
    rows, data = [], []
    for found in read_records(paths):
        if found.record.status != "complete":
            raise UsageError(f"{found.folder}: the record is {found.record.status}; finish it with --resume")
        scores = run_tasks(found.folder / ARTIFACT_FILE, tasks, device=torch_device, limit=limit)
        data.append({"folder": str(found.folder), "limit": limit, "scores": [asdict(score) for score in scores]})
        for score in scores:
            error = "none given" if score.standard_error is None else f"+- {fmt(score.standard_error)}"
            count = fmt(score.num_samples) + (" PARTIAL" if limit is not None else "")
            rows.append((str(found.folder), score.task, score.metric, fmt(score.value), error, count))
    title = f"tasks of lm-evaluation-harness {metadata.version('lm_eval')}, +- one standard error over samples"
    columns = ("record", "task", "metric", "value", "standard error", "samples")
    return View(tables=[Table(title=title, columns=columns, rows=rows, right=frozenset({3, 4, 5}))], data=data)
