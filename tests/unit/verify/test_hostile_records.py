"""Whatever the bytes of a record folder are, verification ends with findings: no crash, no fault of ours."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_factory import make_record, write_json

from harness.records.native import ARTIFACT_FILE, CONFIG_FILE, LOG_FILE, RECORD_FILE, SCORES_FILE
from harness.verify.render import report_lines, to_json
from harness.verify.run import verify_paths

FILES = (RECORD_FILE, ARTIFACT_FILE, SCORES_FILE, LOG_FILE, CONFIG_FILE)
BYTE_INPUTS, VALUE_INPUTS = 300, 300


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_record(tmp_path_factory.mktemp("hostile") / "record")


def examine_copy(good: Path, spoil: Any) -> None:
    folder = good.parent / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good, folder)
    spoil(folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    report = verify_paths([folder])
    assert report.internal_errors == [], report.internal_errors[0].traceback
    assert report.exit_code in (0, 1)
    assert all("\n" not in line for line in report_lines(report, with_passes=True))
    json.loads(to_json(report, "fuzz"))
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def spoil_bytes(raw: bytes, rng: random.Random) -> bytes:
    data = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[place : place + rng.randint(1, 200)]
            case 2:
                data[place:place] = rng.choice(
                    [b"\0", b"\x1b[2J", b"\xff", b"9" * 400, b"[" * 3000, b'"', b"}", b"1e999"]
                )
            case 3:
                data[place:place] = data[: rng.randint(1, 300)]
            case 4:
                data = data[:place]
    return bytes(data)


def test_random_bytes(good: Path) -> None:
    """Files damaged at random, with and without hashes that fit."""
    rng = random.Random(0)
    for _ in range(BYTE_INPUTS):

        def spoil(folder: Path) -> None:
            from record_factory import reseal

            name = rng.choice(FILES)
            (folder / name).write_bytes(spoil_bytes((good / name).read_bytes(), rng))
            if name != RECORD_FILE and rng.random() < 0.7:
                reseal(folder)

        examine_copy(good, spoil)


odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False),
    st.sampled_from(["", "NaN", "\x1b[31m", "..", "a/b", "9" * 50, "\ud800", "1e5steps", "[red]"]),
    st.sampled_from([-1, 0, 1, 1e308, -1e308, 5e-324, 2**62]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in items for place in places(child, (*path, key)))]


@settings(max_examples=VALUE_INPUTS, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), odd_values)
def test_odd_values(good: Path, index: int, value: Any) -> None:
    """Every field of record.json set to what does not belong there."""
    fields = json.loads((good / RECORD_FILE).read_text())
    *path, last = (options := places(fields)[1:])[index % len(options)]
    target = fields
    for key in path:
        target = target[key]
    target[last] = value
    examine_copy(good, lambda folder: write_json(folder, fields))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), odd_values)
def test_odd_log_values(good: Path, index: int, value: Any) -> None:
    """Every field of every log line set to what does not belong there, under hashes that fit."""
    from record_factory import edit_log

    def change(events: list[dict[str, Any]]) -> None:
        options = [(i, key) for i, event in enumerate(events) for key in event]
        i, key = options[index % len(options)]
        events[i][key] = value

    examine_copy(good, edit_log(change))
