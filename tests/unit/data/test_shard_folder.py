from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.data.batches import ORDERS, Batches
from harness.data.prepare import prepare
from harness.data.shardfile import write_shard
from harness.data.splits import Work
from harness.data.tokenizers import ByteTokenizer, tokenizer_from_blob
from harness.errors import DataError, UsageError

pytest.importorskip("sentencepiece")
from harness.data.sentencepiece_bpe import SentencePieceTokenizer, train_sentencepiece  # noqa: E402

TEXT = b"The quality of mercy is not strain'd; it droppeth as the gentle rain.\n" * 30


@pytest.fixture(scope="module")
def tokenizer() -> SentencePieceTokenizer:
    return train_sentencepiece([Work(name="w", data=TEXT)], 330)


@pytest.fixture
def folder(tmp_path: Path, tokenizer: SentencePieceTokenizer) -> Path:
    """Two training shards of 600 and 400 tokens, two of validation, and the model."""
    (tmp_path / "made.model").write_bytes(tokenizer.to_blob())
    tokens = np.tile(tokenizer.encode(TEXT[:700]), 10)[:1_000]
    tokens[::90] = 1
    write_shard(tmp_path / "made_train_000000.bin", tokens[:600])
    write_shard(tmp_path / "made_train_000001.bin", tokens[600:])
    write_shard(tmp_path / "made_val_000000.bin", [1, 5, 6])
    write_shard(tmp_path / "made_val_000001.bin", [7])
    return tmp_path


def test_splits_of_a_folder(folder: Path) -> None:
    data = prepare(f"shards:{folder}")
    assert (data.train.num_tokens, data.tune.num_tokens) == (995, 5), "the first 0.5% are for tuning"
    assert data.open_test("test").tokens.tolist() == [1, 5, 6, 7]
    assert data.name == f"shards:{folder}"
    assert isinstance(data.tune.tokens, np.memmap), "mapped, not copied"


def test_shards_have_no_encoding_to_replace(folder: Path) -> None:
    with pytest.raises(UsageError, match="shards hold tokens, not text; leave --encoding-errors out"):
        prepare(f"shards:{folder}", encoding_errors="replace")


def test_bytes_are_those_of_the_text(folder: Path, tokenizer: SentencePieceTokenizer) -> None:
    """The model here is lossless, so only spaces after a start token make a difference to decoding."""
    data = prepare(f"shards:{folder}")
    tokens = data.train.tokens
    previous = np.concatenate([[1], tokens[:-1]])
    pieces = [tokenizer.decode([token]) for token in tokens]
    expected = [
        len(piece) - (before == 1 and piece.startswith(b" ")) for before, piece in zip(previous, pieces, strict=True)
    ]
    assert data.target_bytes(data.train, 0, 995).tolist() == expected
    assert data.target_bytes(data.train, 700, 800).tolist() == expected[700:800]
    assert data.train.num_bytes == sum(expected)


def test_manifest_changes_with_any_token(folder: Path) -> None:
    first = prepare(f"shards:{folder}").manifest()
    write_shard(folder / "made_val_000001.bin", [8])
    second = prepare(f"shards:{folder}").manifest()
    assert first["splits"]["train"] == second["splits"]["train"]
    assert first["splits"]["test"]["sha256"] != second["splits"]["test"]["sha256"]
    assert first["corpus_sha256"] != second["corpus_sha256"]


def test_training_never_sees_the_tuning_head_nor_validation(folder: Path) -> None:
    tokens = np.full(1_000, 10)
    tokens[:5] = 11
    write_shard(folder / "made_train_000000.bin", tokens[:300])
    write_shard(folder / "made_train_000001.bin", tokens[300:])
    write_shard(folder / "made_val_000000.bin", [12] * 50)
    data = prepare(f"shards:{folder}")
    assert set(data.tune.tokens.tolist()) == {11}
    for order in ORDERS:
        batches = Batches(data.train, order=order, seed=0, context=16, micro_batch_sequences=4, num_micro=1)
        seen = {int(token) for step in range(100) for part in batches.batch(step, 0) for token in part.ravel()}
        assert seen == {10}


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        prepare(f"shards:{tmp_path / 'absent'}")


def test_tokenizer_by_name_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="--tokenizer bytes: shards come with their tokenizer"):
        prepare(f"shards:{folder}", tokenizer="bytes")


@pytest.mark.parametrize("kind", ["train", "val"])
def test_missing_shards(folder: Path, kind: str) -> None:
    for path in folder.glob(f"*_{kind}_*"):
        path.unlink()
    with pytest.raises(DataError, match=rf"no \*_{kind}_\*\.bin"):
        prepare(f"shards:{folder}")


def test_missing_and_second_model(folder: Path) -> None:
    (folder / "other.model").write_bytes((folder / "made.model").read_bytes())
    with pytest.raises(DataError, match=r"found made\.model, other\.model"):
        prepare(f"shards:{folder}")
    for path in folder.glob("*.model"):
        path.unlink()
    with pytest.raises(DataError, match=r"one SentencePiece \*\.model must lie beside the shards.*found none"):
        prepare(f"shards:{folder}")


def test_broken_model(folder: Path) -> None:
    (folder / "made.model").write_bytes(b"junk")
    with pytest.raises(DataError, match="no SentencePiece model"):
        prepare(f"shards:{folder}")


def test_token_outside_the_vocabulary(folder: Path, tokenizer: SentencePieceTokenizer) -> None:
    write_shard(folder / "made_val_000001.bin", [5, tokenizer.vocab_size])
    message = rf"made_val_000001\.bin: token {tokenizer.vocab_size} is outside the tokenizer's vocabulary"
    with pytest.raises(DataError, match=message):
        prepare(f"shards:{folder}")


def test_too_few_tokens_to_tune(folder: Path) -> None:
    (folder / "made_train_000001.bin").unlink()
    write_shard(folder / "made_train_000000.bin", [5] * 49)
    with pytest.raises(DataError, match="49 training tokens are too few"):
        prepare(f"shards:{folder}")


def test_tokenizer_of_an_artifact_must_be_that_of_the_shards(folder: Path, tokenizer: SentencePieceTokenizer) -> None:
    stored = tokenizer_from_blob("sentencepiece", tokenizer.to_blob())
    expected = prepare(f"shards:{folder}").manifest()
    assert prepare(f"shards:{folder}", tokenizer=stored).manifest() == expected
    with pytest.raises(DataError, match="the tokenizer in use has"):
        prepare(f"shards:{folder}", tokenizer=ByteTokenizer())
    (folder / "made.model").unlink()
    assert prepare(f"shards:{folder}", tokenizer=stored).manifest() == expected
