"""Running tasks of lm-evaluation-harness, by name or from a file, on the stored file of a record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError, UsageError, suggest
from harness.loading import load_artifact
from harness.tasks.model import RecordModel

_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskScore:
    """One metric of a task.

    Attributes:
        task: its name.
        metric: name of the metric, with the filter of answers where there is one.
        value: its mean over the samples, as the task defines it.
        standard_error: of the value over samples; None where the task gives none.
        num_samples: documents scored.
        version: of the task.
    """

    task: str
    metric: str
    value: float
    standard_error: float | None
    num_samples: int
    version: str


def resolve_tasks(asked: str) -> tuple[list[Any], Any]:
    """Return what lm-evaluation-harness is to run, and its task manager.

    Args:
        asked: names and YAML files with commas between them; code that a file names with `!function` is run, as
            lm-evaluation-harness does.

    Raises:
        UsageError: an unknown name, a file that is not there or is no task.
    """
    from lm_eval import tasks as library
    from lm_eval.tasks._yaml_loader import load_yaml

    names = [part.strip() for part in asked.split(",") if part.strip()]
    # reading the thousands of tasks that it comes with takes seconds
    manager = library.TaskManager(include_defaults=not all(name.endswith(_ENDINGS) for name in names))
    tasks: list[Any] = []
    for name in names:
        if not name.endswith(_ENDINGS):
            if name not in manager.all_tasks:
                close = suggest(name, [task for task in manager.all_tasks if task[:2] == name[:2]][:20])
                raise UsageError(f"--tasks {name}: lm-evaluation-harness has no such task. {close}")
            tasks.append(name)
            continue
        if not Path(name).is_file():
            raise UsageError(f"--tasks {name}: no such file")
        try:
            tasks.append(load_yaml(name, resolve_func=True))
        except Exception as error:  # the reader of YAML and the code that a file names raise what they like
            raise UsageError(f"--tasks {name}: not a task that can be read ({_first_line(error)})") from error
    if not tasks:
        raise UsageError("--tasks is empty; give names of lm-evaluation-harness or YAML files, with commas between")
    return tasks, manager


def run_tasks(artifact: Path, asked: str, *, device: str, limit: int | None = None) -> list[TaskScore]:
    """Run tasks on the network of an artifact file.

    Args:
        artifact: the file, which alone decides what is run.
        asked: as in `resolve_tasks`.
        device: torch device.
        limit: documents of each task; None for all.

    Raises:
        UsageError: a task cannot be found, or lm-evaluation-harness cannot run it.
        DataError: the data of a task cannot be had.
        ArtifactError: the file makes no network.
    """
    from jinja2 import TemplateError
    from lm_eval.evaluator import simple_evaluate

    tasks, manager = resolve_tasks(asked)
    model = RecordModel(load_artifact(artifact, device))
    try:
        results: Any = simple_evaluate(
            model=model, tasks=tasks, task_manager=manager, limit=limit, log_samples=False, verbosity=None
        )
    except (UsageError, KeyboardInterrupt):
        raise
    except OSError as error:  # among them what datasets raises where the hub cannot be reached
        raise DataError(
            f"--tasks {asked}: the data of a task cannot be had ({_first_line(error)}). Fetch it once with a network, "
            "or give a task file with data_files of your own"
        ) from error
    except (ValueError, KeyError, TemplateError) as error:
        raise UsageError(f"--tasks {asked}: lm-evaluation-harness cannot run it ({_first_line(error)})") from error
    return list(_read_scores(results))


def _read_scores(results: Mapping[str, Any]) -> Sequence[TaskScore]:
    scores = []
    for task, values in results["results"].items():
        num_samples = int(results.get("n-samples", {}).get(task, {}).get("effective", 0))
        for key, value in values.items():
            metric, _, answer_filter = key.partition(",")
            if not answer_filter or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = values.get(f"{metric}_stderr,{answer_filter}")
            is_given = isinstance(error, int | float) and math.isfinite(error)
            scores.append(
                TaskScore(
                    task=task,
                    metric=metric if answer_filter == "none" else f"{metric} ({answer_filter})",
                    value=float(value),
                    standard_error=float(error) if is_given and error is not None else None,
                    num_samples=num_samples,
                    version=str(results.get("versions", {}).get(task, "")),
                )
            )
    return scores


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
