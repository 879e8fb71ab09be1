"""Every test here has a cache of its own and no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data import fetch
from harness.data.corpora import Corpus
from harness.data.splits import Work
from harness.errors import DataError

MakeCorpus = Callable[..., Corpus]


def _no_network(*_: object) -> bytes:
    raise DataError("there is no network in tests")


@pytest.fixture(autouse=True)
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HARNESS_DATA_DIR", raising=False)
    for name in ("fetch_shakespeare", "fetch_tiny_shakespeare", "fetch_fineweb"):
        monkeypatch.setattr(fetch, name, _no_network)


@pytest.fixture
def make_corpus() -> MakeCorpus:
    def make(train: list[bytes], tune: list[bytes], test: list[bytes]) -> Corpus:
        texts = {"train": train, "tune": tune, "test": test}
        return Corpus(
            name="text:made",
            works={
                split: tuple(Work(name=f"{split}{index}", data=data) for index, data in enumerate(parts))
                for split, parts in texts.items()
            },
            sha256=repr(texts),
            encoding_errors="strict",
            num_replaced=0,
            default_tokenizer="bytes",
        )

    return make
