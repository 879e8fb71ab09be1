"""The two stages of a job: train and export under the clock, then score the stored file in a fresh process."""

from __future__ import annotations

import math
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.artifact.container import ArtifactSummary, PlannedTensor, write_artifact
from harness.artifact.params import decoder_closure_bytes, plugin_bytes
from harness.beside import measure_beside
from harness.errors import RunError
from harness.evaluate import score_network
from harness.job import Job
from harness.nn.network import Network
from harness.plan import MAX_EPOCHS
from harness.rated import (
    MAX_CORRECTIONS,
    Moments,
    RatedTensors,
    choose_by_gptq,
    fill_bytes,
    matrix_names,
    moment_of,
    plan,
)
from harness.records.logs import LogWriter, most_seconds, read_log
from harness.records.native import ARTIFACT_FILE, CHECKPOINT_FILE
from harness.records.safeio import hash_file
from harness.records.scores import SCORES_FILE
from harness.registry import module_of
from harness.run_record import utc_now
from harness.scoring import TEST_PURPOSE, ScoreRequest, score_in_fresh_process
from harness.training.calibration import calibration_batches, input_moments
from harness.training.clock import Clock
from harness.training.contention import drifted, kernel_seconds
from harness.training.loop import Trainer

VALIDATION_TARGETS = 16_384
CALIBRATION_TOKENS = 65_536  # that GPTQ and a file of a given size are stored by


def train_and_export(job: Job) -> None:
    """Run the method's training under the clock and write the artifact; fills the record's fields on rank 0."""
    ranks, clock = job.ranks, job.clock
    torch.manual_seed(job.request.seed)
    with LogWriter(job.folder) if ranks.is_main else nullcontext() as log:
        checkpoint_path = job.folder / CHECKPOINT_FILE
        is_resumed = checkpoint_path.exists()
        if not is_resumed:
            _start_log(job, log)
        trainer = Trainer(
            method=job.method,
            recipe=job.settings.train,
            clock=clock,
            data=job.data,
            seed=job.request.seed,
            ranks=ranks,
            log=log,
            checkpoint_path=checkpoint_path,
            flops_per_step=job.plan.flops_per_step,
            probe_export=lambda network: _time_noise_export(job, network),
            validate=lambda network, step: _validate(job, log, network, step),
            on_ready=lambda step_seconds: _announce(job, step_seconds),
            on_step=job.reporter.stepped,
            repeated=job.repeated,
            parent=job.parent.parent if job.parent else None,
            pretrained=job.pretrained.model if job.pretrained else None,
            export=job.settings.export,
        )
        kernel = _time_kernel(job)
        with clock.stage("compression"):
            network = job.method.train(trainer)
        if job.pretrained is not None:
            clock.stop("method")  # it takes what it takes; no step waits for the end of the budget
        if log is None:
            return
        with clock.stage("export"):
            moments = _measure_moments(job, network)
            summary = _store(job, job.folder / ARTIFACT_FILE, _plan_tensors(job, network), network, moments)
        with clock.pause("validation"):
            log.write("export", artifact_bytes=summary.artifact_bytes, sha256=summary.sha256, **_export_times(clock))
            before_export = score_network(network, job.data, job.data.tune, job.eval_mode).metrics()
            contended = None if kernel is None else drifted(kernel, kernel_seconds(ranks.device))
            if is_resumed and not contended:
                contended = None  # of the machine before the stop nothing is known
            beside = measure_beside(job)
            clock.finish()
        _say_overrun(job)
        log.write("eval", split="tune_before_export", step=clock.num_steps, **before_export)
    fields = job.record.fields
    fields["contended"] = contended
    fields["metrics"] = {"tune_before_export": before_export}
    fields["beside"] = [row.model_dump() for row in beside]
    fields["artifact"] = _artifact_fields(job, summary)
    fields["params"] = _params_fields(job, summary, network)
    fields["progress"] = _progress_fields(job, clock, trainer.step_seconds)
    fields["budget"] |= {"stopped_by": clock.stopped_by, "spent": _spent_fields(clock), "overrun": clock.overrun}
    fields["time"] = _time_fields(clock)
    job.record.write()


def _time_kernel(job: Job) -> float | None:
    """Time the machine beside a run under the clock; None for other budgets, whose seconds match nothing."""
    if not job.budget.is_timed or not job.ranks.is_main:
        return None
    with job.clock.pause("validation"):
        return kernel_seconds(job.ranks.device)


def _start_log(job: Job, log: LogWriter | None) -> None:
    """Begin the log; a run that was killed before its first checkpoint starts again, with what it spent spent."""
    dropped = log.truncate(0) if log is not None else []
    job.clock.catch_up(job.ranks.share(most_seconds(dropped)))
    if log is not None:
        log.write("start", seed=job.request.seed, method=job.info.name, preset=job.request.preset)
    if log is not None and dropped:
        log.write("resume", step=0, seconds=job.clock.spent_seconds)


def has_artifact(job: Job) -> bool:
    """Whether the file that the record describes is there whole, so that only its scores are missing."""
    described = job.record.fields.get("artifact")
    if not described or not (job.folder / ARTIFACT_FILE).is_file():
        return False
    return hash_file(job.folder, ARTIFACT_FILE)[1] == str(described["sha256"])


def score(job: Job) -> None:
    """Score the stored file on tune and test in a fresh process and complete the record."""
    fields, started = job.record.fields, time.monotonic()
    request = ScoreRequest(
        artifact=str(job.folder / ARTIFACT_FILE),
        data=job.request.data,
        data_dir=str(job.data_dir) if job.data_dir else None,
        encoding_errors=job.request.encoding_errors,
        splits=("tune", "test"),
        eval_mode=job.eval_mode,
        device=job.ranks.device,
        scores_path=str(job.folder / SCORES_FILE),
    )
    with LogWriter(job.folder) as log:
        _note_opening(job, log)
        result = score_in_fresh_process(request)
        assert result["test_openings"] == [TEST_PURPOSE], "the test split is opened once, as the log says"
        _log_scores(job, log, result["metrics"])
    fields["metrics"] |= result["metrics"]
    scoring_seconds = time.monotonic() - started
    for key in ("validation_seconds", "wall_seconds"):
        fields["time"][key] += scoring_seconds
    job.record.write("complete")
    (job.folder / CHECKPOINT_FILE).unlink(missing_ok=True)


def _note_opening(job: Job, log: LogWriter) -> None:
    """Write that the test split is opened, before it is: whatever ends this process then, the opening is on disk."""
    log.write("test_open", purpose=TEST_PURPOSE, utc=utc_now())
    log.sync()
    openings = job.record.fields["data"].setdefault("test_openings", [])
    logged = [entry.fields for entry in read_log(job.folder).events if entry.event == "test_open"]
    known = [{key: entry[key] for key in ("purpose", "utc")} for entry in logged]
    openings += [opening for opening in known if opening not in openings]
    job.record.write()


def _log_scores(job: Job, log: LogWriter, metrics: Mapping[str, Any]) -> None:
    fields = job.record.fields
    for split in ("tune", "test"):
        log.write("eval", split=split, step=fields["progress"]["steps"], **metrics[split])
    log.write(
        "end",
        stopped_by=fields["budget"]["stopped_by"],
        steps=fields["progress"]["steps"],
        tokens=fields["progress"]["tokens"],
        val_bpb=metrics["test"]["val_bpb"],
        loss_nats=metrics["test"]["loss_nats"],
    )
    log.sync()


def _write_artifact(job: Job, path: Path, tensors: Sequence[PlannedTensor]) -> ArtifactSummary:
    tokenizer = job.data.tokenizer
    meta = {
        "method": job.info.name,
        "method_version": job.info.toml.version,
        "settings": {"model": job.settings.as_dict()["model"]},
        "task": {"vocab_size": job.method.task.vocab_size, "context": job.method.task.context},
        "tokenizer": {
            "kind": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "start_id": tokenizer.start_id,
            "sha256": tokenizer.sha256,
        },
        **({"pretrained": True} if job.pretrained else {}),
    }
    return write_artifact(path, meta=meta, tensors=tensors, blobs={"tokenizer": tokenizer.to_blob()})


def _announce(job: Job, step_seconds: float) -> None:
    """Say what the budget will hold, now that a step was timed; a budget in seconds could not be planned before."""
    clock, plan = job.clock, job.plan
    if not job.ranks.is_main:
        return
    if plan.max_steps is not None:
        job.reporter.said(f"{step_seconds:.3g} s a step, about {plan.max_steps * step_seconds:,.0f} s of training")
        return
    job.reporter.planned(job)
    steps = max(0.0, clock.budget.amount - clock.spent) / (step_seconds * clock.num_devices)
    job.reporter.said(f"{step_seconds:.3g} s a step: about {steps:,.0f} steps, {plan.epochs(steps):.1f} epochs")
    if plan.epochs(steps) > MAX_EPOCHS:
        job.reporter.said(f"warning: {plan.epochs(steps):.0f} epochs of this corpus; a larger --data would say more")


def _export_times(clock: Clock) -> dict[str, float]:
    """What the log says when the file is written: the budget is spent to here, whatever the record says later."""
    return {
        "seconds": clock.spent_seconds,
        "gpu_seconds": clock.device_seconds,
        "export_seconds": clock.stage_seconds["export"],
        "reserved_seconds": clock.export_seconds,
    }


def _say_overrun(job: Job) -> None:
    if not job.clock.is_within_tolerance:
        unit = job.budget.kind.replace("_", " ")
        job.reporter.said(f"warning: {job.clock.overrun:,.3g} {unit} above the budget; the record says so")


def _time_noise_export(job: Job, network: Network) -> float:
    """Time an export of Gaussian noise of the network's shapes: zeros at initialisation would compress too fast."""
    if not job.ranks.is_main:
        return 0.0
    path = job.folder / f".{ARTIFACT_FILE}.probe"
    rng = np.random.default_rng(0)
    started = time.monotonic()
    with job.clock.stage("compression"):
        planned = _plan_tensors(job, network)
        noise = [
            replace(
                tensor,
                # whole numbers have no finer noise, and masks are 0 or 1
                value=(value > 0).astype(np.float32) if tensor.scheme == "integers" else value,
            )
            for tensor in planned
            for value in [rng.standard_normal(tensor.value.shape, dtype=np.float32)]
        ]
        try:
            artifact_bytes = _store(job, path, noise, network, _measure_moments(job, network)).artifact_bytes
        except RunError as error:  # noise may need more bytes than what training leaves
            job.reporter.said(f"warning: for noise of these shapes, {error}")
            artifact_bytes = 0
        finally:
            path.unlink(missing_ok=True)
    seconds = time.monotonic() - started
    # how many files are written until one fills the size is not known before
    seconds *= 2 + MAX_CORRECTIONS if job.settings.export.target_bytes else 1
    cap = job.request.max_artifact_bytes
    if cap is not None and artifact_bytes > cap:
        job.reporter.said(f"warning: noise of these shapes takes {artifact_bytes:,} bytes, above the cap of {cap:,}")
    return seconds


def _plan_tensors(job: Job, network: Network) -> Sequence[PlannedTensor]:
    export = job.settings.export
    return plan(job.method, network, export, "fp32" if export.target_bytes else export.matrices)


def _measure_moments(job: Job, network: Network) -> Moments:
    """Measure the inputs of linear maps on training tokens, where a size to be filled or GPTQ asks for them."""
    export = job.settings.export
    if not export.target_bytes and export.gptq == "none":
        return {}
    batches = job.settings.train.batches(job.data.train, job.request.seed)
    inputs = calibration_batches(batches, CALIBRATION_TOKENS)
    moments = input_moments(network, inputs, passes="first" if export.gptq == "first" else "all")
    return {name: moment.cpu().numpy() for name, moment in moments.items()}


def _store(
    job: Job, path: Path, planned: Sequence[PlannedTensor], network: Network, moments: Moments
) -> ArtifactSummary:
    """Write the planned tensors under their schemes, or so that the file fills the size that was asked for."""
    export = job.settings.export
    if not export.target_bytes and export.gptq == "none":
        return _write_artifact(job, path, planned)
    names = matrix_names(job.method, network, export)
    if not export.target_bytes:
        rounded = [each.name for each in planned if each.name in names and moment_of(each, moments) is None]
        if rounded:
            job.reporter.said(
                f"warning: export.gptq={export.gptq} rounds {len(rounded)} of {len(names)} matrices, which are no "
                f"weight of a linear map, such as {rounded[0]}"
            )
        chosen = [choose_by_gptq(each, moments) if each.name in names else each for each in planned]
        return _write_artifact(job, path, chosen)
    rated = RatedTensors(planned, names, moments)
    return fill_bytes(rated, export.target_bytes, partial(_write_artifact, job, path))


def _validate(job: Job, log: LogWriter | None, network: Network, step: int) -> None:
    """Score the head of the tune split in the middle of training, for the learning curve."""
    scores = score_network(network, job.data, job.data.tune, job.eval_mode, max_targets=VALIDATION_TARGETS)
    metrics = scores.metrics()
    if log is not None:
        log.write("eval", split="tune", step=step, **metrics)
    job.reporter.said(f"step {step:,}: {metrics['val_bpb']:.4f} bits per byte on the head of the tune split")


def _artifact_fields(job: Job, summary: ArtifactSummary) -> dict[str, Any]:
    return {
        "artifact_bytes": summary.artifact_bytes,
        "sha256": summary.sha256,
        "parts": dict(summary.parts),
        "coders": dict(sorted(Counter(summary.coders.values()).items())),
        "plugin_bytes": plugin_bytes(job.info.folder),
        "decoder_closure_bytes": decoder_closure_bytes(
            job.info.package, module_of(pretrained=job.pretrained is not None)
        ),
        "max_artifact_bytes": job.request.max_artifact_bytes,
        "rules": job.request.rules,
    }


def _params_fields(job: Job, summary: ArtifactSummary, network: Network) -> dict[str, Any]:
    # how many numbers a compression leaves may depend on the model's weights
    counts = job.plan.params if job.pretrained is None else job.method.count_params(network)
    return {
        "stored": summary.num_params_stored,
        "effective": counts.effective,
        "active": counts.active,
        "parts": dict(counts.parts),
    }


def _spent_fields(clock: Clock) -> dict[str, Any]:
    return {
        "seconds": clock.spent_seconds,
        "gpu_seconds": clock.device_seconds,
        "steps": clock.num_steps,
        "tokens": clock.num_tokens,
        "flops": float(clock.num_flops),
    }


def _progress_fields(job: Job, clock: Clock, step_seconds: Sequence[float]) -> dict[str, Any]:
    is_even = clock.num_segments == 1 and math.isclose(clock.num_flops, clock.num_steps * job.plan.flops_per_step)
    return {
        "steps": clock.num_steps,
        "tokens": clock.num_tokens,
        "epochs": clock.num_tokens / job.data.train.num_tokens,
        # one number holds for one segment without a teacher: a method may train networks of other costs after it
        "flops_per_step": float(job.plan.flops_per_step) if is_even else None,
        "median_step_seconds": statistics.median(step_seconds) if step_seconds else None,
        "peak_memory_bytes": _peak_memory_bytes(job.ranks.device),
    }


def _peak_memory_bytes(device: str) -> int:
    """Peak memory of the device: allocated by torch on a GPU, resident in this process on the processor."""
    if device != "cpu":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _time_fields(clock: Clock) -> dict[str, Any]:
    """Split the time of a run; `wall_seconds` is the sum of the parts (device seconds are another measure of some)."""
    inside: Mapping[str, float] = clock.stage_seconds
    outside: Mapping[str, float] = clock.outside_seconds
    parts = {
        "train_seconds": sum(inside.get(name, 0.0) for name in ("train", "checkpoint", "lost")),
        "compression_seconds": inside.get("compression", 0.0) + inside.get("other", 0.0),
        "export_seconds": inside.get("export", 0.0),
        "validation_seconds": outside.get("validation", 0.0),
        "compilation_seconds": outside.get("compilation", 0.0),
        "data_seconds": outside.get("data", 0.0) + outside.get("resume", 0.0),
    }
    if set(inside) - {"train", "checkpoint", "lost", "compression", "export", "other"}:
        raise RunError(f"stages {sorted(inside)}: a stage has no field in the record")
    return {**parts, "wall_seconds": sum(parts.values()), "device_seconds": clock.device_seconds}
