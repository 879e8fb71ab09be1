"""The hash of a plugin: any file of its folder changes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.provenance import files_below, hash_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    plugin = tmp_path / "plugin"
    (plugin / "deep").mkdir(parents=True)
    (plugin / "method.py").write_text("METHOD = 1")
    (plugin / "method.toml").write_text("name = 'a'")
    (plugin / "deep" / "weights.npz").write_bytes(b"weights")
    return plugin


@pytest.mark.parametrize("name", ["method.py", "method.toml", "deep/weights.npz", "new.bin", "deep/.hidden"])
def test_every_file_counts(name: str, folder: Path) -> None:
    before = hash_sources([folder])
    assert hash_sources([folder]) == before
    (folder / name).write_bytes(b"other")
    assert hash_sources([folder]) != before


def test_a_name_counts(folder: Path) -> None:
    before = hash_sources([folder])
    (folder / "method.toml").rename(folder / "Method.toml")
    assert hash_sources([folder]) != before


def test_bytecode_does_not_count_but_what_hides_beside_it_does(folder: Path) -> None:
    before = hash_sources([folder])
    (folder / "__pycache__").mkdir()
    for name in ("method.cpython-311.pyc", "method.cpython-311.pyc.140254"):
        (folder / "__pycache__" / name).write_bytes(b"code")
    assert hash_sources([folder]) == before
    (folder / "__pycache__" / "weights.npz").write_bytes(b"weights")
    assert hash_sources([folder]) != before


def test_links_are_followed_once(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "weights.npz").write_bytes(b"weights")
    (folder / "link").symlink_to(outside)
    (outside / "circle").symlink_to(folder)
    (folder / "broken").symlink_to(folder / "nowhere")
    names = [path.relative_to(folder).as_posix() for path in files_below(folder)]
    assert names == ["deep/weights.npz", "link/weights.npz", "method.py", "method.toml"]
