"""Does quantisation error compound over loops? Trains one network for each number of loops, then quantises it.

    python -m methods.recursive.stress --budget 200steps --loops 1-5

Each network is stored as float32 matrices and float16 tables, then with the int6 quantiser of the Frugendorff record:
by rounding, with GPTQ that sees the first pass of the shared blocks only, and with GPTQ that sees all passes. A
finished record of the same settings is not trained again, an interrupted one goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.cli import run_command
from harness.errors import HarnessError, UsageError
from harness.job import RunRequest
from harness.records.native import RECORD_FILE, read_config, read_record
from harness.tables import Table, fmt

DEFAULT_SCHEME = "frugendorff-int6"
QUANTISERS = {"rounding": "none", "GPTQ, first passes": "first", "GPTQ, all passes": "all"}
# Bits per byte by loops, before and after int6, of the Frugendorff pull request; see the claims in README.md.
PUBLISHED = {2: (1.1570, 1.1716), 3: (1.3766, 5.716), 4: (1.4058, 6.313), 5: (1.4138, 6.246)}
MAX_LOOPS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Scores of one network.

    Attributes:
        loops: times that the shared blocks run.
        scheme: of the matrices.
        before_bpb: bits per byte of the tune split, stored as float32.
        after_bpb: the same by quantiser.
    """

    loops: int
    scheme: str
    before_bpb: float
    after_bpb: dict[str, float]


def parse_loops(text: str) -> list[int]:
    """Read `3`, `1-5` or `1,2,4`.

    Raises:
        UsageError: it is none of these, or beyond 1 to 64.
    """
    loops: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,2})(?:-([0-9]{1,2}))?", part.strip())
        found = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
        if not found or found[0] < 1 or found[-1] > MAX_LOOPS:
            raise UsageError(f"--loops {text}: write a number, a range or a list within 1 to {MAX_LOOPS}, such as 1-5")
        loops += found
    return list(dict.fromkeys(loops))


def measure(folder: Path, loops: int, schemes: Sequence[str], options: argparse.Namespace) -> list[Row]:
    """Train a network unless its record is there, quantise it, and return a row for each scheme.

    Raises:
        UsageError: the folder holds a record of other settings.
        SystemExit: a command failed, with its exit code; what it said is on standard error.
    """
    place = ["--device", options.device, *(["--data-dir", options.data_dir] if options.data_dir else [])]
    request = RunRequest(
        method="recursive",
        preset=options.preset,
        budget=options.budget,
        data=options.data,
        seed=options.seed,
        overrides=(f"loops={loops}", "export.matrices=fp32", "export.embeddings=fp16", *options.overrides),
    )
    if not (folder / RECORD_FILE).exists():
        asked = ["--method", request.method, "--preset", request.preset, "--budget", request.budget]
        data = ["--data", request.data, "--seed", str(request.seed), "--out", str(folder)]
        _run(["run", *asked, *data, *[word for text in request.overrides for word in ("--set", text)], *place])
    else:
        _check_same(folder, request)
        if read_record(folder).status != "complete":
            _run(["run", "--resume", str(folder), *place])
    with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
        out = Path(scratch, "found.json")
        asked = [word for scheme in schemes for word in ("--scheme", scheme)]
        modes = [word for mode in QUANTISERS.values() for word in ("--gptq", mode)]
        calibration = ["--calibration-tokens", str(options.calibration_tokens)]
        _run(["quantise", str(folder), *asked, *modes, *calibration, "--out", str(out), *place])
        found = json.loads(out.read_text(encoding="utf-8"))
    return [
        Row(
            loops=loops,
            scheme=scheme,
            before_bpb=found["before"]["val_bpb"],
            after_bpb={file["quantiser"]: file["val_bpb"] for file in found["files"] if file["scheme"] == scheme},
        )
        for scheme in schemes
    ]


def stress_table(rows: Sequence[Row]) -> Table:
    """Lay out what was measured, with the published scores of the same number of loops beside it."""
    cells = [
        (
            str(row.loops),
            row.scheme,
            fmt(row.before_bpb),
            *(f"{row.after_bpb[name]:.4f} ({row.after_bpb[name] - row.before_bpb:+.4f})" for name in QUANTISERS),
            "{:.4f} to {:.4f}".format(*PUBLISHED[row.loops]) if row.loops in PUBLISHED else "-",
        )
        for row in rows
    ]
    columns = ("loops", "matrices", "before", *QUANTISERS, "published, before and after")
    return Table(title="bits/byte of the tune split", columns=columns, rows=cells, right=frozenset({0, 2, 3, 4, 5}))


def _check_same(folder: Path, request: RunRequest) -> None:
    from harness.preparation import request_from_config  # imports torch

    found = request_from_config(folder, read_config(folder))
    for key in ("method", "preset", "budget", "data", "seed", "overrides"):
        made, asked = getattr(found, key), getattr(request, key)
        if made != asked:
            raise UsageError(f"{folder} was made with {key} = {made!r}, not {asked!r}; choose another --out")


def _run(arguments: list[str]) -> None:
    with contextlib.redirect_stdout(sys.stderr):
        code = run_command(arguments)
    if code:
        raise SystemExit(code)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print a Markdown table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m methods.recursive.stress", description=__doc__.splitlines()[0])
    parser.add_argument("--budget", required=True, help="of each training, such as 200steps")
    parser.add_argument("--loops", default="1-5", help="numbers of loops: 3, 1-5 or 1,2,4")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--data", default="shakespeare")
    parser.add_argument("--data-dir")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="as of harness run; repeatable")
    parser.add_argument("--scheme", action="append", help=f"of the matrices; repeatable [default: {DEFAULT_SCHEME}]")
    parser.add_argument("--calibration-tokens", type=int, default=65_536)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("records/recursive-stress"), help="folder of the records")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    try:
        numbers = parse_loops(options.loops)
        options.out.mkdir(parents=True, exist_ok=True)
        for loops in numbers:
            rows += measure(options.out / f"loops{loops}", loops, options.scheme or [DEFAULT_SCHEME], options)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(stress_table(rows).to_markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
