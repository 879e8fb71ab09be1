"""One run from text to record: data -> train -> export -> score -> record folder.

`record.json` is "running" until the scores of the stored file are in it, and turns "interrupted" or "failed" with a
reason when they never come; an unfinished folder goes on with `resume_run`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import tomli_w
import torch

from harness.data.shards import TokenData, prepare
from harness.errors import HarnessError, RecordError, RunError, UsageError
from harness.files import write_atomic
from harness.job import Job, Reporter, RunRequest
from harness.method import Task
from harness.plan import make_plan
from harness.provenance import describe_environment, hash_sources
from harness.records.logs import LOG_FILE
from harness.records.native import CONFIG_FILE, read_config, read_record
from harness.records.schema import Record, Status
from harness.registry import MethodInfo, find_method
from harness.run_record import RunRecord, make_folder, new_record_fields, run_name
from harness.run_stages import score, train_and_export
from harness.settings import SECTIONS, RunSettings, resolve_settings, validate_settings
from harness.training.budget import Budget, parse_budget
from harness.training.ranks import Ranks, join_ranks, resolve_precision


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
    info = find_method(request.method)
    settings = resolve_settings(info, request.preset, request.overrides)
    with join_ranks(device) as ranks:
        job = _prepare(request, info, settings, ranks, reporter, data_dir, out=out, existing=None)
        return _execute(job)


def resume_run(folder: Path, *, reporter: Reporter, data_dir: Path | None = None, device: str = "auto") -> Path | None:
    """Go on with a record that is not complete, from its last checkpoint, with its own settings.

    Raises:
        RecordError: there is no record to resume.
        UsageError: the record is complete.
    """
    record = read_record(folder)
    if record.status == "complete":
        raise UsageError(f"--resume {folder}: the record is complete; there is nothing to do")
    config = read_config(folder)
    request = _request_from_config(folder, config)
    info = find_method(request.method)
    settings = validate_settings(info.load(), _sections(config))
    existing = RunRecord(folder=folder, fields=record.to_json())
    with join_ranks(device) as ranks:
        job = _prepare(request, info, settings, ranks, reporter, data_dir, out=None, existing=existing)
        return _execute(job)


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

    A budget in seconds is repeated as the same number of steps at the logged learning rates and momenta, so that
    the machine's speed plays no part.

    Raises:
        RecordError: the record has no log of its steps.
    """
    record = read_record(folder)
    config = read_config(folder)
    request = _request_from_config(folder, config)
    schedule = None
    if record.budget.kind in ("seconds", "gpu_seconds"):
        schedule = _logged_schedule(folder)
        request = replace(request, budget=f"{len(schedule)}steps")
    info = find_method(request.method)
    settings = validate_settings(info.load(), _sections(config))
    with join_ranks(device) as ranks:
        job = _prepare(
            replace(request, seed=seed),
            info,
            settings,
            ranks,
            reporter,
            data_dir,
            out=out,
            existing=None,
            replayed_schedule=schedule,
        )
        _execute(job)
    return read_record(out)


def _logged_schedule(folder: Path) -> tuple[tuple[float, float], ...]:
    """Read learning-rate scale and momentum of every step from a log."""
    events = [json.loads(line) for line in (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()]
    steps = [(event["lr_scale"], event["momentum"]) for event in events if event["event"] == "step"]
    if not steps:
        raise RecordError(f"{folder}/{LOG_FILE} logs no steps, so the run cannot be repeated step by step")
    return tuple(steps)


def _prepare(  # noqa: PLR0913  what a new, a resumed and a repeated run differ in
    request: RunRequest,
    info: MethodInfo,
    settings: RunSettings,
    ranks: Ranks,
    reporter: Reporter,
    data_dir: Path | None,
    *,
    out: Path | None,
    existing: RunRecord | None,
    replayed_schedule: tuple[tuple[float, float], ...] | None = None,
) -> Job:
    budget = parse_budget(request.budget)
    precision = resolve_precision(settings.train.precision, ranks.device)
    settings = replace(settings, train=settings.train.model_copy(update={"precision": precision}))
    eval_mode = request.resolve_eval_mode(settings.train.context)
    request.resolve_cap()
    started = time.monotonic()
    if not ranks.is_main:
        ranks.share(None)  # rank 0 fetches and tokenises; the others then read its cache
    data = prepare(
        request.data, tokenizer=request.tokenizer, data_dir=data_dir, encoding_errors=request.encoding_errors
    )
    if ranks.is_main:
        ranks.share(None)
    data_seconds = time.monotonic() - started
    task = Task(vocab_size=data.tokenizer.vocab_size, context=settings.train.context)
    method = info.load()(settings.model, task)
    plan = make_plan(method, settings, budget, data)
    if request.max_params is not None and plan.num_params_trained > request.max_params:
        raise UsageError(f"{plan.num_params_trained:,} parameters are above --max-params {request.max_params:,}")
    record = existing or _new_record(request, info, settings, budget, ranks, data, out)
    job = Job(
        request=request,
        info=info,
        settings=settings,
        budget=budget,
        eval_mode=eval_mode,
        ranks=ranks,
        data=data,
        data_dir=data_dir,
        data_seconds=data_seconds,
        method=method,
        plan=plan,
        record=record,
        reporter=reporter,
        replayed_schedule=replayed_schedule,
    )
    if ranks.is_main:
        reporter.planned(job)
    return job


def _request_from_config(folder: Path, config: Mapping[str, Any]) -> RunRequest:
    fields = {key: value for key, value in config.items() if key not in SECTIONS}
    try:
        return RunRequest(**fields | {"overrides": tuple(fields.get("overrides", ()))})
    except TypeError as error:
        raise RecordError(f"--resume {folder}: config.toml does not describe a run ({error})") from error


def _sections(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {section: config.get(section, {}) for section in SECTIONS}


def _config_of(request: RunRequest, settings: RunSettings) -> dict[str, Any]:
    """Return the content of `config.toml`; TOML has no null, so what was not set is left out."""
    fields = {key: value for key, value in asdict(request).items() if value is not None}
    return {**fields, "overrides": list(request.overrides), **settings.as_dict()}


def _new_record(
    request: RunRequest,
    info: MethodInfo,
    settings: RunSettings,
    budget: Budget,
    ranks: Ranks,
    data: TokenData,
    out: Path | None,
) -> RunRecord:
    """Make the folder with `config.toml` and a running `record.json`, on rank 0; all ranks get the same path."""
    name = run_name(info.name, request.preset, request.data, budget.text, request.seed)
    folder = ranks.share(make_folder(out, name) if ranks.is_main else None)
    fields = {
        **new_record_fields(folder.name),
        "method": {
            "name": info.name,
            "kind": info.toml.kind,
            "version": info.toml.version,
            "code_sha256": hash_sources([info.folder]),
        },
        "preset": request.preset,
        "settings": settings.as_dict(),
        "seed": request.seed,
        "budget": {
            "text": budget.text,
            "kind": budget.kind,
            "amount": budget.amount,
            "stopped_by": None,
            "spent": {"seconds": 0.0, "gpu_seconds": 0.0, "steps": 0, "tokens": 0, "flops": 0.0},
        },
        "data": data.manifest(),
        "environment": describe_environment(_device_name(ranks.device), ranks.size, torch.get_num_threads()),
    }
    record = RunRecord(folder=folder, fields=fields)
    if ranks.is_main:
        write_atomic(folder / CONFIG_FILE, tomli_w.dumps(_config_of(request, settings)).encode())
        record.write()
    return record


def _device_name(device: str) -> str:
    return "cpu" if device == "cpu" else f"{device} {torch.cuda.get_device_name(device)}"


def _execute(job: Job) -> Path | None:
    """Train, export, score; whatever ends it early is written into the record before it is raised."""
    try:
        train_and_export(job)
        if job.ranks.is_main:
            score(job)
    except KeyboardInterrupt:
        _close(job, "interrupted", "stopped by the user or the scheduler")
        job.reporter.said(f"interrupted; go on with: harness run --resume {job.folder}")
        raise
    except HarnessError as error:
        _close(job, "failed", str(error))
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        message = f"out of memory on {job.ranks.device}; halve --set train.micro_batch_tokens or use a smaller preset"
        _close(job, "failed", message)
        raise RunError(message) from error
    except OSError as error:
        message = f"{error.strerror or error}: {error.filename or job.folder}; free space, then --resume {job.folder}"
        _close(job, "failed", message)
        raise RunError(message) from error
    if not job.ranks.is_main:
        return None
    _check_cap(job)
    return job.folder


def _check_cap(job: Job) -> None:
    """Refuse a finished record whose file is above its cap; the record stays, and `harness verify` says the same."""
    artifact = job.record.fields["artifact"]
    artifact_bytes, cap = artifact["artifact_bytes"], artifact["max_artifact_bytes"]
    counted = artifact_bytes + (artifact["decoder_closure_bytes"] if job.request.rules else 0)
    if cap is not None and counted > cap:
        code = " with the code it needs" if job.request.rules else ""
        raise RecordError(
            f"{job.folder}: the artifact has {counted:,} bytes{code}, above the cap of {cap:,}; store it with fewer "
            "bits (--set export.matrices=int6-row) or train a smaller model"
        )


def _close(job: Job, status: Status, reason: str) -> None:
    """Write the last status if the disk still takes it; the error that ended the run is the one to be raised."""
    if job.ranks.is_main:
        with suppress(HarnessError, OSError):
            job.record.write(status, reason)
