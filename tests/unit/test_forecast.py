"""The plan of a run: every figure by hand on a small case, and what the command says and refuses."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from harness import forecast, forecast_schema, forecast_setup
from harness.cli import run_command
from harness.data.outlook import look_at_data
from harness.devices import find_accelerator, known_accelerators
from harness.errors import UsageError
from harness.forecast import make_forecast
from harness.forecast_schema import Forecast
from harness.forecast_setup import ForecastRequest, Subject, set_up
from harness.job import RunRequest
from harness.method import Method, Task
from harness.nn.kernels import kernel_device, kernels_of
from harness.nn.network import Network
from harness.registry import find_method
from harness.settings import RunSettings, resolve_settings
from harness.training import timing
from harness.training.clock import EXPORT_MARGIN, EXPORT_MARGIN_SECONDS
from harness.training.footprint import measure_footprint, measure_pass, num_gradient_lists
from harness.training.gradients import TreeSum
from harness.training.recipe import Recipe

# dense, preset tiny, 256 tokens of vocabulary: width 64, 4 layers, 4 heads of 16, 2 of them for keys, inner width 128.
# A block has query 64 x 64, key and value 32 x 64, output 64 x 64, up 128 x 64, down 64 x 128.
BLOCK_MATRICES = 4_096 + 2 * 2_048 + 4_096 + 2 * 8_192
MATRICES = 4 * BLOCK_MATRICES
# A gain for each of 4 heads, 2 sublayer scales and 2 residual mixes of 64 in each block; 2 skips of 64.
SCALARS = 4 * (4 + 4 * 64) + 2 * 64
TABLE = 256 * 64
PARAMS = MATRICES + SCALARS + TABLE
TOKENS = 512
# Of a token: the matrices, the pairs of query and key (64 tokens x 64 features) and of weight and value, the head.
FORWARD = 2 * TOKENS * (4 * (BLOCK_MATRICES + 2 * 64 * 64) + TABLE)
# Five iterations of Newton-Schulz on m x n, m <= n: 4 m m n + 2 m m m. Adam: 12 a number.
MUON = 5 * 4 * (2 * 6 * 64**3 + 2 * (4 * 32 * 32 * 64 + 2 * 32**3) + 2 * (4 * 64 * 64 * 128 + 2 * 64**3))
OPTIMISER = MUON + 12 * (SCALARS + TABLE)
STEP = 3 * FORWARD + OPTIMISER


def request(method: str = "dense", budget: str = "10steps", **options: Any) -> ForecastRequest:
    run = {"preset": "tiny", "data": "synthetic", "overrides": ()}
    mine = {key: options.pop(key) for key in list(options) if key in {field.name for field in fields(RunRequest)}}
    return ForecastRequest(
        run=RunRequest(method=method, budget=budget, **run | mine), **{"mfu": 0.5, "device": "h100", **options}
    )


def plan(method: str = "dense", budget: str = "10steps", **options: Any) -> Forecast:
    return make_forecast(request(method, budget, **options), lambda _: None)


@pytest.fixture(scope="module")
def dense() -> Forecast:
    return plan(price=2.5)


def test_flops_by_hand(dense: Forecast) -> None:
    flops = dense.flops
    assert flops.forward == pytest.approx(FORWARD)
    assert flops.backward == pytest.approx(2 * FORWARD)
    assert flops.generation == 0
    assert flops.optimiser == pytest.approx(OPTIMISER)
    assert flops.step == pytest.approx(STEP)
    assert flops.token == pytest.approx(STEP / TOKENS)
    assert flops.run == pytest.approx(10 * STEP)
    assert flops.teacher == 0


def test_sizes_by_hand(dense: Forecast) -> None:
    params = dense.params
    # Matrices and the table are int8-row, with a scale a row: of query, key, value, output, up, down; 256 tokens.
    scales = 4 * (64 + 32 + 32 + 64 + 128 + 64) + 256
    assert (params.trained, params.effective, params.active) == (PARAMS, PARAMS, PARAMS)
    assert params.stored == PARAMS + scales
    assert params.bytes_before_coding == MATRICES + TABLE + 2 * SCALARS
    assert 0.7 < params.bytes_after_coding / params.bytes_before_coding < 1.05


def test_memory_by_hand(dense: Forecast) -> None:
    memory = dense.memory
    buffers = 4 * sum(buffer.numel() for buffer in meta_network("dense").buffers())
    assert memory.weights == 4 * PARAMS + buffers
    # Two micro-batches of 256 tokens: gradients of the second beside those of the first.
    assert memory.gradients == 2 * 4 * PARAMS
    assert memory.optimiser_state == 4 * MATRICES + 8 * (SCALARS + TABLE)
    assert (memory.generated_weights, memory.averages, memory.teacher) == (0, 0, 0)
    assert memory.warm_up_copy == 4 * PARAMS
    parts = memory.weights + memory.gradients + memory.optimiser_state + memory.warm_up_copy
    assert memory.peak == parts + (memory.activations or 0) + memory.temporaries
    assert memory.fits


def test_seconds_and_price_by_hand(dense: Forecast) -> None:
    h100, time, memory = find_accelerator("h100"), dense.time, dense.memory
    computing = STEP / (h100.float32_tflops * 1e12 * 0.5)
    kept = 2 * (memory.activations or 0)
    moving = 2 * (kept + memory.weights + memory.optimiser_state) / (h100.bandwidth_gb_s * 1e9)
    assert time.step_seconds == pytest.approx(max(computing, moving))
    assert time.train_seconds == pytest.approx(10 * max(computing, moving))
    assert time.run_seconds == pytest.approx((time.train_seconds or 0) + time.export_seconds)
    assert time.device_hours == pytest.approx((time.run_seconds or 0) / 3600)
    assert time.price == pytest.approx(2.5 * (time.device_hours or 0))


def test_a_half_utilisation_takes_twice_as_long() -> None:
    large = ("width=1024", "mlp_width=4096", "num_heads=8")  # operations, not memory traffic, set the time
    whole, half = (plan(overrides=large, mfu=mfu).time.step_seconds or 0 for mfu in (1.0, 0.5))
    assert half == pytest.approx(2 * whole)


@pytest.mark.parametrize(("amount", "steps"), [(1.0, 1), (10.5, 10), (99.999, 99)])
def test_steps_in_a_budget_of_flops(amount: float, steps: int) -> None:
    found = plan(budget=f"{amount * STEP:.12e}".replace("e+", "e") + "flop")
    assert found.budget.steps == steps
    assert found.budget.tokens == steps * TOKENS
    assert found.flops.run == pytest.approx(steps * STEP)


def test_epochs_of_a_budget_of_tokens(dense: Forecast) -> None:
    found = plan(budget="20Mtok")
    assert found.budget.steps == 20_000_000 // TOKENS
    assert found.budget.epochs == pytest.approx(found.budget.steps * TOKENS / 1_000_000, rel=1e-3)
    assert any("20 epochs" in warning for warning in found.warnings)
    assert not dense.warnings


def test_the_teacher_of_a_distillation_counts() -> None:
    found = plan(overrides=("train.ema_decay=0.9", "train.distill_start=80%"))
    assert found.flops.teacher == pytest.approx(FORWARD)
    assert found.flops.run == pytest.approx(10 * STEP + 2 * FORWARD)
    assert found.memory.averages == 4 * PARAMS
    assert found.memory.teacher == 4 * PARAMS
    assert found.time.train_seconds == pytest.approx((found.time.step_seconds or 0) * (10 + 2 * FORWARD / STEP))


def test_generation_is_what_does_not_grow_with_the_tokens() -> None:
    # Two groups of generated layers, 3 in all; attention of degree 2, MLP of degree 1: 3 and 2 coefficients.
    attention, mlp = 4_096 + 2 * 2_048 + 4_096, 2 * 8_192
    assert plan("legendre").flops.generation == pytest.approx(3 * 2 * 3 * (3 * attention + 2 * mlp))


@pytest.fixture(scope="module")
def subject() -> Subject:
    return set_up(request(budget="600s"), lambda _: None)


@given(step_seconds=st.floats(1e-4, 100), export_seconds=st.floats(0, 100), budget=st.floats(300, 1e7))
def test_a_timed_budget_holds_the_steps_and_no_more(
    subject: Subject, step_seconds: float, export_seconds: float, budget: float
) -> None:
    planned = replace(subject, budget=replace(subject.budget, amount=budget))
    steps = forecast._steps_within(planned, step_seconds, export_seconds)
    left = budget - export_seconds * (1 + EXPORT_MARGIN) - EXPORT_MARGIN_SECONDS
    assert steps is not None
    assert steps * step_seconds <= left * (1 + 1e-6)
    assert (steps + 1) * step_seconds > left * (1 - 1e-6)


@given(st.integers(1, 200))
def test_gradient_lists_are_those_of_the_tree(num_micro: int) -> None:
    tree, most = TreeSum(), 0
    for _ in range(num_micro):
        most = max(most, 1 + sum(level is not None for level in tree._levels))
        tree.add([torch.zeros(1)])
    assert most == num_gradient_lists(num_micro)


def at(method: str, *overrides: str) -> tuple[Method, RunSettings]:
    info = find_method(method)
    settings = resolve_settings(info, "tiny", overrides)
    recipe = settings.train
    task = Task(vocab_size=256, context=recipe.context, pass_tokens=recipe.micro_batch_tokens)
    return info.load()(settings.model, task), settings


def meta_network(method: str) -> torch.nn.Module:
    with torch.device("meta"):
        return at(method)[0].build()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "name", ["dense", "legendre", "recursive", "mpo", "low_rank", "procrustes", "pruning", "quantised", "slicing"]
)
def test_activations_are_those_of_a_real_pass(name: str, precision: str) -> None:
    method, settings = at(name, f"train.precision={precision}")
    recipe = settings.train
    network = method.build().train()
    leaves = network.begin_step()
    tokens_BT = torch.randint(256, (recipe.micro_batch_sequences, recipe.context))
    real = measure_pass(network, leaves, tokens_BT, recipe)
    found = measure_footprint(method, recipe, "cpu")
    assert found.activations == real.saved
    leaf_bytes = sum(leaf.numel() * leaf.element_size() for leaf in leaves)
    assert found.temporaries == max(0, real.height - real.saved - leaf_bytes)
    assert found.weights == sum(4 * p.numel() for p in network.parameters()) + sum(
        buffer.numel() * buffer.element_size() for buffer in network.buffers()
    )


def test_a_pass_by_hand() -> None:
    class Line(Network):
        """One matrix, whose squared outputs are the loss."""

        def __init__(self) -> None:
            super().__init__()
            self.matrix = torch.nn.Parameter(torch.ones(3, 5))

        def loss(self, tokens_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
            return (self.matrix * self.matrix).exp().sum()

    network = Line()
    found = measure_pass(network, network.begin_step(), torch.zeros(1, 1), Recipe())
    # exp keeps its result of 15 float32; forward holds the square beside it.
    assert found.saved == 60
    assert found.height >= 120


@pytest.mark.parametrize("name", ["dense", "legendre", "recursive"])
def test_the_peak_is_that_of_real_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "ENOUGH_SECONDS", 0.0)
    method, settings = at(name)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        timing.time_steps(method, settings, "cpu", method.flops_per_step(settings.train.batch_tokens))
    assert profiler.profiler is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    assert 1 <= measure_footprint(method, settings.train, "cpu").peak / held.max() < 1.1


def test_flash_attention_keeps_no_scores() -> None:
    bytes_at = {}
    for context in (64, 1024):
        sizes = ("train.micro_batch_tokens=1024", "train.batch_tokens=1024", "train.precision=bfloat16")
        method, settings = at("dense", f"train.context={context}", *sizes)
        bytes_at[context] = measure_footprint(method, settings.train, "cuda").activations or 0
    # Scores would be 4 layers x 4 heads x 1024 x 1024 bfloat16, 34 MB; tables of rotations do grow with the context.
    assert bytes_at[1024] == pytest.approx(bytes_at[64], rel=0.05)


def test_float32_with_shared_keys_keeps_the_scores_on_a_gpu() -> None:
    method, settings = at("dense", "train.context=256")
    plain = measure_footprint(method, settings.train, "cuda").activations or 0
    method, settings = at("dense", "train.context=256", "num_kv_heads=4")
    flash = measure_footprint(method, settings.train, "cuda").activations or 0
    scores = 4 * 4 * 256 * 256 * 4  # layers, heads, queries, keys, bytes
    assert plain - flash == pytest.approx(scores, rel=0.1)


def test_kernels_are_those_of_the_device_again_afterwards() -> None:
    x = torch.zeros(1)
    with pytest.raises(ZeroDivisionError), kernels_of("cuda"):
        assert kernel_device(x) == "cuda"
        raise ZeroDivisionError
    assert kernel_device(x) == "cpu"


def test_a_step_is_timed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "ENOUGH_SECONDS", 0.0)
    said: list[str] = []
    found = make_forecast(request(device="here"), said.append)
    assert found.device.is_timed and found.device.mfu is None
    assert 0 < (found.time.step_seconds or 0) < 60
    assert found.time.train_seconds == pytest.approx(10 * (found.time.step_seconds or 0))
    assert said and "timing" in said[0]


def test_whole_periods_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "ENOUGH_SECONDS", 0.0)
    info = find_method("recursive")
    settings = resolve_settings(info, "tiny-crawler", ())
    recipe = settings.train
    method = info.load()(settings.model, Task(vocab_size=256, context=recipe.context))
    assert method.cost_period > 1
    taken: list[int] = []
    monkeypatch.setattr(timing, "fmean", lambda seconds: taken.append(len(seconds)) or 1.0)
    timing.time_steps(method, settings, "cpu", method.flops_per_step(recipe.batch_tokens))
    assert taken[0] > 0 and taken[0] % method.cost_period == 0


def test_a_run_that_does_not_fit_here_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_setup, "device_memory_bytes", lambda device: 1_000_000)
    found = plan(device="here", budget="2m")
    assert not found.memory.fits
    assert (found.time.step_seconds, found.budget.steps, found.flops.run) == (None, None, None)
    assert "does not fit" in found.warnings[0]


def test_devices_have_sane_figures() -> None:
    for name, device in known_accelerators().items():
        assert 10 < device.float32_tflops < device.bf16_tflops < 10_000, name
        assert device.peak_flops("bfloat16") == device.bf16_tflops * 1e12
        assert device.source, name


@pytest.mark.parametrize(("tokenizer", "size"), [(None, 1024), ("bytes", 256), ("sp4096", 4096)])
def test_a_corpus_that_is_not_there_has_the_vocabulary_of_its_name(
    tokenizer: str | None, size: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_data(monkeypatch, tmp_path)
    outlook = look_at_data("fineweb", tokenizer=tokenizer)
    assert (outlook.data, outlook.vocab_size) == (None, size)
    assert "not on this machine" in outlook.note


def test_a_path_that_is_not_there_needs_a_vocabulary() -> None:
    with pytest.raises(UsageError, match="no such"):
        look_at_data("text:nowhere.txt")
    assert look_at_data("shards:nowhere", vocab_size=1024).vocab_size == 1024


def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HARNESS_DATA_DIR", "HARNESS_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))


PLAN = ["plan", "--method", "dense", "--preset", "tiny", "--budget", "10steps", "--data", "synthetic"]
H100 = [*PLAN, "--device", "h100"]


def test_the_command_says_that_seconds_are_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*H100, "--price", "2.5"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in (
        "an assumption, never a measurement",
        f"trained {PARAMS:,}",
        "10 steps of 512 tokens",
        "price",
        "fits",
    ):
        assert words in out
    assert run_command([*H100, "--format", "markdown"]) == 0
    assert capsys.readouterr().out.startswith("**plan**")


def test_json_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*H100, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {key: sorted(value) if isinstance(value, dict) else None for key, value in document.items()} == {
        "method": None,
        "preset": None,
        "data": None,
        "vocab_size": None,
        "device": ["is_timed", "memory_bytes", "mfu", "name", "peak_flops", "precision", "title"],
        "params": ["active", "bytes_after_coding", "bytes_before_coding", "effective", "stored", "trained"],
        "flops": ["backward", "forward", "generation", "optimiser", "run", "step", "teacher", "token"],
        "budget": ["epochs", "steps", "text", "tokens", "tokens_per_step"],
        "memory": [
            "activations",
            "averages",
            "fits",
            "generated_weights",
            "gradients",
            "optimiser_state",
            "peak",
            "teacher",
            "temporaries",
            "warm_up_copy",
            "weights",
        ],
        "time": ["device_hours", "export_seconds", "price", "run_seconds", "step_seconds", "train_seconds"],
        "warnings": None,
        "notes": None,
    }
    assert document["flops"]["step"] == pytest.approx(STEP)
    assert document["time"]["price"] is None


def test_every_field_is_described() -> None:
    for figures in vars(forecast_schema).values():
        if is_dataclass(figures):
            for field in fields(figures):
                assert f"        {field.name}: " in (figures.__doc__ or ""), (figures, field.name)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        ([*PLAN, "--device", "h10"], 2, "Did you mean 'h100'"),
        ([*H100, "--price", "-1"], 2, "--price -1"),
        ([*H100, "--mfu", "0"], 2, "--mfu 0"),
        ([*H100, "--mfu", "1.5"], 2, "--mfu 1.5"),
        ([*H100, "--mfu", "nan"], 2, "--mfu nan"),
        ([*H100, "--price", "nan"], 2, "--price nan"),
        ([*H100, "--vocab", "300"], 2, "--vocab 300"),
        ([*H100, "--method", "dens"], 2, "Did you mean 'dense'"),
        ([*H100, "--preset", "tin"], 2, "Did you mean 'tiny'"),
        ([*H100, "--format", "xml"], 2, "--format xml"),
        ([*H100, "--set", "width=x"], 2, "model.width"),
        ([*H100, "--budget", "27"], 2, "no unit"),
        ([*H100, "--budget", "100tok"], 4, "too small for one step"),
        ([*H100, "--budget", "0.2s"], 4, "too small for one step"),
        (["plan", "--method", "dense"], 2, "--budget"),
    ],
)
def test_wrong_use_is_one_line(
    arguments: list[str], exit_code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(arguments) == exit_code
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert said in error
    assert "\n" not in error


def test_an_unknown_vocabulary_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_data(monkeypatch, tmp_path)
    asked = [*H100, "--data", "fineweb", "--tokenizer", "characters"]
    assert run_command(asked) == 2
    assert "give --vocab N" in capsys.readouterr().err
    assert run_command([*asked, "--vocab", "300", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["vocab_size"], document["budget"]["epochs"]) == (300, None)


def test_a_model_larger_than_the_device_is_planned_without_memory(capsys: pytest.CaptureFixture[str]) -> None:
    large = ["--set", "width=65536", "--set", "mlp_width=262144", "--set", "num_layers=8", "--format", "json"]
    assert run_command([*H100, *large]) == 4
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["memory"]["fits"] is False
    assert document["params"]["trained"] > 1e11
    assert "does not fit" in document["warnings"][0]
    assert not captured.err


def test_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timing, "ENOUGH_SECONDS", 0.0)
    assert run_command(H100) == 0
    assert run_command(PLAN) == 0
    assert not list(tmp_path.iterdir())
