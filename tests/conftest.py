"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# a busy machine is no fault of the code under test
settings.register_profile("default", deadline=None)
settings.load_profile("default")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of reference data that may lie beside the checkout; tests that need it are skipped without it."""
    path = Path(os.environ.get("HARNESS_SHARED", ROOT.parent / "shared"))
    if not (path / "fixtures").is_dir():
        pytest.skip(f"no reference data at {path} (set HARNESS_SHARED)")
    return path
