"""What `harness plan` shows of a forecast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

from harness.forecast import make_forecast
from harness.forecast_schema import Forecast
from harness.forecast_setup import ForecastRequest
from harness.tables import Table, View, fmt, shares_table

Rows = Iterator[tuple[str, str]]


def plan_view(request: ForecastRequest, say: Callable[[str], None]) -> tuple[View, bool]:
    """Plan a run.

    Args:
        request: what the user asked for.
        say: told what takes a while.

    Returns:
        The view, and whether the run fits into the device's memory.
    """
    forecast = make_forecast(request, say)
    return forecast_view(forecast), forecast.memory.fits


def forecast_view(forecast: Forecast) -> View:
    """Show a forecast: the run, its operations, its memory, and what the figures rest on."""
    remarks = [("warning", text) for text in forecast.warnings] + [("note", text) for text in forecast.notes]
    tables = [
        Table(title="plan", columns=("what", "value"), rows=list(_run_rows(forecast))),
        shares_table("operations of a step", _flops_parts(forecast), unit="FLOPs"),
        shares_table("memory while training", _memory_parts(forecast), unit="bytes"),
        Table(title="worth knowing", columns=("kind", "what"), rows=remarks),
    ]
    return View(tables=tables, data=asdict(forecast))


def _run_rows(forecast: Forecast) -> Rows:
    params, budget, flops, memory = forecast.params, forecast.budget, forecast.flops, forecast.memory
    device, time = forecast.device, forecast.time
    origin = "timed" if device.is_timed else "assumed"
    yield "method", f"{forecast.method}, preset {forecast.preset}"
    yield "data", f"{forecast.data}, vocabulary {forecast.vocab_size:,}"
    yield "device", f"{device.name}: {device.title}, {device.memory_bytes / 1e9:,.1f} GB, {device.precision}"
    yield "parameters", f"trained {params.trained:,}, stored {params.stored:,}"
    yield "", f"effective {params.effective:,}, active {params.active:,} a token"
    yield "file", f"about {params.bytes_after_coding:,} bytes, {params.bytes_before_coding:,} before entropy coding"
    yield "budget", f"{budget.text}: {fmt(budget.steps)} steps of {budget.tokens_per_step:,} tokens"
    epochs = "epochs unknown" if budget.epochs is None else f"{budget.epochs:,.2f} epochs"
    yield "tokens", f"{fmt(budget.tokens)}, {epochs}"
    run = "-" if flops.run is None else f"{flops.run:.3g}"
    yield "operations", f"{flops.token:.3g} FLOPs a token, {flops.step:.3g} a step, {run} in all"
    if flops.teacher:
        yield "teacher", f"{flops.teacher:.3g} FLOPs more in each step of the distillation"
    yield "memory", f"{memory.peak / 1e9:,.2f} GB, {'fits' if memory.fits else 'does not fit'}"
    yield "a step", f"{_duration(time.step_seconds)} ({origin})" if time.step_seconds is not None else "-"
    yield "training", _duration(time.train_seconds)
    yield "the run", f"{_duration(time.run_seconds)}, export of {_duration(time.export_seconds)} included"
    yield "device hours", "-" if time.device_hours is None else f"{time.device_hours:,.3g}"
    if time.price is not None:
        yield "price", f"{time.price:,.2f}"


def _flops_parts(forecast: Forecast) -> dict[str, float]:
    flops = forecast.flops
    return {
        "forward": flops.forward,
        "backward": flops.backward,
        "generation of weights": flops.generation,
        "optimiser": flops.optimiser,
    }


def _memory_parts(forecast: Forecast) -> dict[str, float]:
    memory = forecast.memory
    return {
        "weights": memory.weights,
        "generated weights": memory.generated_weights,
        "gradients": memory.gradients,
        "optimiser state": memory.optimiser_state,
        "averages": memory.averages,
        "teacher": memory.teacher,
        "activations of a micro-batch": memory.activations or 0,
        "temporaries": memory.temporaries,
        "copy during the warm-up": memory.warm_up_copy,
    }


def _duration(seconds: float | None) -> str:
    """Write seconds in the unit that people would use."""
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:,.2f} h"
