"""Time of `harness report` on five hundred generated records, processor seconds by stage.

Usage: PYTHONPATH=tests python -m tests.benchmarks.report_speed [RECORDS]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from record_factory import make_record, put

NUM_SEEDS = 5


def write_records(folder: Path, num_records: int) -> None:
    """Write records of contenders with five seeds each."""
    for at in range(num_records):
        record = make_record(folder / f"run{at:04}", seed=at)
        put("preset", f"preset{at // NUM_SEEDS}")(record)
        put("seed", at % NUM_SEEDS)(record)


def main() -> None:
    """Print seconds by stage."""
    from reports.command import write_report

    num_records = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with TemporaryDirectory() as root:
        write_records(Path(root) / "records", num_records)
        start, wall = time.process_time(), time.perf_counter()
        stages: list[tuple[str, float]] = []
        write_report(
            [Path(root) / "records"],
            Path(root) / "site",
            tell=lambda text: stages.append((text, time.process_time())),
        )
        ends = [at for _, at in stages[1:]] + [time.process_time()]
        for (text, begin), end in zip(stages, ends, strict=True):
            print(f"{text}: {end - begin:.1f} s of the processor")
        total, passed = time.process_time() - start, time.perf_counter() - wall
        print(f"{num_records} records: {total:.1f} s of the processor, {passed:.1f} s passed")
        print(f"page: {(Path(root) / 'site' / 'index.html').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
