"""Finding plugins: built in, from elsewhere, broken."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from harness import registry
from harness.errors import UsageError
from harness.registry import find_method, list_methods, scan_plugins

TOML = """
name = "{name}"
title = "t"
kind = "method"
version = "1"
summary = "s"
source = {{ title = "x" }}
[presets.tiny]
summary = "p"
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make a plugin package outside the tree, as a distribution with an entry point would bring it."""

    def make(package: str, toml: str | None) -> None:
        folder = tmp_path / package
        folder.mkdir()
        (folder / "__init__.py").touch()
        if toml is not None:
            (folder / "method.toml").write_text(toml)
        points = [metadata.EntryPoint(package, package, registry.ENTRY_POINT_GROUP)]
        monkeypatch.setattr(registry.metadata, "entry_points", lambda group: points)

    monkeypatch.syspath_prepend(str(tmp_path))
    scan_plugins.cache_clear()
    yield make
    scan_plugins.cache_clear()


def test_built_ins_are_found_without_torch_code() -> None:
    methods = list_methods()
    assert {"dense", "legendre"} <= set(methods)
    assert methods["dense"].toml.kind == "baseline"
    assert methods["legendre"].package == "methods.legendre"


def test_a_plugin_from_elsewhere_is_listed(plugin) -> None:
    plugin("plugin_elsewhere", TOML.format(name="mine"))
    assert find_method("mine").package == "plugin_elsewhere"
    assert "plugin_elsewhere.method" not in sys.modules


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (None, "cannot read"),
        ("name = ", "cannot read"),
        (TOML.format(name="m").replace('"method"', '"other"'), "kind"),
        (TOML.format(name="dense"), "taken by baselines.dense"),
    ],
)
def test_a_broken_plugin_is_named_and_hides_nothing(plugin, toml: str | None, said: str) -> None:
    plugin("plugin_broken", toml)
    found = scan_plugins()
    assert "dense" in found.methods
    assert len(found.problems) == 1
    assert "plugin_broken" in found.problems[0]
    assert said in found.problems[0]


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown method 'legender'. Did you mean 'legendre'"):
        find_method("legender")


def test_an_unknown_preset_gets_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no preset 'smal'. Did you mean 'small'"):
        find_method("dense").preset("smal")
