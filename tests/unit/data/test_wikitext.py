"""WikiText-2 from parquet files and from a kept copy: joined rows, published splits, disjoint windows by default."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.data.corpora import list_sources, load_corpus
from harness.data.wikitext import CONFIG, FILE_NAME, join_rows
from harness.errors import DataError, UsageError
from harness.job import RunRequest

datasets = pytest.importorskip("datasets", reason="needs the extra train")

ROWS = {
    "train": ["", " = Title = \n", "", " a paragraph \n"],
    "validation": [" one row of caf\u00e9 \n"],
    "test": ["", " x \n", " y \n"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wikitext")
    for split, rows in ROWS.items():
        half = len(rows) // 2
        for index, part in enumerate((rows[:half], rows[half:])):
            if part:
                name = path / CONFIG / f"{split}-0000{index}-of-00002.parquet"
                datasets.Dataset.from_dict({"text": part}).to_parquet(name)
    return path


@pytest.mark.parametrize("below", ["", CONFIG])
def test_splits_are_the_published_ones_joined_as_usual(folder: Path, below: str) -> None:
    corpus = load_corpus(f"wikitext2:{folder / below}")
    texts = {split: works[0].data.decode() for split, works in corpus.works.items()}
    assert texts == {"train": "\n\n".join(ROWS["train"]), "tune": ROWS["validation"][0], "test": "\n\n x \n\n\n y \n"}
    assert join_rows([]) == ""


def test_a_kept_copy_needs_no_network(folder: Path, tmp_path: Path) -> None:
    import gzip
    import json

    with pytest.raises(DataError, match="downloads are switched off.*wikitext2:FOLDER"):
        load_corpus("wikitext2", data_dir=tmp_path, offline=True)
    content = json.dumps({split: join_rows(rows) for split, rows in ROWS.items()}).encode()
    (tmp_path / FILE_NAME).write_bytes(gzip.compress(content))
    kept = load_corpus("wikitext2", data_dir=tmp_path, offline=True)
    assert kept.sha256 == load_corpus(f"wikitext2:{folder}").sha256
    assert {source.name: source.is_cached for source in list_sources(tmp_path)}["wikitext2"]
    (tmp_path / FILE_NAME).write_bytes(b"broken")
    with pytest.raises(DataError, match="downloads are switched off"):
        load_corpus("wikitext2", data_dir=tmp_path, offline=True)


def test_a_folder_without_a_split_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no train-\*\.parquet there"):
        load_corpus(f"wikitext2:{tmp_path}")
    (tmp_path / "train-0.parquet").write_bytes(b"not parquet")
    (tmp_path / "validation-0.parquet").write_bytes(b"")
    (tmp_path / "test-0.parquet").write_bytes(b"")
    with pytest.raises(DataError, match="datasets could not read it"):
        load_corpus(f"wikitext2:{tmp_path}")


def test_it_is_scored_in_disjoint_windows_unless_asked_otherwise() -> None:
    request = RunRequest(method="dense", budget="1m", data="wikitext2:x")
    mode = request.resolve_eval_mode(64)
    assert (mode.mode, mode.context, mode.stride) == ("disjoint", 64, 64)
    other = RunRequest(method="dense", budget="1m", data="wikitext2", eval_mode="sliding").resolve_eval_mode(64)
    assert (other.mode, other.stride) == ("sliding", 32)
    assert RunRequest(method="dense", budget="1m").resolve_eval_mode(64).mode == "sliding"
