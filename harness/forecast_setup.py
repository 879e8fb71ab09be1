"""What a forecast is of: the request, and the method, settings, data and device that it comes to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.devices import HERE, Accelerator, find_accelerator
from harness.errors import UsageError
from harness.forecast_schema import DeviceForecast
from harness.job import RunRequest
from harness.plan import Plan, device_memory_bytes, make_plan
from harness.registry import find_method
from harness.settings import RunSettings, resolve_settings
from harness.training.budget import Budget, parse_budget
from harness.training.phases import teacher_flops

if TYPE_CHECKING:
    from harness.data.outlook import Outlook
    from harness.method import Method


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastRequest:
    """What the user asked for.

    Attributes:
        run: the run to be planned.
        mfu: assumed part of a device's peak that the run's operations reach, in (0, 1]; unused where steps are timed.
        data_dir: folder of local corpora.
        device: "here", or a name of `devices.toml`.
        price: of a device for an hour, in any currency.
        vocab_size: of a corpus that is not on this machine.
    """

    run: RunRequest
    mfu: float
    data_dir: Path | None = None
    device: str = HERE
    price: float | None = None
    vocab_size: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is planned: a method at checked settings, as far as its data is known, on a device.

    `torch_device` is where steps are timed; of an accelerator of the table it is the kind whose kernels are assumed.
    """

    method: Method
    settings: RunSettings
    budget: Budget
    outlook: Outlook
    plan: Plan
    torch_device: str
    accelerator: Accelerator | None

    @property
    def network_flops(self) -> float:
        """Operations of one step, those of the optimiser left out."""
        return self.method.flops_per_step(self.settings.train.batch_tokens)

    def teacher_flops(self, steps: int) -> float:
        """Operations of the teacher in a run of so many steps."""
        return teacher_flops(self.settings.train.model_dump(), self.network_flops)(steps)


def set_up(request: ForecastRequest, say: Callable[[str], None]) -> Subject:
    """Check everything as a run does before it makes its folder, and count what needs no device.

    Args:
        request: what the user asked for.
        say: told what a method chose for itself.

    Raises:
        UsageError: an option or a setting is wrong, or no vocabulary is known.
        DataError: the corpus is there, but too short or not what it should be.
        RunError: the budget does not hold one step.
    """
    run = request.run
    budget, info = parse_budget(run.budget), find_method(run.method)
    if not 0 < request.mfu <= 1:
        raise UsageError(f"--mfu {request.mfu:g}: give a part of the device's peak, above 0 and at most 1")
    if request.price is not None and not 0 <= request.price < math.inf:
        raise UsageError(f"--price {request.price:g}: give the price of a device for an hour, at least 0")
    accelerator = None if request.device == HERE else find_accelerator(request.device)
    settings = resolve_settings(info, run.preset, run.overrides)

    from harness.data.outlook import look_at_data
    from harness.method import Task
    from harness.preparation import check_splits, settle_model
    from harness.training.ranks import choose_device, resolve_precision

    # Every device of the table multiplies bfloat16.
    torch_device = choose_device("auto") if accelerator is None else "cuda"
    is_open = settings.train.precision == "auto" and accelerator is not None
    precision = "bfloat16" if is_open else resolve_precision(settings.train.precision, torch_device)
    recipe = settings.train.model_copy(update={"precision": precision})
    outlook = look_at_data(
        run.data,
        tokenizer=run.tokenizer,
        data_dir=request.data_dir,
        encoding_errors=run.encoding_errors,
        vocab_size=request.vocab_size,
    )
    if outlook.data is not None:
        check_splits(outlook.data, recipe.context, run.resolve_eval_mode(recipe.context))
    task = Task(vocab_size=outlook.vocab_size, context=recipe.context, pass_tokens=recipe.micro_batch_tokens)
    settings = replace(settings, train=recipe)
    method_class = info.load()
    settings = replace(settings, model=settle_model(method_class, settings, task, run.target_params, say))
    method = method_class(settings.model, task)
    return Subject(
        method=method,
        settings=settings,
        budget=budget,
        outlook=outlook,
        plan=make_plan(method, settings, budget, outlook.data),
        torch_device=torch_device,
        accelerator=accelerator,
    )


def describe_device(request: ForecastRequest, subject: Subject) -> DeviceForecast:
    """Return the device by its data sheet, or this machine."""
    precision, accelerator = subject.settings.train.precision, subject.accelerator
    if accelerator is None:
        return DeviceForecast(
            name=HERE,
            title=f"this machine, {subject.torch_device}",
            precision=precision,
            memory_bytes=device_memory_bytes(subject.torch_device),
            is_timed=True,
            peak_flops=None,
            mfu=None,
        )
    return DeviceForecast(
        name=request.device,
        title=accelerator.title,
        precision=precision,
        memory_bytes=accelerator.memory_bytes,
        is_timed=False,
        peak_flops=accelerator.peak_flops(precision),
        mfu=request.mfu,
    )
