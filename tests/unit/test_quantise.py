"""`harness quantise`: a tiny record stored anew, its files scored; wrong inputs; the arithmetic of the frontier."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.artifact.container import Artifact
from harness.artifact.quantize import dequantise
from harness.cli import run_command
from harness.envelope import interpolate, lower_envelope
from harness.rated import choose_by_gptq
from harness.requantise import StoredNetwork

# all but the matrices, which the next word of the command sets
EXACT = ["--set", "export.embeddings=fp32", "--set", "export.scalars=fp32", "--set"]
CALIBRATION = ["--calibration-tokens", "500", "--device", "cpu"]


def make_record(method: str, folder: Path, small_text: str, *options: str) -> Path:
    arguments = ["run", "--method", method, "--preset", "tiny", "--budget", "5steps", "--device", "cpu"]
    data = ["--data", small_text, "--tokenizer", "bytes"]
    assert run_command([*arguments, *data, *options, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def looped(small_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished record of two blocks in two loops, stored as float32."""
    folder = tmp_path_factory.mktemp("records") / "looped"
    return make_record("recursive", folder, small_text, *EXACT, "export.matrices=fp32")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scheme", "int9-row"], "unknown quantisation scheme 'int9-row'"),
        (["--gptq", "some"], "--gptq some: choose one of none, first, all"),
        (["--scheme", "fp16"], "--scheme fp16 has no scale"),
        (["--format", "xml"], "--format xml"),
        (["--sweep-points", "1"], "--sweep-points"),
        (["--calibration-tokens", "0"], "--calibration-tokens"),
        (["--out", "nowhere/found.json"], "there is no folder nowhere"),
        (["--out", "."], "--out . is a folder"),
        (["--device", "tpu"], "--device tpu"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(options: list[str], said: str, looped: Path, capsys) -> None:
    capsys.readouterr()
    assert run_command(["quantise", str(looped), *options]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and said in error
    assert "\n" not in error


def test_records_that_cannot_be_used(looped: Path, tmp_path: Path, capsys) -> None:
    assert run_command(["quantise", str(tmp_path / "none")]) == 2
    assert "none does not exist" in capsys.readouterr().err
    assert run_command(["quantise", str(tmp_path)]) == 1
    altered = Path(shutil.copytree(looped, tmp_path / "altered"))
    (altered / "artifact.bin").write_bytes((looped / "artifact.bin").read_bytes() + b"x")
    capsys.readouterr()
    assert run_command(["quantise", str(altered)]) == 1
    assert "is not the file that the record scored" in capsys.readouterr().err
    record = json.loads((looped / "record.json").read_text())
    (altered / "record.json").write_text(json.dumps({**record, "status": "running"}))
    assert run_command(["quantise", str(altered)]) == 2
    assert "finish it with harness run --resume" in capsys.readouterr().err


def test_a_network_trained_for_one_scheme_is_stored_under_another(small_text: str, tmp_path: Path) -> None:
    options = [word for text in ("qat=int4-row", "export.matrices=int4-row") for word in ("--set", text)]
    folder = make_record("quantised", tmp_path / "qat", small_text, *options)
    out = tmp_path / "found.json"
    asked = ["--scheme", "int8-row", "--gptq", "none", "--device", "cpu", "--out", str(out)]
    assert run_command(["quantise", str(folder), *asked]) == 0
    assert "quantised a second time" in json.loads(out.read_text())["notes"][0]


def test_a_run_stores_by_gptq_what_its_network_is_quantised_to_later(
    looped: Path, small_text: str, tmp_path: Path
) -> None:
    settings = ["export.matrices=int4-row", "--set", "export.gptq=first"]
    folder = make_record("recursive", tmp_path / "run", small_text, *EXACT, *settings)
    network = StoredNetwork(looped, data_dir=None, device="cpu", say=print)
    first, every = (network.calibrate(65_536, passes) for passes in ("first", "all"))
    stored = Artifact.open(folder / "artifact.bin")
    differ = {"rounded": 0, "all passes": 0}
    for tensor in network.plan("int4-row"):
        found = stored.decode_tensor(tensor.name)
        is_matrix = tensor.name in network.matrices
        expected = choose_by_gptq(tensor, first) if is_matrix else tensor
        np.testing.assert_array_equal(found, dequantise(expected.quantise()), err_msg=tensor.name)
        differ["rounded"] += is_matrix and not np.array_equal(found, dequantise(tensor.quantise()))
        differ["all passes"] += is_matrix and not np.array_equal(
            found, dequantise(choose_by_gptq(tensor, every).quantise())
        )
    assert min(differ.values()) > 0


def test_a_run_says_which_matrices_gptq_cannot_choose(small_text: str, tmp_path: Path, capsys) -> None:
    settings = ["export.matrices=int4-row", "--set", "export.gptq=all", "--set", "export.small_numel=0"]
    make_record("mpo", tmp_path / "run", small_text, "--budget", "1steps", "--set", *settings)
    said = " ".join(capsys.readouterr().err.split())
    assert "warning: export.gptq=all rounds 48 of 48 matrices, which are no weight of a linear map" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["export.gptq=all", "export.matrices=fp32"], "scheme fp32 of matrices has no scale"),
        (["export.gptq=all", "export.target_bytes=40000"], "target_bytes chooses other steps; set one"),
        (["export.gptq=some"], "'none', 'first' or 'all'"),
    ],
)
def test_a_run_refuses_what_gptq_cannot_choose(settings: list[str], said: str, tmp_path: Path, capsys) -> None:
    run = ["run", "--method", "dense", "--preset", "tiny", "--budget", "1steps", "--out", str(tmp_path / "a")]
    assert run_command([*run, *(word for text in settings for word in ("--set", text))]) == 2
    error = capsys.readouterr().err.strip()
    assert said in " ".join(error.split()) and error.count("error:") == 1
    assert not (tmp_path / "a").exists()


def test_files_are_written_scored_and_listed(looped: Path, tmp_path: Path, capsys) -> None:
    modes = [word for mode in ("none", "first", "all") for word in ("--gptq", mode)]
    out = tmp_path / "found.json"
    capsys.readouterr()
    assert (
        run_command(["quantise", str(looped), "--scheme", "ternary-row", *modes, *CALIBRATION, "--out", str(out)]) == 0
    )
    table = capsys.readouterr().out
    found = json.loads(out.read_text())
    record = json.loads((looped / "record.json").read_text())
    assert found["before"]["val_bpb"] == pytest.approx(record["metrics"]["tune"]["val_bpb"], abs=1e-12)
    assert found["before"]["artifact_bytes"] == record["artifact"]["artifact_bytes"]
    assert [file["quantiser"] for file in found["files"]] == ["rounding", "GPTQ, first passes", "GPTQ, all passes"]
    assert len({file["val_bpb"] for file in found["files"]}) == 3
    for file in found["files"]:
        assert file["artifact_bytes"] < 0.7 * found["before"]["artifact_bytes"]
        assert file["change_bpb"] == pytest.approx(file["val_bpb"] - found["before"]["val_bpb"])
        assert f"{file['val_bpb']:.4f}" in table
    assert found["frontier"] is None and found["notes"] == []


def test_sweep(looped: Path, capsys) -> None:
    capsys.readouterr()
    options = ["--sweep", "--sweep-points", "2", "--gptq", "none", "--format", "json"]
    assert run_command(["quantise", str(looped), *options, *CALIBRATION]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == []
    fine, coarse = found["frontier"]["points"]
    assert fine["lagrangian"] < coarse["lagrangian"]
    assert fine["distortion"] < coarse["distortion"]
    assert fine["stored"]["artifact_bytes"] > coarse["stored"]["artifact_bytes"]
    baselines = found["frontier"]["baselines"]
    assert [point["scheme"] for point in baselines[::4]] == ["int8-row", "int7-row", "int6-row"]
    assert [point["coder"] for point in baselines[:4]] == ["zlib", "zstd", "lzma", "best of ours"]
    for point in baselines:
        if point["frontier_bpb"] is not None:
            scores = [fine["stored"]["val_bpb"], coarse["stored"]["val_bpb"]]
            assert min(scores) <= point["frontier_bpb"] <= max(scores)


def test_tensors_without_a_linear_map_are_named(small_text: str, tmp_path: Path, capsys) -> None:
    folder = make_record("legendre", tmp_path / "legendre", small_text)
    capsys.readouterr()
    assert run_command(["quantise", str(folder), "--gptq", "all", *CALIBRATION]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "no linear map of that name, so no moments: GPTQ rounds" in said
    assert "quantised a second time" in said


def test_envelope_and_interpolation_by_hand() -> None:
    sizes, scores = lower_envelope([(300, 1.0), (100, 3.0), (200, 3.5), (400, 1.2), (250, 2.0)])
    assert sizes.tolist() == [100, 250, 300]
    assert scores.tolist() == [3.0, 2.0, 1.0]
    assert interpolate(175, sizes, scores) == pytest.approx(2.5)
    assert interpolate(1.5, scores[::-1], sizes[::-1]) == pytest.approx(275)
    assert interpolate(900, sizes, scores) == 1.0
    assert interpolate(90, sizes, scores) is None
    assert interpolate(0.5, np.array([1.0, 2.0]), np.array([3.0, 4.0])) is None


def test_pulls_at_shared_matrices(looped: Path, capsys) -> None:
    assert run_command(["conflict", str(looped), "--tokens", "64", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["num_uses"] for each in found["matrices"]} == {2}
    assert all(-1 <= each["least_cosine"] <= each["mean_cosine"] <= 1 for each in found["matrices"])
