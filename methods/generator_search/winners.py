"""The winners of a search as records of `harness run`, whose logs hold the one opening of the test split."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from harness.cli import run_command
from harness.errors import UsageError
from harness.records.native import RECORD_FILE, read_config, read_record
from methods.generator_search.trial import Bench


@dataclass(frozen=True, kw_only=True, slots=True)
class Winner:
    """A record of a winner.

    Attributes:
        rank: in the search, from 1.
        expression: its text.
        folder: of the record.
        test_bpb: bits per byte of the test split.
        stored_params: numbers in its file.
        artifact_bytes: size of its file.
    """

    rank: int
    expression: str
    folder: str
    test_bpb: float
    stored_params: int
    artifact_bytes: int


def make_winner(bench: Bench, out: Path, rank: int, expression: str, num_steps: int) -> Winner:
    """Train a winner at a seed that no trial had; go on with its record, or read it where it is complete.

    Args:
        bench: of the search.
        out: folder of the search.
        rank: of the expression.
        expression: its text.
        num_steps: of the training.

    Raises:
        UsageError: the folder of the record holds one of another expression.
        SystemExit: the run ended early, with its exit code.
    """
    folder = out / f"winner{rank}"
    place = ["--data-dir", bench.data_dir] if bench.data_dir else []
    if not (folder / RECORD_FILE).exists():
        sets = [word for text in (*bench.overrides, f"expression={expression}") for word in ("--set", text)]
        tokenizer = ["--tokenizer", bench.tokenizer] if bench.tokenizer else []
        what = ["--method", "generator_search", "--preset", bench.preset, "--data", bench.data, *tokenizer, *sets]
        how = ["--budget", f"{num_steps}steps", "--seed", str(bench.seed + 1), "--out", str(folder)]
        _run(["run", *what, *how, *place])
    elif read_record(folder).status != "complete":
        _run(["run", "--resume", str(folder), *place])
    made = cast("dict[str, Any]", read_config(folder)["model"])["expression"]
    if made != expression:
        raise UsageError(f"{folder} is a record of {made!r:.80}, not of {expression!r:.80}; choose another --out")
    record = read_record(folder)
    assert record.metrics.test and record.params and record.artifact, "a complete record has them"
    return Winner(
        rank=rank,
        expression=expression,
        folder=folder.name,
        test_bpb=record.metrics.test.val_bpb,
        stored_params=record.params.stored,
        artifact_bytes=record.artifact.artifact_bytes,
    )


def _run(arguments: list[str]) -> None:
    with contextlib.redirect_stdout(sys.stderr):
        code = run_command(arguments)
    if code:
        raise SystemExit(code)
