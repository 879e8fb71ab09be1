"""Time and memory of `harness verify` on sixty generated folders and on a log of a gigabyte.

Usage: python -m tests.benchmarks.verify_speed [GIGABYTES]
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.golf.broken import BROKEN
from tests.golf.clean import CLEAN

NUM_FOLDERS = 60
LINES = {
    "training steps": "step:{0}/9000000 train_loss:3.1416 train_time:{0}ms step_avg:1.00ms\n",
    "validations": "step:{0}/9000000 val_loss:2.1000 val_bpb:1.2437 train_time:{0}ms step_avg:1.00ms\n",
    "other text": "W0414 04:52:28.134000 1217 torch/distributed/run.py:803] a warning, number {0} of many\n",
}
END = "final_int8_zlib_roundtrip_exact val_loss:2.07269931 val_bpb:1.22436570\n"
SUMMARY = '{"name": "long", "val_bpb": 1.2243657, "val_loss": 2.07269931}'


def verify(path: Path, *options: str) -> tuple[float, float]:
    """Run the command; return its seconds and its peak memory in MB."""
    start = time.perf_counter()
    code = "import resource, sys; from harness.cli import run_command; run_command(sys.argv[1:]); "
    code += "print(max(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))"
    command = [sys.executable, "-c", code, "verify", str(path), "--format", "json", *options]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return time.perf_counter() - start, int(lines[-1]) / unit


def write_log(path: Path, form: str, num_bytes: int) -> None:
    """Write a log of one kind of line that ends in a score."""
    block = "".join(form.format(i) for i in range(20_000)).encode()
    with path.open("wb") as handle:
        for piece in islice(cycle([block]), num_bytes // len(block)):
            handle.write(piece)
        handle.write(END.encode())


def rows(num_bytes: int) -> Iterator[tuple[str, float, float]]:
    """Yield what was measured, line by line."""
    builders = [*CLEAN.values(), *(case.build for case in BROKEN)][:NUM_FOLDERS]
    with TemporaryDirectory() as root:
        for i, build in enumerate(builders):
            folder = build()
            folder.write(Path(root) / "sixty" / folder.track / f"{i}")
        yield f"{NUM_FOLDERS} folders", *verify(Path(root) / "sixty")
        yield f"{NUM_FOLDERS} folders, --jobs 2", *verify(Path(root) / "sixty", "--jobs", "2")
        for name, form in LINES.items():
            record = Path(root) / name
            record.mkdir()
            (record / "submission.json").write_text(SUMMARY)
            write_log(record / "train.log", form, num_bytes)
            yield f"a log of {num_bytes / 1e9:.1f} GB: {name}", *verify(record)
            (record / "train.log").unlink()


def main() -> None:
    """Print a Markdown table."""
    num_bytes = int(float(sys.argv[1]) * 1e9) if len(sys.argv) > 1 else 1_000_000_000
    print("| what | seconds | peak memory, MB |\n| --- | --- | --- |")
    for name, seconds, megabytes in rows(num_bytes):
        print(f"| {name} | {seconds:.1f} | {megabytes:.0f} |", flush=True)


if __name__ == "__main__":
    main()
