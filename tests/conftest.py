"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from harness.data.synthetic import MarkovSource

# a busy machine is no fault of the code under test
settings.register_profile("default", deadline=None)
settings.load_profile("default")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def small_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The --data value of a text with splits of 144, 8 and 8 kB (two blocks of scores), to be read as bytes.

    For whole runs: a split is scored several times in each, and those of "synthetic" are six times as long.
    """
    path = tmp_path_factory.mktemp("text") / "small.txt"
    path.write_bytes(MarkovSource().generate(160_000, "small"))
    return f"text:{path}"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of reference data that may lie beside the checkout; tests that need it are skipped without it."""
    path = Path(os.environ.get("HARNESS_SHARED", ROOT.parent / "shared"))
    if not (path / "fixtures").is_dir():
        pytest.skip(f"no reference data at {path} (set HARNESS_SHARED)")
    return path
