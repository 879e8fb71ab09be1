"""What every registered method promises, on its `tiny` preset."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harness import run_stages, runner
from harness.artifact.container import Artifact, write_artifact
from harness.artifact.expected import num_stored
from harness.job import RunRequest
from harness.loading import load_artifact
from harness.method import ExportSettings, Method, Task
from harness.plan import build_on_meta
from harness.progress import SilentReporter
from harness.records.logs import read_log
from harness.records.native import read_record
from harness.registry import find_method, list_methods
from harness.runner import start_run
from harness.settings import resolve_settings
from harness.training import loop
from harness.training.clock import Clock
from harness.verify.run import verify_paths

METHODS = sorted(list_methods())
VOCAB = 257


def make(name: str, preset: str = "tiny", vocab_size: int = VOCAB) -> Method:
    info = find_method(name)
    settings = resolve_settings(info, preset, ())
    return info.load()(settings.model, Task(vocab_size=vocab_size, context=settings.train.context))


def run(name: str, text: str, out: Path, budget: str = "20steps", seed: int = 3) -> Path:
    request = RunRequest(method=name, preset="tiny", budget=budget, data=text, tokenizer="bytes", seed=seed)
    folder = start_run(request, reporter=SilentReporter(), out=out, device="cpu")
    assert folder is not None
    return folder


@pytest.fixture
def processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a run count the seconds in which this process computes: what else the machine does is not under test.

    A wall clock is tested in `tests/unit/test_runner.py`.
    """
    monkeypatch.setattr(runner, "Clock", partial(Clock, now=time.process_time))
    for module in (loop, run_stages):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=time.process_time))


@pytest.fixture(scope="module", params=METHODS)
def trained(
    request: pytest.FixtureRequest, small_text: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    name: str = request.param
    return name, run(name, small_text, tmp_path_factory.mktemp("runs") / name)


@pytest.mark.parametrize("name", METHODS)
def test_builds_in_two_seconds(name: str) -> None:
    method = make(name)
    started = time.process_time()
    method.build()
    assert time.process_time() - started < 2


@pytest.mark.parametrize("name", METHODS)
def test_every_preset_builds_on_the_meta_device_and_its_parts_add_up(name: str) -> None:
    for preset in find_method(name).toml.presets:
        method = make(name, preset, vocab_size=1024)
        with torch.device("meta"):
            network = method.build()
        total = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
        counts = method.count_params(network)
        assert sum(counts.parts.values()) == total, preset
        assert counts.active <= counts.effective
        assert method.flops_per_step(2 * 4096) == pytest.approx(2 * method.flops_per_step(4096), rel=0.5)


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_is_in_exactly_one_group(name: str) -> None:
    method = make(name)
    network = method.build()
    grouped = [parameter for group in method.param_groups(network) for parameter in group.names]
    assert sorted(grouped) == sorted(dict(network.named_parameters()))


@pytest.mark.parametrize("name", METHODS)
def test_stored_in_full_precision_it_gives_equal_logits(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    method = make(name)
    network = method.build().eval()
    tokens = torch.randint(0, VOCAB, (2, 16))
    export = ExportSettings(matrices="fp32", embeddings="fp32", scalars="fp32")
    write_artifact(tmp_path / "a.bin", meta={}, tensors=method.export(network, export), blobs={})
    decoded = method.evaluate(Artifact.open(tmp_path / "a.bin").decode_tensors())
    with torch.no_grad():
        assert torch.equal(network(tokens), decoded(tokens))
        assert torch.equal(network(tokens, last=3), network(tokens)[:, -3:])


@pytest.mark.parametrize("name", METHODS)
def test_summed_micro_batches_equal_one_batch(name: str) -> None:
    torch.manual_seed(0)
    network = make(name).build().double()
    tokens = torch.randint(0, VOCAB, (4, 17))
    leaves = network.begin_step()
    losses = [network.loss(half[:, :-1], half[:, 1:]) / 2 for half in tokens.split(2)]
    parts = [torch.autograd.grad(loss, leaves) for loss in losses]
    network.finish_step([a + b for a, b in zip(*parts, strict=True)])
    summed = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()
    network.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, f"{key} gets no gradient"
        torch.testing.assert_close(summed[key], parameter.grad, rtol=1e-9, atol=1e-12, msg=key)


def test_loss_falls_in_twenty_steps(trained: tuple[str, Path]) -> None:
    losses = [step.loss_nats for step in read_log(trained[1]).steps]
    assert len(losses) == 20
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.02


def test_bytes_reported_are_the_bytes_of_the_file(trained: tuple[str, Path]) -> None:
    record = read_record(trained[1])
    assert record.artifact is not None
    assert record.artifact.artifact_bytes == (trained[1] / "artifact.bin").stat().st_size
    assert sum(record.artifact.parts.values()) == record.artifact.artifact_bytes


def test_the_file_holds_the_numbers_that_were_counted_before_the_training(trained: tuple[str, Path]) -> None:
    name, folder = trained
    record, method = read_record(folder), make(name, vocab_size=256)
    settings = resolve_settings(find_method(name), "tiny", ())
    artifact = Artifact.open(folder / "artifact.bin")
    # tensors that are equal by chance, such as vectors that nothing has changed yet, are stored once
    entries = {entry.name: entry for entry in artifact.entries}
    twice = sum(num_stored(entries[name].shape, entries[name].scheme) for name in artifact.aliases.values())
    assert record.params is not None
    assert method.count_stored(build_on_meta(method), settings.export) == record.params.stored + twice


def test_its_record_verifies_from_the_file_alone(trained: tuple[str, Path]) -> None:
    report = verify_paths([trained[1]], level="decode")
    assert not [finding for finding in report.findings if finding.status == "fail"]


def test_the_decoded_network_runs(trained: tuple[str, Path]) -> None:
    loaded = load_artifact(trained[1] / "artifact.bin")
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    with torch.no_grad():
        assert loaded.network(tokens).isfinite().all()


def test_same_seed_twice_gives_the_same_file(trained: tuple[str, Path], small_text: str, tmp_path: Path) -> None:
    name, folder = trained
    again = run(name, small_text, tmp_path / "again")
    assert (again / "artifact.bin").read_bytes() == (folder / "artifact.bin").read_bytes()
    assert (again / "scores.npz").read_bytes() == (folder / "scores.npz").read_bytes()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.usefixtures("processor_time")
def test_a_budget_in_seconds_is_kept(name: str, small_text: str, tmp_path: Path) -> None:
    record = read_record(run(name, small_text, tmp_path / "timed", budget="8s"))
    assert record.budget.stopped_by == "seconds"
    assert record.progress is not None
    step_seconds = record.progress.median_step_seconds
    assert step_seconds is not None
    # one step or 1%; a shared machine may stall in the very last step, hence three steps here
    assert record.budget.spent.seconds <= 8.08 + 3 * step_seconds
