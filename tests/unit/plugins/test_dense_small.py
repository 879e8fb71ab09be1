"""A dense network of a given size: what is promised before training is what the file holds."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from harness.artifact.container import write_artifact
from harness.artifact.expected import num_stored
from harness.artifact.quantize import quantise
from harness.errors import RecordError, UsageError
from harness.job import RunRequest
from harness.loading import load_artifact
from harness.method import Settings, Setup, Task
from harness.preparation import _measure_record
from harness.progress import SilentReporter
from harness.records.native import read_config, read_record
from harness.registry import find_method
from harness.runner import start_run
from harness.settings import RunSettings, resolve_settings
from harness.sizing import Shape, find_shape

ROOT = Path(__file__).resolve().parents[3]
DENSE = ROOT / "records" / "dense-small-shakespeare-400steps-seed0"
LEGENDRE = ROOT / "records" / "legendre-small-shakespeare-400steps-seed0"
INFO = find_method("dense_small")


def settle(preset: str, *overrides: str, vocab_size: int = 1024) -> tuple[Settings, RunSettings, list[str]]:
    settings, said = resolve_settings(INFO, preset, overrides), []
    task = Task(vocab_size=vocab_size, context=settings.train.context)
    setup = Setup(task=task, export=settings.export, sizes_of=_measure_record, say=said.append)
    return settings.model.settle(setup), settings, said


def write(model: Settings, settings: RunSettings, path: Path, vocab_size: int = 1024):
    method = INFO.load()(model, Task(vocab_size=vocab_size, context=settings.train.context))
    torch.manual_seed(0)
    network = method.build()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)  # equal tensors would be stored once
    return write_artifact(path, meta={}, tensors=method.export(network, settings.export), blobs={})


@pytest.mark.parametrize(
    ("preset", "vocab_size", "target"),
    [("small", 1024, 250_000), ("small", 1024, 600_000), ("small", 1024, 3_000_000), ("picogpt", 65, 177_408)],
)
def test_the_file_holds_the_parameters_asked_for(preset: str, vocab_size: int, target: int, tmp_path: Path) -> None:
    model, settings, said = settle(preset, f"target_params={target}", vocab_size=vocab_size)
    stored = write(model, settings, tmp_path / "a.bin", vocab_size).num_params_stored
    assert stored == pytest.approx(target, rel=2e-3)
    assert f"{stored:,} stored parameters, {stored / target - 1:+.2%} of {target:,}" in said[0]


@pytest.mark.parametrize("preset", ["small", "picogpt"])
def test_its_own_size_gives_the_preset_back(preset: str, tmp_path: Path) -> None:
    settings = resolve_settings(INFO, preset, ())
    stored = write(settings.model, settings, tmp_path / "a.bin").num_params_stored
    model, _, _ = settle(preset, f"target_params={stored}")
    assert model == settings.model


def test_proportions_are_kept_as_the_size_changes() -> None:
    model, _, _ = settle("small", "target_params=8000000")
    # Eight times the matrices: twice the width and twice the depth, or nearly.
    assert model.num_layers in (7, 8, 9)
    assert model.width / model.num_layers == pytest.approx(48, rel=0.2)
    assert model.mlp_width / model.width == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("folder", [DENSE, LEGENDRE])
def test_as_many_parameters_as_a_record(folder: Path, tmp_path: Path) -> None:
    model, settings, said = settle("small", f"like={folder}")
    record = read_record(folder)
    assert record.params is not None
    stored = write(model, settings, tmp_path / "a.bin").num_params_stored
    assert stored == pytest.approx(record.params.stored, rel=2e-3)
    assert str(folder) in said[0]


def test_as_many_bytes_as_a_record_by_the_bits_of_another() -> None:
    """A record is foretold by its own bits exactly, by noise within 3%: trained numbers are a little cheaper."""
    exact, settings, _ = settle("small", f"like={DENSE}", "match=bytes", f"bits_from={DENSE}")
    assert exact == resolve_settings(INFO, "small", ()).model
    by_noise, _, said = settle("small", f"like={DENSE}", "match=bytes")
    assert "stored bytes expected" in said[0]
    assert (by_noise.width, by_noise.num_layers) == (192, 4)
    assert by_noise.mlp_width == pytest.approx(384, rel=0.06)


def test_bytes_of_noise_are_foretold(tmp_path: Path) -> None:
    model, settings, said = settle("small", f"like={LEGENDRE}", "match=bytes")
    written = write(model, settings, tmp_path / "a.bin")
    overhead = _measure_record(str(LEGENDRE)).overhead_bytes
    tensors = written.artifact_bytes - written.parts["header"] - written.parts["framing"]
    assert tensors + overhead == pytest.approx(LEGENDRE.joinpath("artifact.bin").stat().st_size, rel=0.01)
    assert said[0].endswith(f"of 862,660 of {LEGENDRE}")


def test_what_is_settled_names_no_record_and_is_what_the_run_records(tmp_path: Path) -> None:
    request = RunRequest(
        method="dense_small",
        preset="tiny",
        budget="2steps",
        data="synthetic",
        overrides=(f"like={LEGENDRE}", "match=bytes"),
    )
    folder = start_run(request, reporter=SilentReporter(), out=tmp_path / "run", device="cpu")
    assert folder is not None
    record, config = read_record(folder), read_config(folder)
    assert record.settings.model == config["model"]
    assert (config["model"]["like"], config["model"]["match"], config["model"]["target_params"]) == ("", "params", 0)
    assert config["overrides"] == [f"like={LEGENDRE}", "match=bytes"]
    assert record.artifact is not None
    # Two steps: hardly trained, so the tensors cost what noise does, and the tables of zeros nothing.
    assert record.artifact.artifact_bytes == pytest.approx(862_660, rel=0.35)
    loaded = load_artifact(folder / "artifact.bin")
    assert loaded.network.config.width == config["model"]["width"] > 64


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        (["like=nowhere"], RecordError, r"nowhere: no record with an artifact\.bin"),
        (["target_params=500"], UsageError, "no network of 4 heads is as small as 500 params"),
        (["target_params=500", "like=x"], UsageError, "two targets"),
        (["match=bytes"], UsageError, "Set like=FOLDER"),
    ],
)
def test_targets_that_cannot_be_met(overrides: list[str], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        settle("small", *overrides)


def test_a_schedule_of_blocks_keeps_its_depth() -> None:
    model, _, _ = settle("small", "target_params=500000", "schedule=[0, 1, 0, 1]")
    assert (model.num_layers, model.schedule) == (4, (0, 1, 0, 1))


@pytest.mark.parametrize(
    "scheme", ["fp16", "fp32", "int8-row", "int8-tensor", "int6-step", "ternary-row", "challenge-int8"]
)
def test_stored_numbers_are_those_of_the_quantiser(scheme: str) -> None:
    for shape in ((5, 7), (1, 3), (4,)):
        quantised = quantise(torch.randn(shape).numpy(), scheme)
        scales = 0 if quantised.scale is None else quantised.scale.size
        assert num_stored(shape, scheme) == math.prod(shape) + scales


def test_the_search_against_every_shape_of_a_toy() -> None:
    """Sizes 2 w m d: any target within the tolerance has the shape of least distortion among all of them."""
    start = Shape(width=8, num_layers=2, mlp_width=16)

    def size_of(shape: Shape) -> float:
        return shape.num_layers * (4 * shape.width**2 + 2 * shape.width * shape.mlp_width)

    found = find_shape(start, 60_000, size_of, width_step=4, can_vary_depth=True)
    assert found is not None
    best = min(
        abs(size_of(Shape(width=4 * w, num_layers=d, mlp_width=m)) / 60_000 - 1)
        for d in range(1, 5)
        for w in range(1, 30)
        for m in range(1, 200)
    )
    assert best <= abs(found.size / 60_000 - 1) <= 2e-3
    assert find_shape(start, 20, size_of, width_step=4, can_vary_depth=True) is None
