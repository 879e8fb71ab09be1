from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from artifact_factory import write_good
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.artifact.inspect import Inspection, TensorRow, inspect_file
from harness.artifact.inspection import escape
from harness.errors import ArtifactError
from harness.views import inspection_view


def rows_of(found: Inspection) -> dict[str, TensorRow]:
    assert sum(found.bytes_by_part.values()) == found.file_bytes
    return {row.name: row for row in found.rows}


def safetensors_bytes(header: dict[str, Any], data: bytes = b"") -> bytes:
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


GgufTensors = list[tuple[str, tuple[int, ...], int, int]]


def gguf_bytes(tensors: GgufTensors, data: bytes, keys: bytes = b"", n: int = 0) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), n) + keys
    for name, shape, kind, offset in tensors:
        sizes = b"".join(struct.pack("<Q", size) for size in reversed(shape))
        head += text(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, offset)
    return head + b"\0" * (-len(head) % 32) + data


def torch_bytes(value: object, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def tied_state() -> dict[str, object]:
    weight = torch.arange(12.0).reshape(3, 4)
    return {"model": {"emb": weight, "head": weight}, "half": torch.zeros(5, dtype=torch.float16), "step": 7}


def test_our_artifact(tmp_path: Path) -> None:
    path = write_good(tmp_path / "a.bin")
    found = inspect_file(path)
    rows = rows_of(found)
    assert found.format == "claims-harness artifact"
    assert found.file_bytes == path.stat().st_size
    assert found.num_params_stored == 512 + 32 + 768 + 1 + 16
    assert found.num_params_effective is None
    assert rows["head"].tied_to == "embedding"
    assert found.ties == {"embedding": ("head",)}
    assert rows["blocks.0.q"].shape == (2, 24, 16)
    assert rows["blocks.0.q"].dtype.startswith("int6-step (")
    assert rows["mask"].num_stored == 0


def test_damaged_artifact_is_one_error(tmp_path: Path) -> None:
    path = write_good(tmp_path / "a.bin")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="truncated or altered"):
        inspect_file(path)


def test_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "m.safetensors"
    save_file({"w": torch.zeros(2, 3), "b": torch.zeros(5, dtype=torch.bfloat16)}, path, metadata={"made": "by\x1b"})
    found = inspect_file(path)
    rows = rows_of(found)
    assert (rows["w"].shape, rows["w"].dtype, rows["w"].stored_bytes) == ((2, 3), "F32", 24)
    assert (rows["b"].shape, rows["b"].dtype, rows["b"].stored_bytes) == ((5,), "BF16", 10)
    assert found.num_params_stored == found.num_params_effective == 11
    assert "\x1b" not in "".join(found.notes)


def test_safetensors_that_lie_get_notes(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = {"a": entry, "b": entry, "c": entry | {"shape": [2**40]}, "d": entry | {"data_offsets": [8, 999]}}
    path.write_bytes(safetensors_bytes(header | {"e": entry | {"dtype": "F3"}}, b"\0" * 8))
    notes = "\n".join(inspect_file(path).notes)
    for expected in ("b overlaps a", "c: 1099511627776 numbers of F32 in 8 bytes", "d lies at", "e: unknown type F3"):
        assert expected in notes


def test_gguf(tmp_path: Path) -> None:
    # Q4_0: 64 numbers are two blocks of 18 bytes with a scale each; Q6_K: one block of 210 bytes with 17 scales.
    data = gguf_bytes(
        [("token_embd.weight", (2, 32), 2, 0), ("blk.0.w", (1, 256), 14, 64), ("norm", (3,), 0, 288)],
        b"\0" * 320,
        struct.pack("<Q", 17) + b"general.alignment" + struct.pack("<II", 4, 32),
        n=1,
    )
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    found = inspect_file(path)
    rows = rows_of(found)
    assert found.format == "GGUF v3"
    assert [(row.dtype, row.stored_bytes, row.num_stored) for row in found.rows] == [
        ("Q4_0", 36, 64 + 2),
        ("Q6_K", 210, 256 + 17),
        ("F32", 12, 3),
    ]
    assert rows["token_embd.weight"].shape == (2, 32)
    assert found.num_params_effective == 64 + 256 + 3
    assert any("tied" in note for note in found.notes)


@pytest.mark.parametrize(
    "data",
    [
        b"GGUF" + struct.pack("<I", 1),
        b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60) + b"\0" * 100,
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**63) + b"x" * 50,
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 4, 2**50),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<I", 77) + b"\0" * 20,
        gguf_bytes([("w", (1, 31), 2, 0)], b"\0" * 64),
        gguf_bytes([("w", (1,) * 9, 0, 0)], b"\0" * 64),
    ],
)
def test_hostile_gguf(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(ArtifactError):
        inspect_file(tmp_path / "m.gguf")


def test_npy_and_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 4), np.float16))
    found = inspect_file(tmp_path / "a.npy")
    assert (found.format, found.rows[0].shape, found.rows[0].dtype, found.notes) == ("npy", (3, 4), "float16", ())
    np.savez_compressed(tmp_path / "a.npz", w=np.zeros((50, 60)), o=np.array([{}], object), s=np.float32(2))
    found = inspect_file(tmp_path / "a.npz")
    rows = rows_of(found)
    assert (rows["w"].shape, rows["w"].num_stored, rows["s"].shape) == ((50, 60), 3000, ())
    assert rows["w"].stored_bytes < 500
    assert rows["o"].num_stored == 0
    assert any("never loaded" in note for note in found.notes)


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_without_unpickling(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(torch_bytes(tied_state(), _use_new_zipfile_serialization=not legacy))
    found = inspect_file(path)
    rows = rows_of(found)
    assert set(rows) == {"model.emb", "model.head", "half"}
    assert (rows["model.emb"].shape, rows["model.emb"].dtype, rows["model.emb"].stored_bytes) == ((3, 4), "float32", 48)
    assert (rows["model.head"].tied_to, rows["model.head"].stored_bytes) == ("model.emb", 0)
    assert found.num_params_stored == found.num_params_effective == 12 + 5
    assert found.num_named == 12 + 12 + 5


def test_torch_views_and_modules(tmp_path: Path) -> None:
    storage = torch.zeros(100)
    path = tmp_path / "m.pt"
    path.write_bytes(torch_bytes({"view": storage[:10], "layer": torch.nn.Linear(3, 2).state_dict()}))
    found = inspect_file(path)
    assert rows_of(found)["layer.weight"].shape == (2, 3)
    assert (rows_of(found)["view"].num_numbers, rows_of(found)["view"].num_stored) == (10, 100)
    assert any("views" in note for note in found.notes)


@pytest.mark.parametrize(
    ("kind", "pack"),
    [
        ("zlib", zlib.compress),
        ("gzip", gzip.compress),
        ("xz", lzma.compress),
        ("bzip2", bz2.compress),
        ("zstd", zstandard.compress),
    ],
)
def test_compressed_files_are_looked_into(tmp_path: Path, kind: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "m.ptz"
    data = pack(torch_bytes(tied_state()))
    path.write_bytes(data)
    found = inspect_file(path)
    assert found.format == f"{kind} of PyTorch zip"
    assert found.bytes_by_part == {f"{kind} stream": len(data)}
    assert found.num_params_stored == 17
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactError, match="damaged|truncated"):
        inspect_file(path)


def test_bombs_are_given_up(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    compressor = zlib.compressobj(9)
    path.write_bytes(b"".join(compressor.compress(b"\0" * (1 << 20)) for _ in range(60)) + compressor.flush())
    found = inspect_file(path)
    assert found.format == "zlib"
    assert "not looked into" in found.notes[0]


def zip_bytes(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def test_zip_bomb_and_odd_names(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zip_bytes({"zeros": b"\0" * 20_000_000, "a\x1b[2J\u202eb": b"x"}))
    found = inspect_file(path)
    assert set(rows_of(found)) == {"zeros", "a\\x1b[2J\\u202eb"}
    assert any("zeros" in note and "not inflated" in note for note in found.notes)


def test_npz_bomb_is_listed_not_inflated(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", w=np.zeros(20_000_000, np.int8))
    found = inspect_file(tmp_path / "a.npz")
    assert rows_of(found)["w"].num_stored == 20_000_000


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('executed')",))


def test_pickles_are_never_executed(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(zip_bytes({"m/data.pkl": pickle.dumps({"a": _Evil()}, protocol=2), "m/version": b"3"}))
    assert inspect_file(path).rows == ()
    path.write_bytes(pickle.dumps(_Evil()))
    assert inspect_file(path).format == "pickle"


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x02h\x05.",
        b"\x80\x02e.",
        b"\x80\x02R.",
        b"\x80\x02](h\x00e.",
        b"\x80\x02" + b"]" * 1_100_000 + b".",
        b"\x80\x02" + b"(" * 500_000 + b"t" * 500_000 + b".",
        b"\x80\x02X\xff\xff\xff\x7fabc.",
        b"\x80\x04\x8d" + b"\xff" * 8 + b".",
        b"\x80\x02I" + b"9" * 10_000 + b"\n.",
        b"\x80\x02c__builtin__\neval\n.",
        b"\x80\x02i__builtin__\neval\n.",
    ],
)
def test_hostile_pickles(tmp_path: Path, program: bytes) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(zip_bytes({"m/data.pkl": program}))
    try:
        assert inspect_file(path).rows == ()
    except ArtifactError as error:
        assert "\n" not in str(error)


def test_shared_nesting_is_walked_once(tmp_path: Path) -> None:
    """Two to the power of 60 paths lead to the innermost list."""
    nest: list[Any] = []
    for _ in range(60):
        nest = [nest, nest]
    path = tmp_path / "m.pt"
    path.write_bytes(zip_bytes({"m/data.pkl": pickle.dumps(nest, protocol=2)}))
    assert inspect_file(path).rows == ()


@pytest.mark.parametrize(
    "head",
    [
        b"{'descr': 'O', 'fortran_order': False, 'shape': (3,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': 3}",
        b"{'descr': '<f4'}",
        b"{'descr': 'nonsense', 'fortran_order': False, 'shape': ()}",
        b"(" * 5000,
        b"__import__('os')",
        b"'\\d'",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s,)}" % (b"9" * 4000),
        b"\xff\xfe\x00",
    ],
)
def test_hostile_npy(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
    try:
        assert inspect_file(path).num_params_stored == 0
    except ArtifactError as error:
        assert str(error).startswith(str(path))


@pytest.mark.parametrize(
    "data",
    [
        (2**62).to_bytes(8, "little") + b"{}",
        safetensors_bytes({"a": 3}),
        safetensors_bytes({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}),
        safetensors_bytes({"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 0]}}),
        (20_000).to_bytes(8, "little") + b'{"a":' + b"[" * 20_000,
        (40).to_bytes(8, "little") + b'{"a":{},"a":{}}'.ljust(40),
        b"PK\x05\x06",
        b"PK\x03\x04" + b"\0" * 100,
        zip_bytes({"a": b"x" * 100})[:-10],
        zip_bytes({"a.npy": b"not an array"}),
        b"\x93NUMPY",
        b"GGUF",
        b"\x80",
        b"\x89CLAIM\r\n",
        b"\x1f\x8b\x08",
        b"\x28\xb5\x2f\xfd" + b"\xff" * 30,
        b"BZh9",
    ],
    ids=lambda data: f"{data[:6].hex()}-{len(data)}",  # a zip carries the time of day: no part of a name
)
def test_damaged_files_end_in_one_error_or_a_note(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    try:
        found = inspect_file(path)
    except ArtifactError as error:
        assert "\n" not in str(error)
        assert str(error).startswith(str(path))
    else:
        assert found.notes


@pytest.mark.parametrize("data", [b"", b"hello, world", b"\x7fELF" + b"\0" * 50])
def test_unknown_files_get_a_note(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "f").write_bytes(data)
    found = inspect_file(tmp_path / "f")
    assert found.format == "unknown"
    assert "no format that this program knows" in found.notes[0]
    assert found.bytes_by_part == {"all": len(data)}
    assert found.num_params_stored is None
    assert dict(inspection_view(tmp_path / "f").tables[0].rows)["stored parameters"] == "-"


def test_a_safetensors_header_longer_than_the_file_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes((2**60).to_bytes(8, "little") + b"{}")
    with pytest.raises(ArtifactError, match="header of 1152921504606846976 bytes in a file of 10"):
        inspect_file(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        inspect_file(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match="not a file"):
        inspect_file(tmp_path)


def test_notes_are_bounded(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}
    (tmp_path / "m.safetensors").write_bytes(safetensors_bytes({f"t{i}": entry for i in range(500)}, b"\0" * 8))
    notes = inspect_file(tmp_path / "m.safetensors").notes
    assert len(notes) == 51
    assert notes[-1].endswith("more")


def test_names_are_safe_to_print() -> None:
    assert escape("blocks.0.w") == "blocks.0.w"
    assert escape("a\n\t\x1b\x9b\u202e\u200b") == "a\\n\\t\\x1b\\x9b\\u202e\\u200b"
    assert escape("\ud800") == "\\ud800"
    assert len(escape("x" * 10_000)) < 300
    assert escape("größe 重み") == "größe 重み"


def npy_bytes() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(2, np.float32))
    return stream.getvalue()


SEEDS = {
    "safetensors": lambda: safetensors_bytes({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8),
    "gguf": lambda: gguf_bytes([("w", (2, 32), 2, 0)], b"\0" * 64),
    "npz": lambda: zip_bytes({"w.npy": npy_bytes()}),
    "torch": lambda: torch_bytes({"w": torch.zeros(3)}),
    "legacy": lambda: torch_bytes({"w": torch.zeros(3)}, _use_new_zipfile_serialization=False),
    "zlib": lambda: zlib.compress(torch_bytes({"w": torch.zeros(3)})),
}


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(sorted(SEEDS)))
def test_random_damage(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    content = bytearray(SEEDS[kind]())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path = tmp_path / "fuzz"
    path.write_bytes(content[:cut])
    try:
        found = inspect_file(path)
    except ArtifactError as error:
        assert "\n" not in str(error)
    else:
        assert sum(found.bytes_by_part.values()) == cut
