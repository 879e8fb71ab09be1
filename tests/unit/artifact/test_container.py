from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from artifact_factory import BLOBS, META, plan, split, write_good
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.artifact.container import Artifact, PlannedTensor, write_artifact
from harness.artifact.quantize import dequantise, known_schemes, quantise
from harness.errors import ArtifactError, RunError, UsageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_good(tmp_path / "artifact.bin")


def test_what_was_written_comes_back(path: Path) -> None:
    artifact = Artifact.open(path)
    tensors = artifact.decode_tensors()
    assert list(tensors) == ["embedding", "blocks.0.q", "blocks.0.gain", "mask", "head"]
    for tensor in plan():
        expected = dequantise(quantise(tensor.value, tensor.scheme))
        assert tensors[tensor.name].dtype == np.float32
        assert np.array_equal(tensors[tensor.name], expected)
        assert np.array_equal(artifact.decode_tensor(tensor.name), expected)
        assert np.array_equal(dequantise(artifact.decode_quantised(tensor.name)), expected)
    assert artifact.blob("tokenizer") == BLOBS["tokenizer"]
    assert artifact.meta == META


def test_summary_and_parts_add_up_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    summary = write_artifact(path, meta=META, tensors=plan(), blobs=BLOBS)
    artifact = Artifact.open(path)
    size = path.stat().st_size
    assert summary.artifact_bytes == artifact.artifact_bytes == size
    assert sum(summary.parts.values()) == size
    assert artifact.bytes_by_part() == summary.parts
    assert set(summary.parts) == {"embedding", "blocks", "scalars", "masks", "scales", "tokenizer", "header", "framing"}
    assert summary.parts["framing"] == 18 + 32
    assert summary.sha256 == artifact.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert set(summary.coders) == {"embedding", "blocks.0.q", "blocks.0.gain", "mask"}


def test_stored_parameters_by_hand(path: Path) -> None:
    # Embedding 32 * 16 + 32 scales, q 2 * 24 * 16 + 1 step, gain 16; the head is tied, the mask counts in bytes only.
    assert Artifact.open(path).num_params_stored == 512 + 32 + 768 + 1 + 16


def test_identical_tensors_are_stored_once(path: Path) -> None:
    artifact = Artifact.open(path)
    assert artifact.aliases == {"head": "embedding"}
    assert artifact.decode_tensors()["head"] is not None
    assert np.array_equal(artifact.decode_tensor("head"), artifact.decode_tensor("embedding"))
    assert artifact.offset_of("head") == artifact.offset_of("embedding")


def test_like_values_of_other_shape_or_scheme_are_not_aliases(tmp_path: Path) -> None:
    value = np.ones((2, 6), np.float32)
    planned = [("a", value, "fp16"), ("b", value.reshape(3, 4), "fp16"), ("c", value, "fp32"), ("d", value, "integers")]
    tensors = [PlannedTensor(name=n, value=v, scheme=s, part="x") for n, v, s in planned]
    summary = write_artifact(tmp_path / "a", meta={}, tensors=tensors, blobs={})
    assert not summary.aliases
    shapes = {name: tensor.shape for name, tensor in Artifact.open(tmp_path / "a").decode_tensors().items()}
    assert shapes == {"a": (2, 6), "b": (3, 4), "c": (2, 6), "d": (2, 6)}


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_good(tmp_path / "a").read_bytes()
    reordered = dict(reversed(META.items()))
    write_artifact(tmp_path / "b", meta=reordered, tensors=plan(), blobs=BLOBS)
    assert (tmp_path / "b").read_bytes() == first


def test_copy_of_decoded_tensors_is_the_same_file(tmp_path: Path) -> None:
    """Quantised floats are their own fixed point, so a file can be rebuilt from what it decodes to."""
    tensors = [PlannedTensor(name="w", value=np.random.default_rng(0).normal(size=(9, 9)), scheme="fp16", part="w")]
    write_artifact(tmp_path / "a", meta={}, tensors=tensors, blobs={})
    again = Artifact.open(tmp_path / "a").decode_tensors()["w"]
    write_artifact(
        tmp_path / "b", meta={}, tensors=[PlannedTensor(name="w", value=again, scheme="fp16", part="w")], blobs={}
    )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_empty_artifact(tmp_path: Path) -> None:
    summary = write_artifact(tmp_path / "a", meta={}, tensors=[], blobs={})
    artifact = Artifact.open(tmp_path / "a")
    assert artifact.decode_tensors() == {}
    assert artifact.num_params_stored == 0
    assert sum(summary.parts.values()) == summary.artifact_bytes


def test_header_offsets_are_where_the_payloads_lie(path: Path) -> None:
    artifact, data = Artifact.open(path), path.read_bytes()
    header, payloads = split(data)
    at = len(data) - 32 - len(payloads) + header["blobs"]["tokenizer"]["payload_bytes"]
    for entry in artifact.entries:
        assert artifact.offset_of(entry.name) == at
        at += entry.stored_bytes
    assert at == len(data) - 32


@pytest.mark.parametrize("call", ["decode_tensor", "decode_quantised", "offset_of"])
def test_unknown_tensor(path: Path, call: str) -> None:
    with pytest.raises(ArtifactError, match="no tensor 'nose' among 4"):
        getattr(Artifact.open(path), call)("nose")


def test_unknown_blob(path: Path) -> None:
    with pytest.raises(ArtifactError, match="no blob 'vocabulary'; it has: tokenizer"):
        Artifact.open(path).blob("vocabulary")


def _one(name: str = "w", scheme: str = "fp16", part: str = "w") -> PlannedTensor:
    return PlannedTensor(name=name, value=np.ones(3), scheme=scheme, part=part)


@pytest.mark.parametrize(
    ("tensors", "meta", "message"),
    [
        ([_one(), _one()], {}, "share a name"),
        ([_one("a\x1b[31m")], {}, "not printable"),
        ([_one("")], {}, "name"),
        ([_one(part="scales")], {}, "reserved"),
        ([_one(part="tokenizer")], {}, "reserved"),
        ([_one(part="Bad Part")], {}, "part"),
        ([_one(scheme="int7")], {}, "unknown quantisation scheme"),
        ([], {"x": float("nan")}, "not plain JSON"),
        ([], {"x": Path()}, "not plain JSON"),
        ([], {"x": "y" * (1 << 20)}, "at most"),
    ],
)
def test_wrong_plans_are_refused(
    tmp_path: Path, tensors: list[PlannedTensor], meta: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        write_artifact(tmp_path / "a", meta=meta, tensors=tensors, blobs={"tokenizer": b""})
    assert not list(tmp_path.iterdir())


def test_nan_names_the_tensor_and_leaves_no_file(tmp_path: Path) -> None:
    tensor = PlannedTensor(name="blocks.3.q", value=np.array([np.nan]), scheme="int8-row", part="blocks")
    with pytest.raises(RunError, match=r"blocks\.3\.q"):
        write_artifact(tmp_path / "a", meta={}, tensors=[tensor], blobs={})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_full_disk_leaves_the_old_file_alone(path: Path, failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync", fail) if failing == "fsync" else (Path, "replace", fail)))
    with pytest.raises(RunError, match="No space left on device; free space"):
        write_good(path, seed=1)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_missing_folder_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot write"):
        write_good(tmp_path / "nowhere" / "a.bin")


numbers = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7),
    elements=st.floats(-100, 100, width=16),
)
lossy = [name for name in known_schemes() if name != "integers"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(planned=st.lists(st.tuples(numbers, st.sampled_from(lossy)), max_size=4))
def test_any_plan_survives(tmp_path: Path, planned: list[tuple[np.ndarray, str]]) -> None:
    path = tmp_path / "a.bin"
    tensors = [PlannedTensor(name=f"t{i}", value=v, scheme=s, part="t") for i, (v, s) in enumerate(planned)]
    summary = write_artifact(path, meta={}, tensors=tensors, blobs={})
    decoded = Artifact.open(path).decode_tensors()
    assert len(decoded) == len(planned)
    for tensor in tensors:
        assert np.array_equal(decoded[tensor.name], dequantise(quantise(tensor.value, tensor.scheme)))
    assert sum(summary.parts.values()) == path.stat().st_size
