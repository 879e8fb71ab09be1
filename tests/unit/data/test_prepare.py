from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.data import prepare as prepare_module
from harness.data.folders import cache_folder
from harness.data.prepare import prepare, prepare_text
from harness.data.splits import SPLITS
from harness.data.tokenizers import ByteTokenizer, CharacterTokenizer, tokenizer_from_blob
from harness.errors import DataError, UsageError

PROSE = b"".join(b"Scene %d. Enter two lords and a fool, at dawn.\n\n" % index for index in range(300))


@pytest.fixture
def text_spec(tmp_path: Path) -> str:
    (tmp_path / "play.txt").write_bytes(PROSE)
    return f"text:{tmp_path / 'play.txt'}"


def test_one_byte_a_split(make_corpus: Any) -> None:
    data = prepare_text(make_corpus([b"a"], [b"b"], [b"c"]))
    assert (data.train.tokens.tolist(), data.tune.tokens.tolist()) == ([97], [98])
    assert data.open_test("test").tokens.tolist() == [99]


def test_works_follow_each_other_in_bytes(make_corpus: Any) -> None:
    data = prepare_text(make_corpus([b"ab", b"c"], [b"d"], [b"e"]))
    assert data.train.tokens.tobytes() == b"a\0b\0c\0", "uint16, little-endian"
    assert data.train.sha256 == hashlib.sha256(b"a\0b\0c\0").hexdigest()
    assert data.train.facts.text_sha256 == hashlib.sha256(b"abc").hexdigest()
    assert (data.train.num_tokens, data.train.num_bytes, data.train.facts.num_works) == (3, 3, 2)


@pytest.mark.parametrize("tokenizer", ["bytes", "characters", "sp400"])
def test_target_bytes_add_up_to_the_text(text_spec: str, tokenizer: str) -> None:
    if tokenizer.startswith("sp"):
        pytest.importorskip("sentencepiece")
    data = prepare(text_spec, tokenizer=tokenizer)
    streams = [data.train, data.tune, data.open_test("test")]
    assert [stream.split for stream in streams] == list(SPLITS)
    assert sum(stream.num_bytes for stream in streams) == len(PROSE)
    for stream in streams:
        assert int(data.target_bytes(stream, 0, stream.num_tokens).sum()) == stream.num_bytes
    assert b"".join(data.tokenizer.decode(stream.tokens) for stream in streams) == PROSE


def test_start_token_stands_before_each_work_and_for_no_bytes(make_corpus: Any) -> None:
    pytest.importorskip("sentencepiece")
    works = [PROSE, b"<s>", PROSE]
    data = prepare_text(make_corpus(works, [PROSE], [PROSE]), tokenizer="sp400")
    places = np.flatnonzero(data.train.tokens == data.tokenizer.start_id)
    assert len(places) == 3
    assert places[0] == 0
    assert data.target_bytes(data.train, 0, data.train.num_tokens)[places].tolist() == [0, 0, 0]
    first, last = data.train.tokens[1 : places[1]], data.train.tokens[places[2] + 1 :]
    assert data.tokenizer.decode(first) == data.tokenizer.decode(last) == PROSE


def test_default_tokenizers(text_spec: str) -> None:
    pytest.importorskip("sentencepiece")
    assert prepare("synthetic").tokenizer.kind == "bytes"
    assert prepare(text_spec).tokenizer.kind == "sentencepiece"


def test_synthetic_carries_the_nats_of_its_source() -> None:
    data = prepare("synthetic")
    assert data.source_nats is not None
    test = data.open_test("test")
    nats_per_byte = data.source_nats["test"] / test.num_bytes
    assert data.manifest()["source_nats"]["test"] == data.source_nats["test"]
    assert 1.5 < nats_per_byte < 3.0, "well below the log 27 = 3.30 of no knowledge at all"


def test_unseen_character_names_the_work(make_corpus: Any) -> None:
    corpus = make_corpus([b"abc"], [b"ab"], ["ab é".encode()])
    with pytest.raises(DataError, match=r"test0: character ' ' \(U\+0020\) at byte 2 .*--tokenizer bytes"):
        prepare_text(corpus, tokenizer="characters")


def test_tokenizer_that_loses_text_is_refused(make_corpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ByteTokenizer, "encode", lambda self, text: np.zeros(len(text), dtype="<u2"))
    with pytest.raises(DataError, match="train0: the bytes tokenizer loses text"):
        prepare_text(make_corpus([b"abc"], [b"d"], [b"e"]))


def test_tokenizer_of_an_artifact_is_used_as_it_is(text_spec: str) -> None:
    pytest.importorskip("sentencepiece")
    first = prepare(text_spec, tokenizer="sp400")
    stored = tokenizer_from_blob("sentencepiece", first.tokenizer.to_blob())
    again = prepare(text_spec, tokenizer=stored)
    assert again.manifest() == first.manifest()


def test_replaced_bytes_are_in_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(PROSE + b"\xff\xfe" + PROSE)
    spec = f"text:{tmp_path / 'bad.txt'}"
    with pytest.raises(DataError, match=f"not UTF-8 at byte {len(PROSE)}"):
        prepare(spec, tokenizer="bytes")
    manifest = prepare(spec, tokenizer="bytes", encoding_errors="replace").manifest()
    assert (manifest["encoding_errors"], manifest["num_replaced"]) == ("replace", 2)


def test_manifest_has_every_hash_and_no_folder_of_ours(text_spec: str) -> None:
    data = prepare(text_spec, tokenizer="characters")
    manifest = json.loads(json.dumps(data.manifest()))
    hashes = [manifest["corpus_sha256"], manifest["tokenizer"]["sha256"]]
    hashes += [manifest["splits"][split][key] for split in SPLITS for key in ("sha256", "text_sha256")]
    assert all(len(value) == 64 for value in hashes)
    assert len(set(hashes)) == 8
    assert str(cache_folder()) not in json.dumps(manifest)
    assert data.test_openings == [], "the manifest does not open the test split"


def cached_folder() -> Path:
    (folder,) = [path for path in (cache_folder() / "tokens").iterdir() if not path.name.startswith(".")]
    return folder


def forbid_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(prepare_module, "_encode_split", refuse)


def test_kept_tokens_are_mapped_and_not_made_again(text_spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(text_spec, tokenizer="characters")
    assert isinstance(first.train.tokens, np.memmap)
    forbid_encoding(monkeypatch)
    second = prepare(text_spec, tokenizer="characters")
    assert second.manifest() == first.manifest()
    assert isinstance(second.tokenizer, CharacterTokenizer)
    with pytest.raises(ValueError, match="read-only"):
        second.train.tokens[0] = 0


@pytest.mark.parametrize("name", ["train.bin", "tune.bin", "test.bin", "tokenizer.bin", "index.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "absent"])
def test_damaged_kept_tokens_are_made_again(text_spec: str, name: str, damage: str) -> None:
    expected = prepare(text_spec, tokenizer="characters").manifest()
    path = cached_folder() / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage != "absent":
        path.write_bytes({"flip": bytes(content), "cut": bytes(content[:-1]), "empty": b""}[damage])
    assert prepare(text_spec, tokenizer="characters").manifest() == expected
    assert cached_folder().joinpath(name).stat().st_size == len(content), "the folder is whole again"


def test_other_text_or_tokenizer_has_its_own_tokens(make_corpus: Any, tmp_path: Path) -> None:
    text = make_corpus([b"ab"], [b"a"], [b"b"])
    for corpus, tokenizer in [(text, "bytes"), (text, "characters"), (make_corpus([b"x"], [b"a"], [b"b"]), "bytes")]:
        prepare_text(corpus, tokenizer=tokenizer, cache_dir=tmp_path / "kept")
    assert len(list((tmp_path / "kept/tokens").iterdir())) == 3


def test_cache_that_cannot_be_written_is_done_without(make_corpus: Any, tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where a folder should be")
    data = prepare_text(make_corpus([b"ab"], [b"a"], [b"b"]), cache_dir=tmp_path / "blocked")
    assert data.train.tokens.tolist() == [97, 98]


def test_full_disk_leaves_no_half_written_tokens(
    make_corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, *_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    data = prepare_text(make_corpus([b"ab"], [b"a"], [b"b"]), cache_dir=tmp_path)
    assert data.train.tokens.tolist() == [97, 98]
    assert list((tmp_path / "tokens").iterdir()) == []


def test_tokens_put_there_by_another_process_meanwhile(
    make_corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = make_corpus([b"ab"], [b"a"], [b"b"])
    first = prepare_text(corpus, cache_dir=tmp_path)
    monkeypatch.setattr(prepare_module, "load_tokens", lambda folder: None)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # so that the rename meets a full folder
    assert prepare_text(corpus, cache_dir=tmp_path).manifest() == first.manifest()


@pytest.mark.parametrize("spec", ["nonsense", "text:/no/such/file"])
def test_wrong_specs_come_through(spec: str) -> None:
    with pytest.raises(UsageError):
        prepare(spec)


def test_poison_of_tune_and_test_reaches_no_batch_and_no_tokenizer(make_corpus: Any) -> None:
    """Bytes 1 and 2 occur only in the tuning and test text: no order, step or piece may show them."""
    pytest.importorskip("sentencepiece")
    from harness.data.batches import ORDERS, Batches

    corpus = make_corpus([PROSE], [b"\x01" * 2_000], [b"\x02" * 2_000])
    for tokenizer in ("bytes", "sp400"):
        data = prepare_text(corpus, tokenizer=tokenizer)
        poison = {int(data.tokenizer.encode(byte)[0]) for byte in (b"\x01", b"\x02")}
        learned = data.tokenizer.token_bytes()[260:] if tokenizer == "sp400" else []
        assert all(data.tokenizer.decode([260 + index]).isascii() for index in range(len(learned)))
        assert not any(data.tokenizer.decode([260 + index])[:1] in b"\1\2" for index in range(len(learned)))
        for order in ORDERS:
            batches = Batches(data.train, order=order, seed=0, context=16, micro_batch_sequences=8, num_micro=2)
            num_steps = 2 + 2 * data.train.num_tokens // (16 * 8 * 2)  # two epochs and more
            seen = {
                int(token)
                for step in range(num_steps)
                for micro in range(2)
                for part in batches.batch(step, micro)
                for token in np.unique(part)
            }
            assert not seen & poison
        assert data.test_openings == []


def test_training_works_with_the_test_file_gone(text_spec: str) -> None:
    """Whatever reads training batches cannot have read the test tokens: their file is no more."""
    from harness.data.batches import Batches

    data = prepare(text_spec, tokenizer="bytes")
    os.truncate(cached_folder() / "test.bin", 0)
    batches = Batches(data.train, order="shuffled", seed=0, context=16, micro_batch_sequences=8, num_micro=1)
    for step in range(200):
        batches.batch(step, 0)
    assert int(data.target_bytes(data.tune, 0, data.tune.num_tokens).sum()) == data.tune.num_bytes
