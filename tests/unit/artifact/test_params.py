from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.artifact.params import (
    decoder_closure,
    decoder_closure_bytes,
    import_closure,
    plugin_bytes,
)
from harness.errors import UsageError

SOURCES = {
    "__init__.py": "",
    "start.py": """
import json
from demo_own.deep import part
from . import sibling
import demo_own.lazy.one, os.path
""",
    "sibling.py": """
from __future__ import annotations
from typing import TYPE_CHECKING
import typing
if TYPE_CHECKING:
    from demo_own import only_types
elif True:
    from demo_own import other_branch
if typing.TYPE_CHECKING:
    import demo_own.only_types
def later():
    from .lazy.two import thing
    import demo_foreign
""",
    "only_types.py": "",
    "other_branch.py": "from demo_own.start import x",
    "unused.py": "import demo_own.start",
    "deep/__init__.py": "VALUE = 1",
    "deep/part.py": "from ..lazy import one",
    "deep/unused.py": "",
    "lazy/__init__.py": "",
    "lazy/one.py": "",
    "lazy/two.py": "from demo_own.deep import VALUE",
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "demo_own"
    for name, text in SOURCES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    (tmp_path / "demo_foreign.py").write_text("x = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_closure_by_hand(own: Path) -> None:
    found = import_closure(["demo_own.start"], ["demo_own"])
    names = "", ".deep", ".deep.part", ".lazy", ".lazy.one", ".lazy.two", ".other_branch", ".sibling", ".start"
    assert list(found) == [f"demo_own{name}" for name in names]
    assert found["demo_own.deep"] == own / "deep" / "__init__.py"
    assert not any(name.startswith("demo_own") for name in sys.modules)


def test_missing_start_and_broken_source(own: Path) -> None:
    with pytest.raises(UsageError, match=r"no module demo_own\.nowhere"):
        import_closure(["demo_own.nowhere"], ["demo_own"])
    (own / "lazy" / "two.py").write_text("def (")
    with pytest.raises(UsageError, match=r"two\.py is not Python"):
        import_closure(["demo_own.start"], ["demo_own"])


def test_plugin_bytes_count_every_file(own: Path) -> None:
    (own / "__pycache__").mkdir()
    (own / "__pycache__" / "start.cpython-311.pyc").write_text("y" * 1000)
    sources_bytes = sum(len(text.encode()) for text in SOURCES.values())
    assert plugin_bytes(own) == sources_bytes
    (own / "lazy" / "weights.npz").write_bytes(b"z" * 1000)
    (own / "__pycache__" / "weights.npz").write_bytes(b"z" * 100)
    assert plugin_bytes(own) == sources_bytes + 1100


PLUGIN = {
    "__init__.py": "",
    "shared/__init__.py": "",
    "shared/table.bin": "t" * 30,
    "unused/__init__.py": "",
    "unused/table.bin": "u" * 70,
    "codec/__init__.py": "",
    "codec/method.py": "from demo_plugin import shared",
    "codec/method.toml": "m" * 11,
    "codec/never_imported.py": "W = " + "1" * 400,
    "codec/data/weights.npz": "w" * 500,
}


def test_nothing_hides_in_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in PLUGIN.items():
        path = tmp_path / "demo_plugin" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = decoder_closure("demo_plugin.codec")
    assert [name for name in found if name.startswith("demo_plugin")] == [
        "demo_plugin",
        "demo_plugin.codec",
        "demo_plugin.codec.method",
        "demo_plugin.shared",
        "demo_plugin.codec/data/weights.npz",
        "demo_plugin.codec/method.toml",
        "demo_plugin.codec/never_imported.py",
        "demo_plugin.shared/table.bin",
    ]
    assert len(set(found.values())) == len(found), "no file counts twice"
    before = decoder_closure_bytes("demo_plugin.codec")
    (tmp_path / "demo_plugin" / "codec" / "more.npz").write_bytes(b"x" * 77)
    assert decoder_closure_bytes("demo_plugin.codec") == before + 77


def test_closure_of_a_built_in_method() -> None:
    found = decoder_closure("baselines.dense")
    needed = "harness.evaluate", "baselines.dense.method", "harness.artifact.container", "harness.nn.network"
    assert {*needed, "baselines.dense/method.toml"} <= set(found)
    # Commands, verification and other plugins neither decode nor score.
    for name in ("harness.cli", "harness.verify", "harness.artifact.inspect", "methods.legendre.method"):
        assert name not in found
    assert not any("legendre" in name for name in found)
    assert decoder_closure_bytes("baselines.dense") == sum(path.stat().st_size for path in found.values())
    assert decoder_closure_bytes("baselines.dense") > plugin_bytes(found["baselines.dense.method"].parent)
