from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from harness.data.corpora import list_sources, load_corpus
from harness.data.splits import SPLITS
from harness.data.synthetic import MarkovSource
from harness.errors import DataError, UsageError

PARAGRAPHS = "".join(f"Paragraph {index}, with an é.\n\n" for index in range(400))


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(PARAGRAPHS, encoding="utf-8")
    return path


def test_empty_file_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match=r"no text in it \(1 files, all empty\)"):
        load_corpus(f"text:{tmp_path / 'empty.txt'}")


def test_empty_folder_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no text in it \(0 files"):
        load_corpus(f"text:{tmp_path}")


def test_one_byte_is_too_short(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_bytes(b"x")
    with pytest.raises(DataError, match="1 bytes of text cannot be split"):
        load_corpus(f"text:{tmp_path / 'one.txt'}")


def test_file_is_split_without_loss(text_file: Path) -> None:
    corpus = load_corpus(f"text:{text_file}")
    assert "".join(work.data.decode() for split in SPLITS for work in corpus.works[split]) == PARAGRAPHS
    assert (corpus.name, corpus.encoding_errors, corpus.num_replaced) == (f"text:{text_file}", "strict", 0)


def test_hash_depends_on_text_and_names_not_on_the_place(tmp_path: Path) -> None:
    hashes = []
    for folder, name, text in [("p", "a", "x"), ("q", "a", "x"), ("r", "b", "x"), ("s", "a", "y")]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.txt").write_text(text * 100)
        hashes.append(load_corpus(f"text:{tmp_path / folder}").sha256)
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_folder_gives_its_files_in_sorted_order_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/y.md", ".hidden", ".git/config", "c.txt.gz", "empty"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(b"packed") if name.endswith("gz") else name.encode() * (name != "empty"))
    corpus = load_corpus(f"text:{tmp_path}")
    works = {work.name: work.data for split in SPLITS for work in corpus.works[split]}
    assert sorted(works) == ["a/y.md", "a/z.txt", "b.txt", "c.txt.gz"]
    assert works["c.txt.gz"] == b"packed"


def test_broken_gzip_is_one_error(tmp_path: Path) -> None:
    for name, data in [("cut.gz", gzip.compress(b"x" * 1000)[:-5]), ("not.gz", b"plain")]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match="cannot read"):
            load_corpus(f"text:{tmp_path / name}")


@pytest.mark.parametrize(
    ("data", "offset"),
    [(b"\xff", 0), (b"ab\xc3", 2), (b"caf\xe9 au lait", 3), (b"ok \xed\xa0\x80", 3), (b"\xff\xfea\0", 0)],
    ids=["alone", "cut off", "latin-1", "surrogate", "utf-16"],
)
def test_invalid_utf8_is_refused_with_its_place(tmp_path: Path, data: bytes, offset: int) -> None:
    (tmp_path / "bad.txt").write_bytes(data)
    with pytest.raises(DataError, match=rf"bad\.txt: not UTF-8 at byte {offset} \(0x.*--encoding-errors replace"):
        load_corpus(f"text:{tmp_path}")


def test_replacing_is_counted_without_counting_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes("\ufffd fine \ufffd ".encode() + b"caf\xe9 \xff\xfe end")
    corpus = load_corpus(f"text:{tmp_path}", encoding_errors="replace")
    assert corpus.num_replaced == 3
    assert corpus.encoding_errors == "replace"
    text = b"".join(work.data for split in SPLITS for work in corpus.works[split]).decode()
    assert text == "\ufffd fine \ufffd caf\ufffd \ufffd\ufffd end"


def test_synthetic_states_the_nats_of_its_source() -> None:
    corpus = load_corpus("synthetic:5")
    assert corpus.source_nats is not None
    (test_work,) = corpus.works["test"]
    assert corpus.source_nats["test"] == MarkovSource(5).total_nats(test_work.data)
    assert (corpus.name, load_corpus("synthetic:0").name) == ("synthetic:5", "synthetic")
    assert load_corpus("synthetic:0").sha256 == load_corpus("synthetic").sha256 != corpus.sha256


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("x" * 5_000, "unknown data source"),
        ("text:" + "x" * 5_000, "no such file or folder"),
        ("shakspeare", "unknown data source 'shakspeare'. Did you mean 'shakespeare'"),
        ("", "unknown data source ''. Known: fineweb"),
        ("text", "nothing stands after the colon"),
        ("text:", "nothing stands after the colon"),
        ("synthetic:", "nothing stands after the colon"),
        ("shakespeare:2", "takes nothing after its name"),
        ("synthetic:x", "expected a whole number after the colon, got 'x'"),
        ("synthetic:-1", "expected a whole number"),
        ("fineweb:2", "at least 3 documents"),
        ("text:/no/such/place", "no such file or folder"),
        ("shards:x", "holds tokens, not text"),
    ],
)
def test_wrong_specs(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_corpus(spec)


def test_a_path_without_text_gets_the_right_hint(text_file: Path) -> None:
    with pytest.raises(UsageError, match=f"For a text of yours: --data text:{text_file}"):
        load_corpus(str(text_file))


def test_unknown_encoding_errors() -> None:
    with pytest.raises(UsageError, match="unknown 'strickt'. Did you mean 'strict'"):
        load_corpus("synthetic", encoding_errors="strickt")


def test_list_names_every_source_and_downloads_nothing() -> None:
    infos = {info.name: info for info in list_sources()}
    assert list(infos) == [
        "shakespeare",
        "tinyshakespeare",
        "fineweb",
        "wikitext2",
        "text:PATH",
        "shards:DIR",
        "synthetic",
    ]
    assert [info.name for info in infos.values() if not info.is_cached] == [
        "shakespeare",
        "tinyshakespeare",
        "fineweb",
        "wikitext2",
    ]


def test_tinyshakespeare_from_a_local_copy(shared_dir: Path) -> None:
    corpus = load_corpus("tinyshakespeare", data_dir=shared_dir / "data", offline=True)
    sizes = {split: len(corpus.works[split][0].data) for split in SPLITS}
    assert sizes == {"train": 948_123, "tune": 55_731, "test": 111_540}  # 1,115,394 - int(0.9 * 1,115,394)
    assert corpus.works["tune"][0].data.startswith(b"DUKE VINCENTIO:")
    assert list_sources(shared_dir / "data")[1].is_cached
