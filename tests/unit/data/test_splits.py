from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.splits import (
    SPLITS,
    Work,
    cut_at_paragraph,
    cut_at_shares,
    cut_tiny_shakespeare,
    split_by_content,
    split_by_name,
)
from harness.errors import DataError


def text_of(splits: object, split: str) -> bytes:
    return b"".join(work.data for work in splits[split])  # type: ignore[index]


@pytest.mark.parametrize("data", [b"", b"a", b"ab", "é€".encode()])
def test_too_short_a_text_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="cannot be split into training, tuning and test text"):
        cut_at_shares(Work(name="short.txt", data=data))


def test_three_characters_are_the_shortest_text() -> None:
    parts = cut_at_shares(Work(name="w", data="é€x".encode()))
    assert [text_of(parts, split) for split in SPLITS] == ["é".encode(), "€".encode(), b"x"]


def test_cut_takes_the_nearest_paragraph_within_reach() -> None:
    # 400 bytes, reach 10: borders at 352 (one past a blank line), 361 and 390.
    text = bytearray(b"x" * 400)
    for border in (352, 361, 390):
        text[border - 2 : border] = b"\n\n"
    assert cut_at_paragraph(bytes(text), 360) == 361
    assert cut_at_paragraph(bytes(text), 356) == 352
    assert cut_at_paragraph(bytes(text), 376) == 376, "no paragraph within ten bytes"


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n", b"\n \t\n", b"\n\n\n"])
def test_every_kind_of_blank_line_is_a_border(blank: bytes) -> None:
    text = b"a" * 200 + blank + b"b" * 200
    assert cut_at_paragraph(text, 205) == 200 + len(blank)


def test_no_character_is_cut() -> None:
    text = "€".encode() * 100
    for target in range(295):
        text[: cut_at_paragraph(text, target)].decode()


@given(st.text(min_size=3))
def test_a_single_work_is_cut_without_loss(text: str) -> None:
    data = text.encode(errors="replace")
    parts = cut_at_shares(Work(name="w", data=data))
    pieces = [text_of(parts, split) for split in SPLITS]
    assert b"".join(pieces) == data
    assert all(pieces)
    for piece in pieces:
        piece.decode()


def test_shares_of_a_long_single_work() -> None:
    data = b"".join(b"paragraph %06d\n\n" % index for index in range(10_000))
    parts = cut_at_shares(Work(name="w", data=data))
    assert len(text_of(parts, "train")) / len(data) == pytest.approx(0.90, abs=0.0002)
    assert len(text_of(parts, "test")) / len(data) == pytest.approx(0.05, abs=0.0002)
    assert text_of(parts, "test").startswith(b"paragraph ")


def test_tiny_shakespeare_test_is_the_published_last_tenth() -> None:
    data = b"0123456789" * 10 + b"x"  # int(0.9 * 101) = 90
    parts = cut_tiny_shakespeare([Work(name="t", data=data)])
    assert text_of(parts, "test") == data[90:]
    assert text_of(parts, "train") + text_of(parts, "tune") == data[:90]
    assert text_of(parts, "tune") == data[85:90]


def works_of(*sizes: int) -> list[Work]:
    return [Work(name=f"w{index}", data=b"%d" % index * size) for index, size in enumerate(sizes)]


def test_whole_works_in_any_order_of_names() -> None:
    works = [Work(name=f"w{index}", data=b"%03d " % index * 100) for index in range(100)]
    first = split_by_content(works)
    renamed = [Work(name=f"v{99 - index}", data=work.data) for index, work in reversed(list(enumerate(works)))]
    second = split_by_content(renamed)
    for split in SPLITS:
        assert [work.data for work in first[split]] == [work.data for work in reversed(second[split])]
    assert (len(first["tune"]), len(first["test"])) == (5, 5), "5% of 100 equal works"
    assert sorted(work.name for split in SPLITS for work in first[split]) == sorted(w.name for w in works)


@given(st.lists(st.integers(1, 5_000), min_size=3, max_size=30))
def test_each_split_gets_a_work_and_none_twice(sizes: list[int]) -> None:
    works = [Work(name=f"w{index}", data=b"%d:" % index + b"x" * size) for index, size in enumerate(sizes)]
    parts = split_by_content(works)
    names = [work.name for split in SPLITS for work in parts[split]]
    assert sorted(names) == sorted(work.name for work in works)
    assert all(parts[split] for split in SPLITS)
    assert max(len(w.data) for w in works) == max(len(w.data) for w in parts["train"])


def test_works_with_the_same_text_stay_together() -> None:
    works = [Work(name=f"w{index}", data=b"text %d" % (index // 2) * 50) for index in range(80)]
    parts = split_by_content(works)
    texts = [{work.data for work in parts[split]} for split in SPLITS]
    assert not (texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2])


def test_two_works_are_cut_each() -> None:
    parts = split_by_content([Work(name="a", data=b"a" * 100), Work(name="b", data=b"b" * 200)])
    assert [work.name for work in parts["test"]] == ["a (test)", "b (test)"]
    assert [len(work.data) for work in parts["test"]] == [5, 10]


def test_split_by_name() -> None:
    parts = split_by_name(tune=("w1",), test=("w0",))(works_of(1, 1, 1, 1))
    assert {split: [work.name for work in parts[split]] for split in SPLITS} == {
        "train": ["w2", "w3"],
        "tune": ["w1"],
        "test": ["w0"],
    }
