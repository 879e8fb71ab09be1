from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.shardfile import read_shard, write_shard
from harness.errors import DataError


def shard_bytes(tokens: list[int], *, magic: int = 20240520, version: int = 1, count: int | None = None) -> bytes:
    """The format, written out by hand: three int32, 253 zeros, uint16 tokens, little-endian."""
    num_tokens = len(tokens) if count is None else count
    header = struct.pack("<3i", magic, version, num_tokens) + bytes(253 * 4)
    return header + struct.pack(f"<{len(tokens)}H", *tokens)


@pytest.mark.parametrize("tokens", [[0], [65_535], [1, 2, 3]])
def test_written_as_by_hand_and_read_back(tmp_path: Path, tokens: list[int]) -> None:
    write_shard(tmp_path / "x.bin", tokens)
    assert (tmp_path / "x.bin").read_bytes() == shard_bytes(tokens)
    assert read_shard(tmp_path / "x.bin").tolist() == tokens
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


@given(st.lists(st.integers(0, 65_535), min_size=1))
def test_any_tokens_come_back(tmp_path_factory: pytest.TempPathFactory, tokens: list[int]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.bin"
    write_shard(path, np.array(tokens))
    assert read_shard(path).tolist() == tokens


def test_tokens_are_mapped_read_only(tmp_path: Path) -> None:
    write_shard(tmp_path / "x.bin", [1, 2])
    tokens = read_shard(tmp_path / "x.bin")
    assert isinstance(tokens, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a token shard"),
        (b"\0" * 1023, "not a token shard"),
        (b"PK\x03\x04" + b"\0" * 2000, "not a token shard"),
        (shard_bytes([1], magic=20240521), "not a token shard"),
        (shard_bytes([1], version=2), "shard version 2, expected 1"),
        (shard_bytes([]), "has no tokens"),
        (shard_bytes([1, 2], count=3), r"1,028 bytes, but 3 tokens \(its header\) are 1,030 bytes. Was the download"),
        (shard_bytes([1, 2], count=1), "1,028 bytes, but 1 tokens"),
        (shard_bytes([1, 2]) + b"\0", "1,029 bytes"),
        (shard_bytes([1, 2], count=-1), "1,028 bytes, but -1 tokens"),
        (shard_bytes([1], count=2**31 - 1), "4,294,968,318 bytes"),
    ],
)
def test_each_fault_of_a_shard_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.bin").write_bytes(content)
    with pytest.raises(DataError, match=rf"bad\.bin: .*{message}"):
        read_shard(tmp_path / "bad.bin")


def test_absent_shard(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_shard(tmp_path / "absent.bin")


@pytest.mark.parametrize("tokens", [[65_536], [-1], [[1, 2]]])
def test_tokens_a_shard_cannot_hold(tmp_path: Path, tokens: object) -> None:
    with pytest.raises(DataError, match="from 0 to 65,535"):
        write_shard(tmp_path / "x.bin", tokens)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_published_shards_are_written_back_byte_for_byte(shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "data/challenge_format/fineweb_val_000000.bin"
    write_shard(tmp_path / "again.bin", read_shard(source))
    assert (tmp_path / "again.bin").read_bytes() == source.read_bytes()
