"""What `harness plan --device here` foretells against what a run then takes, on this machine.

    python tests/benchmarks/plan_table.py [--steps 200] [--repeats 1] [--data shakespeare]

Three configurations; each is planned just before it runs, so that both see the machine equally busy. Training seconds
are those of the record: steps and checkpoints, without export and scoring. Without `--data` the text is made and short,
since scoring all of a corpus takes longer than such a training. Prints a Markdown table. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from harness.data.synthetic import MarkovSource
from harness.forecast import make_forecast
from harness.forecast_schema import Forecast
from harness.forecast_setup import ForecastRequest
from harness.job import RunRequest
from harness.progress import SilentReporter
from harness.records.native import read_record
from harness.records.schema import Record
from harness.runner import start_run
from harness.tables import Table, fmt

CONFIGURATIONS = (("dense", "small"), ("legendre", "small"), ("recursive", "small"))
MADE_BYTES = 400_000
COLUMNS = ("run", "planned s", "measured s", "planned / measured", "planned bytes", "file bytes", "planned peak MB")


def plan_and_run(method: str, preset: str, data: str, num_steps: int) -> tuple[Forecast, Record]:
    """Plan a run, then do it; returns both, the record's folder is gone afterwards."""
    request = RunRequest(method=method, preset=preset, data=data, budget=f"{num_steps}steps")
    forecast = make_forecast(ForecastRequest(run=request, mfu=1.0), lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record"
        start_run(request, reporter=SilentReporter(), out=record)
        return forecast, read_record(record)


def row(method: str, preset: str, data: str, num_steps: int, num_repeats: int) -> tuple[str, ...]:
    pairs = [plan_and_run(method, preset, data, num_steps) for _ in range(num_repeats)]
    planned, measured = [], []
    for forecast, record in pairs:
        assert forecast.time.train_seconds is not None and record.time is not None
        planned.append(forecast.time.train_seconds)
        measured.append(record.time.train_seconds)
    ratio = median(p / m for p, m in zip(planned, measured, strict=True))
    forecast, record = pairs[-1]
    assert record.artifact is not None
    return (
        f"{method}/{preset}, {num_steps} steps",
        fmt(median(planned), 1),
        fmt(median(measured), 1),
        fmt(ratio, 3),
        fmt(forecast.params.bytes_after_coding),
        fmt(record.artifact.artifact_bytes),
        fmt(forecast.memory.peak / 1e6, 1),
    )


def rows(data: str, num_steps: int, num_repeats: int) -> Iterator[tuple[str, ...]]:
    for method, preset in CONFIGURATIONS:
        yield row(method, preset, data, num_steps, num_repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="optimiser steps of each run")
    parser.add_argument("--repeats", type=int, default=1, help="times each is planned and run; medians are shown")
    parser.add_argument("--data", help="corpus; a made text if left out")
    arguments = parser.parse_args()
    title = f"planned and measured, {arguments.steps} steps, median of {arguments.repeats}"
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.txt"
        made.write_bytes(MarkovSource().generate(MADE_BYTES, "plan_table"))
        cells = list(rows(arguments.data or f"text:{made}", arguments.steps, arguments.repeats))
    print(Table(title=title, columns=COLUMNS, rows=cells, right=frozenset(range(1, len(COLUMNS)))).to_markdown())


if __name__ == "__main__":
    main()
