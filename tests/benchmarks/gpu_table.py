"""Tokens a second and peak memory of training steps on this GPU, beside what `harness plan` foretells.

    python tests/benchmarks/gpu_table.py [--networks legendre/published ...] [--forms plain compiled] [--peak h100]

Steps are those of `harness plan --device here`: a fresh network, random tokens, the optimiser included, compilation
left out. Peak memory is what torch allocated in the process. With --peak, operations a second are also a part of that
device's data sheet. One process a row, so that none has the other's memory. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import torch

from harness.devices import find_accelerator
from harness.forecast import make_forecast
from harness.forecast_setup import ForecastRequest
from harness.job import RunRequest
from harness.tables import Table, fmt

NETWORKS = ("dense/published", "legendre/published", "recursive/published", "recursive/micro-crawler")
FORMS = ("plain", "compiled")
VOCABULARY = 1024
COLUMNS = ("network", "form", "step ms", "tokens/s", "TFLOP/s", "of the peak", "planned peak GB", "measured peak GB")


def measure(network: str, form: str, overrides: list[str]) -> dict[str, float]:
    """Time steps of a network in this process; the numbers of a row."""
    method, _, preset = network.partition("/")
    given = (*overrides, f"train.compile={str(form == 'compiled').lower()}")
    run = RunRequest(method=method, preset=preset, data="shakespeare", budget="100steps", overrides=given)
    forecast = make_forecast(ForecastRequest(run=run, mfu=1.0, vocab_size=VOCABULARY), lambda _: None)
    assert forecast.time.step_seconds is not None
    return {
        "step_seconds": forecast.time.step_seconds,
        "tokens": forecast.budget.tokens_per_step,
        "flops": forecast.flops.step,
        "planned": forecast.memory.peak,
        "measured": torch.cuda.max_memory_allocated(),
    }


def row(network: str, form: str, peak: str | None, overrides: list[str]) -> tuple[str, ...]:
    command = [sys.executable, __file__, "--one", network, form, *(f"--set={each}" for each in overrides)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return (network, form, done.stderr.strip().rpartition("\n")[2], *[""] * (len(COLUMNS) - 3))
    found = json.loads(done.stdout.splitlines()[-1])
    rate = found["flops"] / found["step_seconds"]
    share = fmt(rate / find_accelerator(peak).peak_flops("bfloat16"), 3) if peak else "-"
    return (
        network,
        form,
        fmt(1000 * found["step_seconds"], 1),
        fmt(round(found["tokens"] / found["step_seconds"])),
        fmt(rate / 1e12, 1),
        share,
        fmt(found["planned"] / 1e9, 2),
        fmt(found["measured"] / 1e9, 2),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="METHOD/PRESET")
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS)
    parser.add_argument("--peak", help="device of `harness plan --device` whose data sheet has the peak")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="settings of every row")
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "FORM"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one, arguments.overrides)))
        return
    rows = [
        row(network, form, arguments.peak, arguments.overrides)
        for network in arguments.networks
        for form in arguments.forms
    ]
    title = f"training steps on {torch.cuda.get_device_name()}, torch {torch.__version__}"
    print(Table(title=title, columns=COLUMNS, rows=rows, right=frozenset(range(2, len(COLUMNS)))).to_markdown())


if __name__ == "__main__":
    main()
