"""Artifacts that are cut, altered, spliced or lie: always one ArtifactError, and nothing large is allocated."""

from __future__ import annotations

import os
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_factory import forge, join, split, write_good
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.artifact.container import Artifact, Limits, PlannedTensor, write_artifact
from harness.artifact.header import canonical_json
from harness.errors import ArtifactError

MODEST_BYTES = 8 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_good(tmp_path / "artifact.bin")


def read_all(path: Path, limits: Limits | None = None) -> None:
    artifact = Artifact.open(path, limits)
    artifact.decode_tensors()
    for name in artifact.blob_names:
        artifact.blob(name)


def must_refuse(path: Path, limits: Limits | None = None) -> str:
    """Read everything; returns the error's one line, and fails on any other outcome or a large allocation."""
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError) as caught:
            read_all(path, limits)
        assert tracemalloc.get_traced_memory()[1] < MODEST_BYTES
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_every_truncation_is_refused(path: Path) -> None:
    data = path.read_bytes()
    for length in [*range(0, 80), *range(80, len(data), 37), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(ArtifactError):
            read_all(path)


def test_every_flipped_byte_is_refused(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in [*range(0, 60), *range(60, len(data), 11)]:
        data[at] ^= 0x20
        path.write_bytes(data)
        with pytest.raises(ArtifactError):
            read_all(path)
        data[at] ^= 0x20


def test_flips_with_a_digest_that_fits_are_refused_by_the_checksums(path: Path) -> None:
    header, payloads = split(path.read_bytes())
    for at in range(0, len(payloads), 29):
        spoiled = bytearray(payloads)
        spoiled[at] ^= 1
        path.write_bytes(join(canonical_json(header), bytes(spoiled)))
        with pytest.raises(ArtifactError, match="checksum differs"):
            read_all(path)


def test_appended_bytes_are_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")
    assert "digest" in must_refuse(path)


def test_spliced_artifacts_are_refused(tmp_path: Path) -> None:
    first, second = (write_good(tmp_path / str(seed), seed).read_bytes() for seed in (0, 1))
    spliced = tmp_path / "spliced"
    for at in range(30, min(len(first), len(second)) - 32, 97):
        spliced.write_bytes(first[:at] + second[at:])
        with pytest.raises(ArtifactError):
            read_all(spliced)
    header, _ = split(first)
    _, payloads = split(second)
    spliced.write_bytes(join(canonical_json(header), payloads))
    must_refuse(spliced)


def tensor(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    """A change of one field of the second tensor."""

    def change(header: dict[str, Any]) -> None:
        header["tensors"][1][name] = value

    return change


def scale(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        header["tensors"][0]["scale"][name] = value

    return change


def blob(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        header["blobs"]["tokenizer"][name] = value

    return change


LIES = {
    "huge shape": (tensor("shape", [2**30, 2**17]), "declares"),
    "huge row count": (tensor("shape", [2**40, 0]), "shape"),
    "product overflow": (tensor("shape", [2**47] * 8), "declares"),
    "many numbers in few bytes": (tensor("shape", [1000, 1000, 300]), "cannot hold"),
    "fewer numbers": (tensor("shape", [2, 2, 2]), "longer than"),
    "nine axes": (tensor("shape", [1] * 9), "shape"),
    "negative size": (tensor("shape", [-1, 5]), "shape"),
    "float size": (tensor("shape", [2.0, 24, 16]), "shape"),
    "boolean size": (tensor("shape", [True, 24, 16]), "shape"),
    "unknown scheme": (tensor("scheme", "int9-row"), "unknown quantisation scheme"),
    "float scheme on symbols": (tensor("scheme", "fp32"), "stored as"),
    "scheme without scale": (tensor("scheme", "integers"), "scales"),
    "row scheme with one scale": (tensor("scheme", "int8-row"), "expected 48"),
    "unknown coder": (tensor("coder", "lzo"), "no coder"),
    "other coder": (tensor("coder", "packed"), None),
    "wrong type": (tensor("dtype", "f4"), "stored as"),
    "no payload": (tensor("payload_bytes", 0), "cannot hold"),
    "longer payload": (tensor("payload_bytes", 2**40), "longer than"),
    "negative payload": (tensor("payload_bytes", -5), "payload_bytes"),
    "payload off by one": (tensor("payload_bytes", 500), None),
    "checksum": (tensor("crc32", 0), "checksum"),
    "no scale entry": (tensor("scale", None), "without scales"),
    "extra field": (tensor("extra", 1), "extra"),
    "name twice": (tensor("name", "embedding"), "twice"),
    "empty name": (tensor("name", ""), "name"),
    "control characters": (tensor("name", "a\x1b[2J"), "not printable"),
    "reserved part": (tensor("part", "header"), "reserved"),
    "many scales": (scale("num_scales", 2**30), "expected 32"),
    "scale of symbols": (scale("dtype", "i1"), "scales of i1"),
    "scale coder": (scale("coder", "range-rows"), "no coder"),
    "huge blob": (blob("num_bytes", 2**40), "cannot hold"),
    "blob coder": (blob("coder", "range"), "impossible coder"),
    "blob length": (blob("num_bytes", 281), "blob|does not decode"),
    "dangling alias": (lambda header: header["aliases"].update(x="nothing"), "not stored"),
    "alias of itself": (lambda header: header["aliases"].update(x="x"), "not stored"),
    "alias of an alias": (lambda header: header["aliases"].update(x="head"), "not stored"),
    "alias twice": (lambda header: header["aliases"].update(mask="embedding"), "twice"),
    "no tensors": (lambda header: header.pop("tensors"), "tensors"),
    "tensors as text": (lambda header: header.update(tensors="x"), "tensors"),
    "fewer tensors": (lambda header: header["tensors"].pop(), "describes"),
    "unknown field": (lambda header: header.update(more={}), "more"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lying_headers_are_refused(path: Path, lie: str) -> None:
    change, expected = LIES[lie]
    message = must_refuse(forge(path, change))
    assert expected is None or any(part in message for part in expected.split("|")), message


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"null", b"{", b'{"a":1}', b"[" * 100_000, b'{"meta":{},"meta":{}}', b"\xff\xfe", b"9" * 50_000]
    + [
        b'{"aliases":{}, "blobs":{},"meta":{},"tensors":[]}',
        b'{"aliases":{},"blobs":{},"meta":{"x":1e999},"tensors":[]}',
    ],
)
def test_headers_that_are_not_canonical_json_are_refused(path: Path, raw: bytes) -> None:
    path.write_bytes(join(raw, b""))
    must_refuse(path)


def test_headers_beyond_their_cap_are_refused(path: Path) -> None:
    path.write_bytes(join(b" " * (1 << 21), b""))
    assert "at most" in must_refuse(path)


def test_other_versions_are_named(path: Path) -> None:
    header, payloads = split(path.read_bytes())
    path.write_bytes(join(canonical_json(header), payloads, version=2))
    assert "format 2, this program reads 1" in must_refuse(path)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(max_file_bytes=100), "expected"),
        (Limits(max_header_bytes=10), "header of"),
        (Limits(max_tensors=4), "5 tensors, at most 4"),
        (Limits(max_float32_bytes=5000), "bytes of float32, at most 5000"),
        (Limits(max_tensor_bytes=3000), "blocks.0.q: declares 768 numbers, at most 750"),
        (Limits(max_blob_bytes=10), "blob tokenizer"),
    ],
)
def test_limits(path: Path, limits: Limits, message: str) -> None:
    assert message in must_refuse(path, limits)


def test_not_a_number_in_a_payload_is_refused(path: Path) -> None:
    weight = np.ones(4, np.float32)
    write_artifact(path, meta={}, tensors=[PlannedTensor(name="w", value=weight, scheme="fp32", part="w")], blobs={})
    header, payloads = split(path.read_bytes())
    bad = np.array([1, np.nan, 1, 1], np.float32).tobytes()
    header["tensors"][0] |= {"coder": "raw", "payload_bytes": 16, "crc32": zlib.crc32(bad)}
    path.write_bytes(join(canonical_json(header), bad))
    assert "NaN or infinite" in must_refuse(path)


def test_file_changed_after_opening(path: Path) -> None:
    artifact = Artifact.open(path)
    data = bytearray(path.read_bytes())
    data[artifact.offset_of("blocks.0.q") + 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="checksum differs"):
        artifact.decode_tensor("blocks.0.q")
    path.unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        artifact.decode_tensor("embedding")


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "empty", "text"])
def test_things_that_are_no_artifact(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "missing":
        path.write_bytes(b"" if kind == "empty" else b"x" * 200)
    must_refuse(path)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_with_checks_that_fit(tmp_path: Path, data: st.DataObject) -> None:
    """Payload bytes are replaced and every checksum is made right again: numbers or one error."""
    path = tmp_path / "fuzz.bin"
    if not path.exists():
        write_good(path)
        (tmp_path / "good.bin").write_bytes(path.read_bytes())
    header, kept = split((tmp_path / "good.bin").read_bytes())
    payloads = bytearray(kept)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payloads) - 1))
        payloads[at : at + 4] = data.draw(st.binary(min_size=1, max_size=4).map(lambda b: b.ljust(4, b"\0")))[
            : len(payloads) - at
        ]
    at = header["blobs"]["tokenizer"]["payload_bytes"]
    for entry in header["tensors"]:
        length = entry["payload_bytes"] + (entry["scale"]["payload_bytes"] if entry["scale"] else 0)
        entry["crc32"] = zlib.crc32(payloads[at : at + length])
        at += length
    path.write_bytes(join(canonical_json(header), bytes(payloads)))
    artifact = Artifact.open(path)
    for entry in artifact.entries:
        try:
            decoded = artifact.decode_tensor(entry.name)
        except ArtifactError:
            continue
        assert decoded.shape == entry.shape
        assert np.isfinite(decoded).all()
