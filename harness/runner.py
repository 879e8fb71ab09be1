"""One run from text to record: data -> train -> export -> score -> record folder.

`record.json` is "running" until the scores of the stored file are in it, and turns "interrupted" or "failed" with a
reason when they never come; an unfinished folder goes on with `resume_run`.
"""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch

from harness.errors import HarnessError, RecordError, RunError, SmallBudgetError, UsageError
from harness.job import Job, Reporter, RunRequest
from harness.lineage import ParentRecord, load_parent, reload_parent
from harness.plan import memory_advice
from harness.preparation import Setting, check_model_options, prepare_job, request_from_config
from harness.pretrained.source import PretrainedSource, load_source, reload_source
from harness.record_lock import hold_folder
from harness.records.agreement import Difference, config_differences
from harness.records.caps import charges
from harness.records.native import read_config, read_record
from harness.records.safeio import JSON
from harness.records.schema import Record, Status
from harness.registry import find_method
from harness.run_record import RunRecord
from harness.run_stages import has_artifact, score, train_and_export
from harness.settings import resolve_settings, validate_settings
from harness.training.budget import parse_budget
from harness.training.clock import Clock
from harness.training.ranks import is_lost_rank, join_ranks
from harness.training.repetition import read_fits


def start_run(
    request: RunRequest,
    *,
    reporter: Reporter,
    out: Path | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
) -> Path | None:
    """Make a new record.

    Returns:
        The record folder, or None on the ranks of a distributed run that write nothing.

    Raises:
        UsageError: an option, a setting or the budget is wrong; nothing was written.
        RunError: the run could not finish; the folder says why and can be resumed where that makes sense.
        KeyboardInterrupt: it was stopped; the folder can be resumed.
    """
    with join_ranks(device) as ranks, _stoppable(), ExitStack() as held:
        clock = Clock(parse_budget(request.budget), num_devices=ranks.size)
        info = find_method(request.method)
        check_model_options(request, ranks)
        is_pretrained = request.pretrained is not None
        settings = resolve_settings(info, request.preset, request.overrides, pretrained=is_pretrained)
        parent = load_parent(request.parent) if request.parent is not None else None
        source = None
        if request.pretrained is not None:
            with clock.pause("data"):
                source = load_source(request.pretrained, request.tokenizer)
        setting = Setting(request, info, settings, ranks, clock, reporter, data_dir, held, parent, source)
        return _execute(prepare_job(setting, out=out))


def resume_run(folder: Path, *, reporter: Reporter, data_dir: Path | None = None, device: str = "auto") -> Path | None:
    """Go on with a record that is not complete, from its last checkpoint, with its own settings.

    Raises:
        RecordError: there is no record to resume.
        UsageError: there is no such folder, another process writes it, or the record is complete.
    """
    if not folder.is_dir():
        raise UsageError(f"--resume {folder}: no such folder")
    with join_ranks(device) as ranks, _stoppable(), ExitStack() as held:
        if ranks.is_main:  # before anything is read: another process may be writing it
            held.enter_context(hold_folder(folder))
        record = read_record(folder)
        if record.status == "complete":
            raise UsageError(f"--resume {folder}: the record is complete; there is nothing to do")
        config = read_config(folder)
        _check_config(folder, record, config)
        request = request_from_config(folder, config)
        clock = Clock(parse_budget(request.budget), num_devices=ranks.size)
        info = find_method(request.method)
        settings = validate_settings(info.load(pretrained=request.pretrained is not None), config)
        parent, source = _parent_again(request, folder, record), _source_again(request, folder, record)
        setting = Setting(request, info, settings, ranks, clock, reporter, data_dir, held, parent, source)
        return _execute(prepare_job(setting, existing=RunRecord(folder=folder, fields=record.to_json())), is_new=False)


def _check_config(folder: Path, record: Record, config: Mapping[str, JSON]) -> None:
    """Refuse to go on with other settings than the run was begun with: its record would contradict itself.

    Raises:
        UsageError: `config.toml` was edited; names the first key.
    """
    begun = [Difference("seed", record.seed, config.get("seed"))]
    begun += [Difference("budget", record.budget.text, config.get("budget"))]
    apart = [each for each in begun if each.recorded != each.configured] + config_differences(record, config)
    for key, recorded, configured in apart[:1]:
        raise UsageError(
            f"--resume {folder}: config.toml has {key} = {configured!r:.60}, but the run was begun with "
            f"{recorded!r:.60}; put it back, or start a new run"
        )


def repeat_run(
    folder: Path,
    *,
    seed: int,
    out: Path,
    reporter: Reporter,
    data_dir: Path | None = None,
    device: str = "auto",
) -> Record:
    """Train a record's run again into `out`, step by step.

    A budget in seconds is repeated as the same number of steps in each fit, at the logged learning rates, momenta and
    progress, with phases from the logged steps on, so that the machine's speed plays no part.

    Raises:
        RecordError: the log misses something that a repetition needs.
    """
    record = read_record(folder)
    config = read_config(folder)
    request = request_from_config(folder, config)
    repeated = None
    if record.budget.kind in ("seconds", "gpu_seconds") and request.pretrained is None:
        repeated = read_fits(folder)
        request = replace(request, budget=f"{sum(len(fit.steps) for fit in repeated)}steps")
    with join_ranks(device) as ranks, _stoppable(), ExitStack() as held:
        clock = Clock(parse_budget(request.budget), num_devices=ranks.size)
        info = find_method(request.method)
        settings = validate_settings(info.load(pretrained=request.pretrained is not None), config)
        parent, source = _parent_again(request, folder, record), _source_again(request, folder, record)
        request = replace(request, seed=seed)
        setting = Setting(request, info, settings, ranks, clock, reporter, data_dir, held, parent, source)
        _execute(prepare_job(setting, out=out, repeated=repeated))
    return read_record(out)


def _parent_again(request: RunRequest, folder: Path, record: Record) -> ParentRecord | None:
    return reload_parent(request.parent, folder, record.lineage) if request.parent is not None else None


def _source_again(request: RunRequest, folder: Path, record: Record) -> PretrainedSource | None:
    if request.pretrained is None:
        return None
    return reload_source(request.pretrained, request.tokenizer, folder, record.lineage)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM, which schedulers send, end a run as Ctrl-C does: with a record that can be resumed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hear no signal while the last status is written: a stop is often passed on once more by a launcher."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _execute(job: Job, *, is_new: bool = True) -> Path | None:
    """Train, export, score; whatever ends it early is written into the record before it is raised."""
    try:
        _train_and_score(job)
    except KeyboardInterrupt:
        _interrupt(job, "stopped by the user or the scheduler")
        raise
    except HarnessError as error:
        if isinstance(error, SmallBudgetError | UsageError) and is_new and not job.clock.num_steps:
            _remove(job)  # nothing of it could be resumed
        else:
            _close(job, "failed", str(error))
        raise
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and job.ranks.size > 1 and is_lost_rank(error):
            _interrupt(job, "another process of the run is gone")
            raise KeyboardInterrupt from error
        if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
            _close(job, "failed", f"internal error: {error}")
            raise
        advice = memory_advice(job.plan, job.request.preset, job.ranks.device)
        message = f"out of memory on {job.ranks.device}; {advice}"
        _close(job, "failed", message)
        raise RunError(message) from error
    except OSError as error:
        message = f"{error.strerror or error}: {error.filename or job.folder}; free space, then --resume {job.folder}"
        _close(job, "failed", message)
        raise RunError(message) from error
    except Exception as error:
        _close(job, "failed", f"internal error: {type(error).__name__}: {error}")
        raise
    if not job.ranks.is_main:
        return None
    _check_cap(job)
    return job.folder


def _interrupt(job: Job, reason: str) -> None:
    with _undisturbed():
        _close(job, "interrupted", reason)
    if job.ranks.is_main:
        job.reporter.said(f"interrupted, {reason}; go on with: harness run --resume {job.folder}")


def _is_out_of_memory(error: RuntimeError) -> bool:
    """On the processor torch raises a plain RuntimeError that names its allocator."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _train_and_score(job: Job) -> None:
    """Do what is left to do: a resumed run whose file is there has only its scores to make."""
    if not job.ranks.share(has_artifact(job)):
        train_and_export(job)
    if job.ranks.is_main:
        score(job)


def _check_cap(job: Job) -> None:
    """Refuse a finished record whose file is above a cap; the record stays, and `harness verify` says the same."""
    artifact = Record.model_validate(job.record.fields).artifact
    assert artifact is not None, "only a finished record is checked"
    for charge in charges(artifact):
        if not charge.is_kept:
            raise RecordError(
                f"{job.folder}: {charge.what}: {charge.charged_bytes:,} bytes, above the cap of {charge.cap_bytes:,}; "
                "store it with fewer bits (--set export.matrices=int6-row) or train a smaller model"
            )


def _remove(job: Job) -> None:
    """Take the folder of a run away that began empty and did no step."""
    if job.ranks.is_main:
        shutil.rmtree(job.folder, ignore_errors=True)


def _close(job: Job, status: Status, reason: str) -> None:
    """Write the last status if the disk still takes it; the error that ended the run is the one to be raised."""
    if job.ranks.is_main:
        with suppress(HarnessError, OSError):
            job.record.write(status, reason)
