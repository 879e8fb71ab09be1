"""What only a CUDA device can show; skipped with the reason where there is none (`make test-gpu`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from short_trainings import make

import harness.training.loop as loop
from harness.cli import run_command
from harness.job import RunRequest
from harness.loading import load_artifact
from harness.method import Method
from harness.nn.network import Network
from harness.progress import SilentReporter
from harness.records.logs import read_log
from harness.records.native import read_record
from harness.registry import list_methods
from harness.runner import resume_run, start_run
from harness.training.footprint import measure_footprint
from harness.training.muon import orthogonalise_all

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("default"),  # torch's compiler warns of its own code
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
METHODS = sorted(list_methods())
RECORDS = Path(__file__).resolve().parents[2] / "records"
# Bits per byte by which two trainings of twenty steps may differ whose sums were rounded in another order.
ROUNDING_BPB = 0.02


def run(name: str, text: str, out: Path, *overrides: str, **more) -> Path:
    request = RunRequest(
        method=name, preset="tiny", budget="20steps", data=text, tokenizer="bytes", seed=3, overrides=overrides, **more
    )
    folder = start_run(request, reporter=SilentReporter(), out=out, device="cuda")
    assert folder is not None
    return folder


def bpb(folder: Path) -> float:
    metrics = read_record(folder).metrics.test
    assert metrics is not None
    return metrics.val_bpb


def losses(folder: Path) -> list[float]:
    return [step.loss_nats for step in read_log(folder).steps]


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_and_its_gradients_are_those_of_the_processor(name: str) -> None:
    torch.manual_seed(0)
    method, _ = make(name)
    network = method.build()
    tokens = torch.randint(0, 256, (4, 33))
    found = {}
    for device in ("cpu", "cuda"):
        placed = network.to(device)
        leaves = placed.begin_step()
        loss = placed.loss(tokens[:, :-1].to(device), tokens[:, 1:].to(device))
        gradients = torch.autograd.grad(loss, leaves)
        placed.finish_step([gradient.detach() for gradient in gradients])
        # copies: moving a network moves the gradients that it holds
        found[device] = [loss.detach().cpu(), *(each.grad.cpu().clone() for each in placed.parameters())]
    for on_cpu, on_gpu in zip(found["cpu"], found["cuda"], strict=True):
        scale = max(1e-6, float(on_cpu.abs().max()))
        torch.testing.assert_close(on_gpu / scale, on_cpu / scale, rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", METHODS)
def test_a_run_learns_and_its_file_has_the_same_score_on_the_processor(
    name: str, small_text: str, tmp_path: Path
) -> None:
    folder = run(name, small_text, tmp_path / "record")
    record = read_record(folder)
    assert record.environment.device.startswith("cuda:0 ")
    assert record.status == "complete"
    assert record.metrics.test is not None and record.metrics.test.val_bpb < 8
    assert run_command(["verify", str(folder), "--level", "evaluate", "--device", "cpu"]) == 0


def test_a_record_of_the_processor_has_the_same_score_on_the_gpu() -> None:
    folder = RECORDS / "dense-small-shakespeare-400steps-seed0"
    assert run_command(["verify", str(folder), "--level", "evaluate", "--device", "cuda"]) == 0


def test_a_stopped_run_goes_on_to_the_score_of_an_uninterrupted_one(
    small_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run("dense", small_text, tmp_path / "whole")
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    original, taken = loop.Trainer._train_step, []

    def stopping(self, state):
        if len(taken) == 12:
            raise KeyboardInterrupt
        taken.append(None)
        return original(self, state)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Trainer, "_train_step", stopping)
        run("dense", small_text, tmp_path / "stopped")
    assert len(losses(tmp_path / "stopped")) < 20
    resume_run(tmp_path / "stopped", reporter=SilentReporter(), device="cuda")
    assert len(losses(tmp_path / "stopped")) == 20
    assert bpb(tmp_path / "stopped") == pytest.approx(bpb(whole), abs=ROUNDING_BPB)


@pytest.mark.parametrize("name", ["dense", "legendre", "recursive", "mpo"])
def test_compiled_and_plain_steps_have_the_same_losses(name: str, small_text: str, tmp_path: Path) -> None:
    plain = losses(run(name, small_text, tmp_path / "plain"))
    compiled = losses(run(name, small_text, tmp_path / "compiled", "train.compile=true"))
    assert compiled == pytest.approx(plain, abs=0.02)
    assert compiled[-1] < compiled[0]


@pytest.mark.parametrize("name", ["dense", "legendre", "recursive"])
def test_bfloat16_is_chosen_and_loses_little(name: str, small_text: str, tmp_path: Path) -> None:
    half = run(name, small_text, tmp_path / "half", "train.precision=auto")
    assert read_record(half).settings.train["precision"] == "bfloat16"
    assert bpb(half) == pytest.approx(bpb(run(name, small_text, tmp_path / "whole")), abs=0.1)


def test_muon_orthogonalises_as_on_the_processor() -> None:
    torch.manual_seed(0)
    updates = [torch.randn(48, 32), torch.randn(3, 16, 64), torch.randn(48, 32)]
    on_cpu = orthogonalise_all(updates, torch.float32)
    on_gpu = orthogonalise_all([update.cuda() for update in updates], torch.float32)
    for a, b in zip(on_cpu, on_gpu, strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["dense", "legendre", "recursive"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_plan_foretells_the_memory_of_a_micro_batch(name: str, precision: str) -> None:
    method, settings = make(
        name, "context=256", "batch_tokens=65536", "micro_batch_tokens=65536", f"precision={precision}"
    )
    foretold = measure_footprint(method, settings.train, "cuda")
    assert foretold.activations is not None
    network = method.build().train().cuda()
    measured = _peak_of_a_pass(method, network, precision, settings.train.context)
    planned = foretold.activations + foretold.temporaries + foretold.gradients
    assert measured == pytest.approx(planned, rel=0.15)


def _peak_of_a_pass(method: Method, network: Network, precision: str, context: int) -> int:
    tokens = torch.zeros(65536 // context, context, dtype=torch.int64, device="cuda")
    leaves = network.begin_step()
    for _ in range(2):  # the first pass makes the workspaces of cuBLAS
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            loss = network.loss(tokens, tokens)
        gradients = torch.autograd.grad(loss, leaves)
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        del loss, gradients
    return peak


def test_the_command_line_runs_on_cuda_by_itself(
    small_text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--method", "dense", "--preset", "tiny", "--budget", "20steps", "--data", small_text]
    assert run_command([*arguments, "--tokenizer", "bytes", "--out", str(tmp_path / "record")]) == 0
    assert read_record(tmp_path / "record").environment.device.startswith("cuda")
    network = load_artifact(tmp_path / "record" / "artifact.bin").network
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
    capsys.readouterr()
