"""What a run will need, said before anybody rents a machine for it: numbers, operations, memory, time, money.

Nothing is trained beyond a few timed steps where the machine is this one; no record is made, nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

from harness.devices import Accelerator
from harness.forecast_schema import (
    BudgetForecast,
    DeviceForecast,
    FlopsForecast,
    Forecast,
    MemoryForecast,
    SizeForecast,
    TimeForecast,
)
from harness.forecast_setup import ForecastRequest, Subject, describe_device, set_up
from harness.plan import MAX_EPOCHS, build_on_meta
from harness.training.budget import no_extra, whole_steps
from harness.training.clock import Clock
from harness.training.phases import describe_surprises


def make_forecast(request: ForecastRequest, say: Callable[[str], None]) -> Forecast:
    """Plan a run.

    Args:
        request: what the user asked for.
        say: told what takes a while, and what a method chose for itself.

    Raises:
        UsageError: an option or a setting is wrong, or no vocabulary is known.
        DataError: the corpus is there, but too short or not what it should be.
        RunError: the budget does not hold one step.
    """
    run, subject = request.run, set_up(request, say)
    device = describe_device(request, subject)
    params, export_seconds, storage_note = _forecast_storage(subject)
    memory = _forecast_memory(subject, device)
    step_seconds, time_note = _forecast_step(subject, device, memory, say)
    steps = _steps_within(subject, step_seconds, export_seconds)
    budget = _forecast_budget(subject, steps)
    return Forecast(
        method=run.method,
        preset=run.preset,
        data=run.data,
        vocab_size=subject.outlook.vocab_size,
        device=device,
        params=params,
        flops=_forecast_flops(subject, steps),
        budget=budget,
        memory=memory,
        time=_forecast_time(subject, steps, step_seconds, export_seconds, request.price),
        warnings=tuple(_warnings(subject, device, memory, budget)),
        notes=tuple(filter(None, (time_note, *_notes(subject, memory), storage_note, subject.outlook.note))),
    )


def _forecast_storage(subject: Subject) -> tuple[SizeForecast, float, str]:
    """Return numbers and bytes, the seconds of quantising and coding, and a note on a method's own way of storing."""
    from harness.artifact.expected import expected_bytes, expected_coding_seconds
    from harness.backbone import BackboneMethod

    method, export, plan = subject.method, subject.settings.export, subject.plan
    network = build_on_meta(method)
    tensors = list(method.stored_shapes(network, export))
    is_plain = isinstance(method, BackboneMethod) and type(method).export is BackboneMethod.export
    params = SizeForecast(
        trained=plan.num_params_trained,
        stored=method.count_stored(network, export),
        effective=plan.params.effective,
        active=plan.params.active,
        bytes_before_coding=plan.expected_artifact_bytes,
        bytes_after_coding=round(sum(expected_bytes(*tensor, {}) for tensor in tensors)),
    )
    note = (
        "" if is_plain else "the method stores its tensors in a way of its own: stored numbers and bytes may be fewer"
    )
    return params, sum(expected_coding_seconds(*tensor) for tensor in tensors), note


def _forecast_memory(subject: Subject, device: DeviceForecast) -> MemoryForecast:
    from harness.training.footprint import measure_footprint

    found = measure_footprint(subject.method, subject.settings.train, subject.torch_device.partition(":")[0])
    return MemoryForecast(**asdict(found), peak=found.peak, fits=found.peak <= device.memory_bytes)


def _forecast_step(
    subject: Subject, device: DeviceForecast, memory: MemoryForecast, say: Callable[[str], None]
) -> tuple[float | None, str]:
    """Return the seconds of a step and what they rest on; None where this machine has no memory to time one."""
    plan = subject.plan
    if subject.accelerator is not None:
        return _assumed_seconds(subject, subject.accelerator, device, memory)
    if not memory.fits:
        return None, ""
    from harness.training.timing import time_steps

    say(f"timing a few steps of {plan.flops_per_step:.3g} FLOPs on this machine")
    seconds = time_steps(subject.method, subject.settings, subject.torch_device, plan.flops_per_step)
    return seconds, "seconds are those of a few steps timed on this machine as busy as it is now, on random tokens"


def _assumed_seconds(
    subject: Subject, accelerator: Accelerator, device: DeviceForecast, memory: MemoryForecast
) -> tuple[float, str]:
    """Return the seconds of the operations at the assumed utilisation, or of the memory traffic, whichever is more."""
    assert device.peak_flops is not None and device.mfu is not None
    computing = subject.plan.flops_per_step / (device.peak_flops * device.mfu)
    # What is kept is written and read once a micro-batch; weights and state are read and written once a step.
    kept = subject.settings.train.num_micro_batches * (memory.activations or 0)
    moving = 2 * (kept + memory.weights + memory.optimiser_state) / (1e9 * accelerator.bandwidth_gb_s)
    what = f"{device.mfu:.0%} of the data sheet's {device.peak_flops / 1e12:,.1f} TFLOP/s in {device.precision}"
    if moving > computing:
        what = f"the data sheet's {accelerator.bandwidth_gb_s / 1e3:.3g} TB/s of memory traffic, slower than {what}"
    return max(computing, moving), f"seconds are an assumption, never a measurement: {what} (--mfu)"


def _steps_within(subject: Subject, step_seconds: float | None, export_seconds: float) -> int | None:
    """Return the steps that the budget holds; None for a budget in seconds where no step was timed.

    Raises:
        SmallBudgetError: a timed budget has no room for one step and an export.
    """
    budget, plan = subject.budget, subject.plan
    if plan.max_steps is not None or step_seconds is None:
        return plan.max_steps
    clock = Clock(budget, now=lambda: 0.0)
    clock.begin_segment(1.0, tokens_per_step=plan.tokens_per_step, flops_per_step=plan.flops_per_step)
    clock.reserve_export(export_seconds)
    clock.require_one_step(step_seconds)
    seconds_per_flop = step_seconds / plan.flops_per_step

    def teacher_seconds(steps: int) -> float:
        return subject.teacher_flops(steps) * seconds_per_flop

    extra = teacher_seconds if subject.settings.train.distill_start else no_extra
    return whole_steps(budget.amount - clock.export_seconds, step_seconds, extra)


def _forecast_budget(subject: Subject, steps: int | None) -> BudgetForecast:
    plan = subject.plan
    is_known = steps is not None and plan.train_tokens is not None
    return BudgetForecast(
        text=subject.budget.text,
        steps=steps,
        tokens=None if steps is None else steps * plan.tokens_per_step,
        tokens_per_step=plan.tokens_per_step,
        epochs=plan.epochs(steps) if steps is not None and is_known else None,
    )


def _forecast_flops(subject: Subject, steps: int | None) -> FlopsForecast:
    """Split the operations of a step; what does not grow with its tokens is the generation of weights."""
    plan, network = subject.plan, subject.network_flops
    twice = subject.method.flops_per_step(2 * plan.tokens_per_step)
    generation = 2 * network - twice
    if generation < 1e-9 * network:  # rounding
        generation = 0.0
    passes = network - generation
    return FlopsForecast(
        token=plan.flops_per_step / plan.tokens_per_step,
        forward=passes / 3,
        backward=passes * 2 / 3,
        generation=generation,
        optimiser=plan.flops_per_step - network,
        step=plan.flops_per_step,
        teacher=network / 3 if subject.settings.train.distill_start else 0.0,
        run=None if steps is None else steps * plan.flops_per_step + subject.teacher_flops(steps),
    )


def _forecast_time(
    subject: Subject, steps: int | None, step_seconds: float | None, export_seconds: float, price: float | None
) -> TimeForecast:
    train_seconds = run_seconds = hours = None
    if steps is not None and step_seconds is not None:
        teacher_steps = subject.teacher_flops(steps) / subject.plan.flops_per_step
        train_seconds = (steps + teacher_steps) * step_seconds
        run_seconds = train_seconds + export_seconds
        hours = run_seconds / 3600
    return TimeForecast(
        step_seconds=step_seconds,
        train_seconds=train_seconds,
        export_seconds=export_seconds,
        run_seconds=run_seconds,
        device_hours=hours,
        price=None if price is None or hours is None else hours * price,
    )


def _warnings(
    subject: Subject, device: DeviceForecast, memory: MemoryForecast, budget: BudgetForecast
) -> Iterator[str]:
    if not memory.fits:
        yield (
            f"does not fit: {memory.peak / 1e9:,.1f} GB are needed, {device.name} has "
            f"{device.memory_bytes / 1e9:,.1f} GB; lower --set train.micro_batch_tokens or choose a smaller model"
        )
    if budget.epochs is not None and budget.epochs > MAX_EPOCHS:
        yield f"{budget.epochs:.0f} epochs of this corpus; a larger --data would say more"
    if budget.steps is not None:
        yield from (f"train.{each}" for each in describe_surprises(subject.settings.train.model_dump(), budget.steps))


def _notes(subject: Subject, memory: MemoryForecast) -> Iterator[str]:
    from harness.method import Method

    yield "validation and scoring are outside the budget and come on top, and so do data and compilation"
    yield (
        "bytes are those of Gaussian noise, tensors alone: two long trainings took a fifth less; header and tokenizer "
        "add a few kilobytes"
    )
    if memory.activations is None:
        yield "activations are unknown: the network's operations depend on the values that go through it"
    else:
        yield "memory leaves out temporaries of the optimisers, and what torch itself and its allocator take"
    if subject.settings.train.compile:
        yield "activations are those without torch.compile, which keeps fewer"
    if type(subject.method).train is not Method.train:
        yield "the method trains in a way of its own; the figures are those of plain training of its network"
