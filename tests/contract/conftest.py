"""The template joins the registered methods here as a plugin from elsewhere does, by the entry point of a distribution.

It is written to a folder of its own, since the processes that score a file must find it too.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from harness.registry import ENTRY_POINT_GROUP, scan_plugins

_FOLDER = tempfile.TemporaryDirectory(prefix="harness-template-")
_SITE = Path(_FOLDER.name)


def pytest_configure(config: pytest.Config) -> None:
    info = _SITE / "harness_template-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: harness-template\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\ntemplate = methods._template\n")
    sys.path.append(str(_SITE))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(_SITE))))
    scan_plugins.cache_clear()


def pytest_unconfigure(config: pytest.Config) -> None:
    _FOLDER.cleanup()
