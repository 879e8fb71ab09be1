from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.splits import Work
from harness.data.tokenizers import (
    ByteTokenizer,
    CharacterTokenizer,
    Tokenizer,
    tokenizer_from_blob,
    train_tokenizer,
)
from harness.errors import ArtifactError, DataError, MissingExtraError, UsageError

PROSE = "The quality of mercy is not strain'd;\nIt droppeth as the gentle rain from heaven\n\n" * 40
HARD = "<s></s><unk><pad><0x41> \u2581\u2585 \u2581\u2581x\ufffd\ufb01\u00bd\r\n\t\0\ufeff  é€😀 a\u2581"


def sentencepiece(text: str = PROSE, vocab_size: int = 400) -> Tokenizer:
    pytest.importorskip("sentencepiece")
    from harness.data.sentencepiece_bpe import train_sentencepiece

    return train_sentencepiece([Work(name="w", data=text.encode())], vocab_size)


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return sentencepiece()


def assert_lossless(tokenizer: Tokenizer, text: bytes) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert int(tokenizer.token_bytes()[tokens].sum()) == len(text)
    assert tokens.dtype == np.dtype("<u2")


@pytest.mark.parametrize("text", ["", "a", "\n", "\u2581", "\0", HARD])
def test_edge_texts(trained: Tokenizer, text: str) -> None:
    assert_lossless(trained, text.encode())
    assert_lossless(ByteTokenizer(), text.encode())
    if text:
        assert_lossless(CharacterTokenizer.train([Work(name="w", data=text.encode())]), text.encode())


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=st.one_of(st.characters(codec="utf-8"), st.sampled_from(HARD))))
def test_sentencepiece_loses_nothing(text: str) -> None:
    assert_lossless(CACHED, text.encode())


@given(st.binary())
def test_bytes_lose_nothing(data: bytes) -> None:
    assert_lossless(ByteTokenizer(), data)
    assert ByteTokenizer().encode(data).tolist() == list(data)


@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=1))
def test_characters_lose_nothing(text: str) -> None:
    tokenizer = CharacterTokenizer.train([Work(name="w", data=text.encode())])
    assert_lossless(tokenizer, text.encode())
    assert tokenizer.vocab_size == len(set(text))
    assert len(tokenizer.encode(text.encode())) == len(text)


try:
    CACHED: Any = sentencepiece(PROSE + HARD)
except pytest.skip.Exception:
    CACHED = ByteTokenizer()


def test_byte_tokenizer_by_hand() -> None:
    tokenizer = ByteTokenizer()
    assert (tokenizer.vocab_size, tokenizer.start_id, tokenizer.separator) == (256, 10, False)
    assert tokenizer.encode("é\n".encode()).tolist() == [0xC3, 0xA9, 10]


def test_character_tokenizer_by_hand() -> None:
    works = [Work(name="a", data="bé".encode()), Work(name="b", data=b"\nab")]
    tokenizer = CharacterTokenizer.train(works)
    # in the order of code points: newline, a, b, é
    assert tokenizer.to_blob() == "\nabé".encode()
    assert tokenizer.encode("éba\n".encode()).tolist() == [3, 2, 1, 0]
    assert tokenizer.token_bytes().tolist() == [1, 1, 1, 2]
    assert (tokenizer.start_id, tokenizer.separator) == (0, False)


def test_start_of_characters_is_the_newline_wherever_it_stands() -> None:
    assert CharacterTokenizer.train([Work(name="w", data=b"\t\nb")]).start_id == 1
    assert CharacterTokenizer.train([Work(name="w", data=b"ab")]).start_id == 0


def test_unseen_character_is_named_with_its_place() -> None:
    tokenizer = CharacterTokenizer.train([Work(name="w", data="aé".encode())])
    with pytest.raises(DataError, match=r"character 'z' \(U\+007A\) at byte 3 .*--tokenizer bytes"):
        tokenizer.encode("éazz".encode())
    with pytest.raises(DataError, match=r"U\+1F600"):
        tokenizer.encode("😀".encode())


@pytest.mark.parametrize("tokenizer", [CharacterTokenizer("ab"), CACHED])
def test_invalid_utf8_is_refused_by_what_needs_characters(tokenizer: Tokenizer) -> None:
    if tokenizer.kind != "bytes":
        with pytest.raises(DataError, match="not UTF-8 at byte 1"):
            tokenizer.encode(b"a\xff")


def test_control_pieces_in_text_are_text(trained: Tokenizer) -> None:
    tokens = trained.encode(b"<s>a</s><unk>")
    assert not {0, 1, 2, 3} & set(tokens.tolist())
    assert trained.decode([1, *tokens.tolist(), 2]) == b"<s>a</s><unk>", "control tokens stand for no bytes"


def test_space_mark_becomes_its_three_bytes(trained: Tokenizer) -> None:
    tokens = trained.encode("\u2581".encode()).tolist()
    assert [trained.decode([token]) for token in tokens] == [b"\xe2", b"\x96", b"\x81"]


@pytest.mark.parametrize("text", ["<s> <s> </s> <0x41> <unk> " * 200, "a\u2581b \u2581 c " * 200, "a\u2585b " * 200])
def test_training_on_hard_text(text: str) -> None:
    assert_lossless(sentencepiece(text), text.encode())


def test_more_characters_than_pieces_fall_back_to_bytes() -> None:
    text = "".join(chr(0x4E00 + index) * (3000 - index) for index in range(0, 3000, 4))
    tokenizer = sentencepiece(text, 512)
    assert tokenizer.vocab_size <= 512
    assert_lossless(tokenizer, text.encode())
    assert len(tokenizer.encode("\u4e00".encode())) == 1, "the most frequent has a piece"
    assert len(tokenizer.encode(chr(0x4E00 + 2996).encode())) == 3, "the rarest is three bytes"


def test_training_is_deterministic() -> None:
    first, second = sentencepiece(), sentencepiece()
    assert first.to_blob() == second.to_blob()
    assert first.sha256 == second.sha256 != sentencepiece(PROSE, 380).sha256


def test_long_text_is_cut_and_comes_back(trained: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.data.sentencepiece_bpe.ENCODE_CHARACTERS", 50)
    assert_lossless(trained, (PROSE + HARD + "x" * 200).encode())


def test_sentencepiece_ids(trained: Tokenizer) -> None:
    assert (trained.start_id, trained.separator, trained.is_lossless) == (1, True, True)
    assert trained.token_bytes()[:4].tolist() == [0, 0, 0, 0], "pad, start, end and unknown stand for nothing"
    assert trained.token_bytes()[4:260].tolist() == [1] * 256


def test_nothing_to_learn_is_one_error() -> None:
    with pytest.raises(DataError, match="cannot learn from 3 bytes of training text; use --tokenizer bytes"):
        sentencepiece("\n\n\n")


def test_absent_sentencepiece_names_the_extra(monkeypatch: pytest.MonkeyPatch, make_corpus: Any) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MissingExtraError, match=r"claims-harness\[train\]"):
        train_tokenizer("sp400", make_corpus([b"text"], [b"t"], [b"t"]))


@pytest.mark.parametrize("spec", ["bytes", "characters", "sp400"])
def test_tokenizer_is_made_from_the_training_split_alone(make_corpus: Any, spec: str) -> None:
    if spec.startswith("sp"):
        pytest.importorskip("sentencepiece")
    train = [PROSE.encode()]
    first = train_tokenizer(spec, make_corpus(train, [b"POISON " * 500], [b"VENOM " * 500]))
    second = train_tokenizer(spec, make_corpus(train, [b"x"], [b"y"]))
    assert first.to_blob() == second.to_blob()
    if spec == "characters":
        assert b"P" not in first.to_blob()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("byte", "unknown tokenizer 'byte'. Did you mean 'bytes'"),
        ("sp", "unknown tokenizer 'sp'"),
        ("sp-5", "unknown tokenizer"),
        ("sp319", "320 to 65536"),
        ("sp65537", "320 to 65536"),
    ],
)
def test_wrong_tokenizers(make_corpus: Any, spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train_tokenizer(spec, make_corpus([b"abc"], [b"d"], [b"e"]))


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), CharacterTokenizer("\nabé"), CACHED])
def test_blob_rebuilds_the_tokenizer(tokenizer: Tokenizer) -> None:
    again = tokenizer_from_blob(tokenizer.kind, tokenizer.to_blob())
    text = "é\nabba".encode()
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert (again.sha256, again.vocab_size, again.start_id) == (
        tokenizer.sha256,
        tokenizer.vocab_size,
        tokenizer.start_id,
    )


@pytest.mark.parametrize(
    ("kind", "blob"),
    [
        ("bytes", b"x"),
        ("characters", b""),
        ("characters", b"\xff"),
        ("characters", b"ba"),
        ("characters", b"aa"),
        ("pickle", b""),
        ("sentencepiece", b""),
        ("sentencepiece", b"junk"),
        ("sentencepiece", b"\x0a\x05\x0a\x01a"),
    ],
)
def test_broken_blob_is_one_error(kind: str, blob: bytes) -> None:
    if kind == "sentencepiece":
        pytest.importorskip("sentencepiece")
    with pytest.raises(ArtifactError, match="tokenizer: "):
        tokenizer_from_blob(kind, blob)


@pytest.mark.parametrize("ids", [[256], [-1], [0, 300]])
def test_id_outside_the_vocabulary(ids: list[int]) -> None:
    with pytest.raises(DataError, match="outside the vocabulary of 256"):
        ByteTokenizer().decode(ids)
