"""Bytes of valid record folders, flipped, cut, spliced and doubled: findings in time, never an error or a written file.

A few hundred inputs with the suite; `make fuzz` goes on for FUZZ_SECONDS and prints how many it tried.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from golf.bases import PLAIN
from golf.folders import Folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.verify.findings import Report
from harness.verify.run import verify_paths

NUM_INPUTS = 150
MAX_SECONDS = 10.0
FUZZ_SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
# Pieces that readers look for, and pieces that break careless ones.
PIECES = (
    b"val_loss:1.9 val_bpb:1.1", b"\n====================\n", b"| Seed | val_bpb |\n|---|---|\n", b"| 42 | 1.1 |",
    b"NaN", b"1e999", b"-0", b"9" * 5000, b"{" * 300, b"[" * 300, b'"seed_results": {', b"\x00", b"\xff\xfe",
    b"\x1b[31m",
    b"\\", b"seed:42\n", b"step:0/10 val_loss:", b"Total submission size int8+zlib: ", b"```\n", b"<table><tr><td>",
    b"**", b"~", b"import os\n", b"|" * 200, b"0." + b"0" * 400, "\u2028\u202e".encode(), b"Infinity", b"\r",
    b"\t" * 500,
)  # fmt: skip


@cache
def originals() -> tuple[Folder, ...]:
    return tuple(build() for build in PLAIN.values())


def mutate(raw: bytes, rng: random.Random) -> bytes:
    """Change a file in one to four places."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        size = rng.choice((1, 1, 2, 8, 64, 4096))
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[min(place, len(data) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            del data[place : place + size]
        elif kind == 3:
            data[place:place] = data[place : place + size] * rng.randint(1, 40)
        elif kind == 4:
            data[place:place] = rng.choice(PIECES)
        else:
            data[place:place] = rng.randbytes(size)
    return bytes(data)


def mutated_folder(seed: int) -> Folder:
    rng = random.Random(seed)
    folder = rng.choice(originals())
    names = sorted(folder.files)
    for name in rng.sample(names, rng.randint(1, min(3, len(names)))):
        folder = folder.put(name, mutate(folder.files[name], rng))
    return folder


def snapshot(path: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(path.rglob("*"))}


def judge(folder: Folder, path: Path) -> Report:
    """Judge a folder, and check that this took a bounded time, broke nothing of ours and wrote nothing."""
    folder.write(path)
    before, start = snapshot(path), time.perf_counter()
    report = verify_paths([path])
    assert time.perf_counter() - start < MAX_SECONDS
    assert list(report.internal_errors) == []
    assert report.exit_code in (0, 1)
    assert snapshot(path) == before
    return report


def seeds() -> Iterator[int]:
    """Yield the seeds of the suite, or new ones until the time of `make fuzz` is over."""
    end, seed = time.monotonic() + FUZZ_SECONDS, 0
    while seed < NUM_INPUTS or time.monotonic() < end:
        yield seed
        seed += 1


@pytest.mark.timeout(int(FUZZ_SECONDS) + 600)
def test_mutated_folders_give_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    num_inputs = num_findings = 0
    for seed in seeds():
        report = judge(mutated_folder(seed), tmp_path / f"{seed % 64}" / f"{seed}")
        num_inputs, num_findings = num_inputs + 1, num_findings + len(report.findings)
    assert num_findings > num_inputs
    if FUZZ_SECONDS:
        with capsys.disabled():
            print(f"\n{num_inputs:,} mutated folders were judged")


TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from(["1.1", "<0.001", "~15.9 MB", "15,154,098", "1e999"]))
KEYS = st.one_of(
    TEXT, st.sampled_from(["val_bpb", "val_loss", "seed", "seeds", "seed_results", "bytes_total", "42", "val_bpb_std"])
)
VALUES = st.recursive(
    st.one_of(NUMBERS, TEXT, st.none(), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
CELLS = st.one_of(
    TEXT, NUMBERS.map(str), st.sampled_from(["Seed", "val_bpb", "42", "**Mean**", "Std", "1.1", "Artifact"])
)
LINES = st.one_of(
    TEXT,
    st.builds(lambda a, b: f"final {a} val_loss:{b} val_bpb:{b}", TEXT, NUMBERS),
    st.builds(lambda a, b: f"step:{a}/{a} val_loss:{b} val_bpb:{b} train_time:{a}ms", NUMBERS, NUMBERS),
    st.builds(lambda a: f"Total submission size int8+zlib: {a} bytes", NUMBERS),
)
settings_of_suite = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@settings_of_suite
@given(summary=st.dictionaries(KEYS, VALUES, max_size=8), rows=st.lists(st.lists(CELLS, max_size=5), max_size=6),
       log=st.lists(LINES, max_size=12))  # fmt: skip
def test_any_summary_readme_and_log_give_findings(
    tmp_path_factory: pytest.TempPathFactory,
    summary: dict[str, object],
    rows: list[list[str]],
    log: list[str],
) -> None:
    import json

    table = "\n".join("| " + " | ".join(row) + " |" for row in [*rows[:1], ["---"] * 3, *rows[1:]])
    files = {"submission.json": json.dumps(summary), "README.md": table, "train.log": "\n".join(log)}
    folder = Folder({name: text.encode("utf-8", "replace") for name, text in files.items()})
    judge(folder, tmp_path_factory.mktemp("folder") / "record")
