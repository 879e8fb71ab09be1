"""A plugin in a distribution of its own: built, installed and run, by the recipe in the README of the template."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not all(PathFinder.find_spec(name) for name in ("pip", "setuptools")),
    reason="building a distribution takes pip and setuptools",
)
ROOT = Path(__file__).resolve().parents[3]
TEMPLATE = ROOT / "methods" / "_template"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install a copy of the template, renamed, into a folder of its own; no index is asked for anything."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    recipe = re.search(r"```toml\n(.*?)```", (TEMPLATE / "README.md").read_text(), re.DOTALL)
    assert recipe is not None
    (source / "pyproject.toml").write_text(recipe[1])
    shutil.copytree(TEMPLATE, source / "mine", ignore=shutil.ignore_patterns("__pycache__"))
    toml = source / "mine" / "method.toml"
    toml.write_text(toml.read_text().replace('name = "template"', 'name = "mine"'))
    options = ("--quiet", "--no-index", "--no-build-isolation", "--no-deps", "--no-cache-dir", "--target", str(site))
    run("-m", "pip", "--disable-pip-version-check", "install", *options, str(source), cwd=source)
    return site


def run(*arguments: str, cwd: Path, path: tuple[Path, ...] = ()) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if path:
        environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_template_itself_is_hidden(tmp_path: Path) -> None:
    listed = run("-m", "harness", "methods", cwd=tmp_path, path=(ROOT,))
    assert "legendre" in listed
    assert "template" not in listed


def test_an_installed_plugin_is_listed_run_and_verified(site: Path, tmp_path: Path) -> None:
    path = (site, ROOT)
    assert "mine" in run("-m", "harness", "methods", cwd=tmp_path, path=path)
    record = tmp_path / "record"
    options = ("--preset", "tiny", "--budget", "4steps", "--data", "synthetic", "--device", "cpu", "--set", "group=4")
    run("-m", "harness", "run", "--method", "mine", *options, "--out", str(record), cwd=tmp_path, path=path)
    report = run("-m", "harness", "verify", str(record), "--level", "evaluate", cwd=tmp_path, path=path)
    assert "FAIL" not in report
