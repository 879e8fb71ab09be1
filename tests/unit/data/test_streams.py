from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.splits import Split
from harness.data.streams import SplitFacts, TokenData, TokenStream, measure_tokens
from harness.data.tokenizers import ByteTokenizer


def stream_of(*segments: list[int], split: Split = "train") -> TokenStream:
    total = sum(map(len, segments))
    facts = SplitFacts(sha256="0" * 64, num_tokens=total, num_bytes=total)
    return TokenStream(split, [np.array(segment, dtype="<u2") for segment in segments], facts)


@given(
    st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=5), min_size=1, max_size=6),
    st.data(),
)
def test_reading_across_files_is_reading_one_row(segments: list[list[int]], data: st.DataObject) -> None:
    row = [token for segment in segments for token in segment]
    stream = stream_of(*segments)
    start = data.draw(st.integers(0, len(row)))
    stop = data.draw(st.integers(start, len(row)))
    assert stream.read(start, stop).tolist() == row[start:stop]
    assert stream.tokens.tolist() == row


@given(st.integers(0, 30), st.integers(1, 40))
def test_reading_around_the_end(start: int, count: int) -> None:
    stream = stream_of([0, 1, 2], [3, 4], [5, 6])
    assert stream.read_around(start, count).tolist() == [(start + index) % 7 for index in range(count)]


def test_one_file_is_not_copied() -> None:
    segment = np.arange(5, dtype="<u2")
    facts = SplitFacts(sha256="", num_tokens=5, num_bytes=5)
    stream = TokenStream("train", [segment], facts)
    assert np.shares_memory(stream.read(1, 3), segment)
    assert np.shares_memory(stream.tokens, segment)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 6), (3, 2)])
def test_nothing_outside_the_split_is_read(start: int, stop: int) -> None:
    with pytest.raises(AssertionError):
        stream_of([1, 2, 3, 4, 5]).read(start, stop)


def token_data(opened: list[str]) -> TokenData:
    facts = SplitFacts(sha256="ab", num_tokens=4, num_bytes=4)

    def open_split(split: Split) -> TokenStream:
        opened.append(split)
        return stream_of([7, 8], [9, 7], split=split)

    return TokenData(
        name="made",
        tokenizer=ByteTokenizer(),
        streams=open_split,
        facts=dict.fromkeys(("train", "tune", "test"), facts),
        count_bytes=lambda previous, targets: (previous * 100 + targets).astype(np.int32),
        provenance={"corpus_sha256": "cd"},
    )


def test_test_split_is_opened_on_demand_only_and_each_opening_is_kept() -> None:
    opened: list[str] = []
    data = token_data(opened)
    data.manifest()
    data.target_bytes(data.tune, 0, 4)
    assert opened == ["train", "tune"]
    assert data.test_openings == []
    assert data.open_test("score").split == "test"
    data.open_test("score again")
    assert opened == ["train", "tune", "test", "test"]
    assert data.test_openings == ["score", "score again"]


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, 4, [1007, 708, 809, 907]),  # the first follows the start token, 10
        (0, 1, [1007]),
        (1, 3, [708, 809]),
        (3, 4, [907]),
        (0, 0, []),
        (2, 2, []),
    ],
)
def test_target_bytes_see_the_token_before(start: int, stop: int, expected: list[int]) -> None:
    data = token_data([])
    assert data.target_bytes(data.tune, start, stop).tolist() == expected


def test_measured_in_chunks_as_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    segments = [np.arange(10, dtype="<u2"), np.arange(100, 117, dtype="<u2")]

    def count(previous: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return (previous * 3 + targets).astype(np.int32)

    whole = measure_tokens([np.concatenate(segments)], count, start_id=5)
    monkeypatch.setattr("harness.data.streams._CHUNK_TOKENS", 4)
    assert measure_tokens(segments, count, start_id=5) == whole
    row = [5, *np.concatenate(segments).tolist()]
    by_hand = sum(previous * 3 + target for previous, target in zip(row, row[1:], strict=False))
    assert whole[1:] == (27, by_hand)


def test_manifest_is_json() -> None:
    manifest = json.loads(json.dumps(token_data([]).manifest()))
    assert manifest["corpus_sha256"] == "cd"
    assert manifest["splits"]["test"]["sha256"] == "ab"
    assert manifest["tokenizer"]["kind"] == "bytes"
