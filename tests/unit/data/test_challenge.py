from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.data import challenge
from harness.data.shardfile import read_shard
from harness.data.shards import prepare
from harness.metrics import bits_per_byte
from harness.scoring import EvalMode

pytest.importorskip("torch")
from harness.evaluate import iter_windows  # noqa: E402


class FakeModel:
    """Six pieces that show every case, with the methods of a SentencePieceProcessor that are used."""

    pieces = ("<s>", "<0x41>", "\u2581the", "\u2581", "é", "unused")
    kinds = ("control", "byte", "normal", "normal", "normal", "unused")

    def vocab_size(self) -> int:
        return len(self.pieces)

    def id_to_piece(self, token: int) -> str:
        return self.pieces[token]

    def is_control(self, token: int) -> bool:
        return self.kinds[token] == "control"

    def is_byte(self, token: int) -> bool:
        return self.kinds[token] == "byte"

    def is_unused(self, token: int) -> bool:
        return self.kinds[token] == "unused"

    def is_unknown(self, token: int) -> bool:
        return False


def test_tables_by_hand() -> None:
    tables = challenge.byte_tables(FakeModel(), vocab_size=8)
    assert tables.base_bytes.tolist() == [0, 1, 3, 0, 2, 0, 0, 0]
    assert tables.has_leading_space.tolist() == [False, False, True, True, False, False, False, False]
    # control, unused, and the two ids that the model does not have
    assert tables.is_boundary.tolist() == [True, False, False, False, False, True, True, True]


@pytest.mark.parametrize(
    ("previous", "target", "num_bytes"),
    [
        (1, 2, 4),  # " the" after a byte
        (0, 2, 3),  # "the" after the start of a document: its space is not counted
        (5, 2, 3),  # the same after an unused id
        (7, 2, 3),  # and after an id beyond the model
        (1, 3, 1),
        (0, 3, 0),
        (0, 4, 2),
        (0, 1, 1),
        (2, 0, 0),
        (2, 7, 0),
    ],
)
def test_bytes_of_a_target(previous: int, target: int, num_bytes: int) -> None:
    tables = challenge.byte_tables(FakeModel(), vocab_size=8)
    assert tables.count_bytes(np.array([previous]), np.array([target])).tolist() == [num_bytes]


@pytest.mark.parametrize(
    ("num_tokens", "context", "num_targets"), [(0, 4, 0), (1, 4, 0), (4, 4, 0), (5, 4, 4), (8, 4, 4), (9, 4, 8)]
)
def test_only_whole_windows_are_scored(num_tokens: int, context: int, num_targets: int) -> None:
    mode = EvalMode(mode="challenge", context=context, stride=context)
    assert sum(window.scored for window in iter_windows(max(num_tokens - 1, 0), mode)) == num_targets


def coverage(total: int, context: int, stride: int) -> dict[str, int]:
    counts = np.zeros(total, dtype=int)
    windows = list(iter_windows(total, EvalMode(mode="challenge-sliding", context=context, stride=stride)))
    for window in windows:
        stop = window.start + window.length
        assert 0 < window.scored <= window.length <= context
        counts[stop - window.scored : stop] += 1
    return {
        "windows": len(windows),
        "scored": int(counts.sum()),
        "min_cover": int(counts.min()),
        "max_cover": int(counts.max()),
        "multi": int((counts > 1).sum()),
    }


def test_sliding_windows_by_hand() -> None:
    # twelve targets, windows of 4, stride 2: the last two windows both end at twelve and score the same tail
    windows = iter_windows(12, EvalMode(mode="challenge-sliding", context=4, stride=2))
    spans = [(w.start, w.start + w.length - w.scored, w.start + w.length) for w in windows]
    assert spans == [(0, 0, 4), (2, 4, 6), (4, 6, 8), (6, 8, 10), (8, 10, 12), (10, 10, 12)]


def facts(shared_dir: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((shared_dir / "fixtures/bpb_and_basis_facts.json").read_text())
    return data


def test_sliding_coverage_as_published(shared_dir: Path) -> None:
    # a text that is no multiple of the window is cut before it comes here, as in the contest's own scorer
    cases = [case for case in facts(shared_dir)["sliding"] if case["total"] % case["seq"] == 0]
    assert len(cases) >= 2
    for case in cases:
        expected = {key: case[key] for key in ("windows", "scored", "min_cover", "max_cover", "multi")}
        assert coverage(case["total"], case["seq"], case["stride"]) == expected


@pytest.fixture
def published_model(shared_dir: Path) -> Any:
    spm = pytest.importorskip("sentencepiece")
    return spm.SentencePieceProcessor(str(shared_dir / "data/challenge_format/ts_1024_bpe.model"))


def test_tables_as_published(shared_dir: Path, published_model: Any) -> None:
    lut = facts(shared_dir)["lut"]
    tables = challenge.byte_tables(published_model)
    inside = ~tables.is_boundary
    assert int(tables.base_bytes.sum()) == lut["sum_base_bytes"] == 2463
    assert int(tables.has_leading_space.sum()) == lut["n_leading_space"]
    assert np.flatnonzero(tables.is_boundary).tolist() == lut["boundary_ids"]
    assert int(tables.base_bytes.max()) == lut["max_base_bytes"]
    assert np.flatnonzero((tables.base_bytes == 0) & inside).tolist() == lut["zero_byte_ids"]


def test_example_as_published(shared_dir: Path, published_model: Any) -> None:
    example = facts(shared_dir)["example"]
    ids = np.array(example["ids"])
    tables = challenge.byte_tables(published_model)
    assert tables.count_bytes(ids[:-1], ids[1:]).tolist() == example["bytes_per_target"]


@pytest.mark.parametrize("context", [256, 512, 1024])
def test_uniform_model_on_the_published_validation(shared_dir: Path, published_model: Any, context: int) -> None:
    expected = facts(shared_dir)[f"val_seq{context}"]
    tokens = read_shard(shared_dir / "data/challenge_format/fineweb_val_000000.bin").astype(np.int64)
    mode = EvalMode(mode="challenge", context=context, stride=context)
    num_targets = sum(window.scored for window in iter_windows(len(tokens) - 1, mode))
    tables = challenge.byte_tables(published_model)
    num_bytes = int(tables.count_bytes(tokens[:num_targets], tokens[1 : num_targets + 1]).sum())
    assert (num_targets, num_bytes) == (expected["tokens"], expected["bytes"])
    bpb = bits_per_byte(num_targets * math.log(1024), num_bytes)
    assert bpb == pytest.approx(expected["bpb_uniform"], rel=1e-12)


def test_data_of_the_published_shards(shared_dir: Path) -> None:
    pytest.importorskip("sentencepiece")
    data = prepare(f"shards:{shared_dir / 'data/challenge_format'}")
    test = data.open_test("test")
    assert (data.train.num_tokens + data.tune.num_tokens, test.num_tokens) == (388_837, 45_658)
    assert int(data.target_bytes(test, 1, 45_569).sum()) == 110_334
    assert (data.tokenizer.start_id, data.tokenizer.vocab_size, data.tokenizer.is_lossless) == (1, 1024, False)


def test_bytes_agree_with_decoding_by_a_challenge_like_model() -> None:
    """Trained here with the challenge's options: the bytes of the targets are those of the decoded text."""
    spm = pytest.importorskip("sentencepiece")
    written = io.BytesIO()
    text = "It was 1609 in the café; the sonnets were printed, price 5d."
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter([text] * 50),
        model_writer=written,
        model_type="bpe",
        vocab_size=320,
        character_coverage=0.999,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="nmt_nfkc",
        add_dummy_prefix=False,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    model = spm.SentencePieceProcessor(model_proto=written.getvalue())
    tables = challenge.byte_tables(model)
    for sample in (text, "😀 unseen ½ ﬁ", "two  spaces\nand a line", "x"):
        ids = np.array([1, *model.encode(sample)])
        counted = int(tables.count_bytes(ids[:-1], ids[1:]).sum())
        assert counted == len(model.decode(ids[1:].tolist()).encode())
