"""Tokens a second and peak memory of training steps on this GPU, beside what `harness plan` foretells.

    python tests/benchmarks/gpu_table.py [--networks legendre/published recursive/published,blocks=12,loops=1 ...]
        [--forms plain compiled] [--repeats 3] [--peak h100]

Steps are those of `harness plan --device here`: a fresh network, random tokens, the optimiser included, compilation
left out. Peak memory is what torch allocated in the process. With --peak, operations a second are also a part of that
device's data sheet. A process for each measurement, so that none has the other's memory; the median of the repeats is
shown, with the least and the most. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import torch

from harness.devices import find_accelerator
from harness.errors import UsageError
from harness.forecast import make_forecast
from harness.forecast_setup import ForecastRequest
from harness.job import RunRequest
from harness.tables import Table, fmt

NETWORKS = (
    "dense/published",
    "legendre/published",
    "recursive/published",
    "recursive/published,blocks=12,loops=1",
    "recursive/micro-crawler",
)
FORMS = ("plain", "compiled")
VOCABULARY = 1024
COLUMNS = ("network", "form", "step ms", "tokens/s", "TFLOP/s", "of the peak", "planned peak GB", "measured peak GB")


def measure(network: str, form: str) -> dict[str, float]:
    """Time steps of a network in this process; returns seconds, tokens and operations of a step, and bytes."""
    name, *overrides = network.split(",")
    method, _, preset = name.partition("/")
    overrides.append(f"train.compile={str(form == 'compiled').lower()}")
    run = RunRequest(method=method, preset=preset, budget="100steps", overrides=tuple(overrides))
    forecast = make_forecast(ForecastRequest(run=run, mfu=1.0, vocab_size=VOCABULARY), lambda _: None)
    assert forecast.time.step_seconds is not None
    return {
        "seconds": forecast.time.step_seconds,
        "tokens": forecast.budget.tokens_per_step,
        "flops": forecast.flops.step,
        "planned_bytes": forecast.memory.peak,
        "measured_bytes": torch.cuda.max_memory_allocated(),
    }


def measure_apart(network: str, form: str) -> dict[str, float]:
    """As `measure`, in a process of its own.

    Raises:
        RuntimeError: it failed; says why in a line.
    """
    command = [sys.executable, __file__, "--one", network, form]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(network: str, form: str, repeats: int, peak_flops: float | None) -> tuple[str, ...]:
    """Return the cells of a network, those of the repeat with the (lower) median time, or why there are none."""
    try:
        found = sorted((measure_apart(network, form) for _ in range(repeats)), key=lambda each: each["seconds"])
    except RuntimeError as error:
        return (network, form, f"failed: {error}", *[""] * (len(COLUMNS) - 3))
    middle = found[(len(found) - 1) // 2]
    seconds, rate = middle["seconds"], middle["flops"] / middle["seconds"]
    spread = f" ({1000 * found[0]['seconds']:.1f} to {1000 * found[-1]['seconds']:.1f})" if repeats > 1 else ""
    return (
        network,
        form,
        f"{1000 * seconds:.1f}{spread}",
        fmt(round(middle["tokens"] / seconds)),
        fmt(rate / 1e12, 1),
        f"{rate / peak_flops:.1%}" if peak_flops else "-",
        fmt(middle["planned_bytes"] / 1e9, 2),
        fmt(middle["measured_bytes"] / 1e9, 2),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="METHOD/PRESET[,KEY=VALUE]")
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS)
    parser.add_argument("--repeats", type=int, default=3, help="processes a row")
    parser.add_argument("--peak", help="device of `harness plan --device` whose data sheet has the peak")
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "FORM"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    if not torch.cuda.is_available():
        parser.error("torch sees no CUDA device; `harness plan --device h100` foretells without one")
    if arguments.repeats < 1:
        parser.error("--repeats is at least 1")
    try:
        peak_flops = find_accelerator(arguments.peak).peak_flops("bfloat16") if arguments.peak else None
    except UsageError as error:
        parser.error(str(error).replace("--device", "--peak"))
    title = f"training steps on {torch.cuda.get_device_name()}, torch {torch.__version__}"
    cells = [
        row(network, form, arguments.repeats, peak_flops) for network in arguments.networks for form in arguments.forms
    ]
    print(Table(title=title, columns=COLUMNS, rows=cells, right=frozenset(range(2, len(COLUMNS)))).to_markdown())


if __name__ == "__main__":
    main()
