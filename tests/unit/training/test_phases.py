"""Late quantisation, replay and distillation: when they begin, what they read, what they change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import short_trainings
import torch
from short_trainings import make

import harness.training.loop as loop
from harness.artifact.container import Artifact
from harness.artifact.quantize import dequantise
from harness.artifact.writer import write_artifact
from harness.data.batches import Batches
from harness.errors import UsageError
from harness.method import ExportSettings
from harness.nn.network import Network
from harness.records.logs import read_log
from harness.registry import find_method
from harness.training.budget import parse_budget, whole_steps
from harness.training.clock import Clock
from harness.training.distill import distillation_loss
from harness.training.loop import Trainer
from harness.training.phases import Phases, describe_surprises, positions_as_logged, teacher_flops
from harness.training.qat import as_stored

STEPS = 10
QAT = {"qat_start": "60%"}
REPLAY = {"replay_start": "6", "replay_batches": 3}
DISTILL = {"ema_decay": 0.9, "distill_start": "-2"}
ALL = {**QAT, **REPLAY, **DISTILL}
EXPORT = ExportSettings(matrices="int4-row", embeddings="int6-row-search")


def train(
    folder: Path,
    *,
    name: str = "dense",
    clock: Clock | None = None,
    stop_at: int = 0,
    after_step: Callable[[int], None] = lambda step: None,
    export: ExportSettings = EXPORT,
    **changes: Any,
) -> Network:
    """Train the tiny preset of a method, settings of its recipe changed."""
    method, settings = make(name)
    recipe = type(settings.train).model_validate({**settings.train.model_dump(), **changes})
    return short_trainings.train(
        folder, method, recipe, num_steps=STEPS, clock=clock, stop_at=stop_at, after_step=after_step, export=export
    )


def same(first: Network, second: Network) -> bool:
    return all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


@pytest.mark.parametrize("name", ["dense", "legendre"])
def test_each_option_changes_the_result(tmp_path: Path, name: str) -> None:
    averaged = {"ema_decay": 0.9}
    plain = train(tmp_path / "plain", name=name)
    with_average = train(tmp_path / "ema", name=name, **averaged)
    assert not same(plain, train(tmp_path / "qat", name=name, **QAT))
    assert not same(plain, train(tmp_path / "replay", name=name, **REPLAY))
    assert not same(with_average, train(tmp_path / "distill", name=name, **DISTILL))


@pytest.mark.parametrize(("name", "stop_at"), [("dense", 6), ("dense", 9), ("legendre", 9), ("recursive", 7)])
def test_a_stopped_run_with_everything_on_goes_on_bit_by_bit(
    tmp_path: Path, name: str, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    whole = train(tmp_path / "whole", name=name, **ALL)
    with pytest.raises(InterruptedError):
        train(tmp_path / "cut", name=name, stop_at=stop_at, **ALL)
    assert same(whole, train(tmp_path / "cut", name=name, **ALL))


SCHEMES = ("int4-row", "int6-row-search", "int8-tensor", "int5-step", "ternary-row", "frugendorff-int6", "fp16")


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        *((name, scheme) for name in ("dense", "mpo") for scheme in SCHEMES),
        *((name, "int4-row") for name in ("legendre", "recursive", "pruning", "low_rank")),
        ("quantised", "ternary-row"),
    ],
)
def test_what_a_step_sees_is_what_the_file_gives_back(tmp_path: Path, name: str, scheme: str) -> None:
    torch.manual_seed(1)
    method = make(name)[0]
    network = method.build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    latent = {key: value.detach().clone() for key, value in network.named_parameters()}
    export = ExportSettings(matrices=scheme, embeddings=scheme)
    write_artifact(tmp_path / "a.bin", meta={}, tensors=method.export(network, export), blobs={})
    decoded = dict(method.evaluate(Artifact.open(tmp_path / "a.bin").decode_tensors()).named_parameters())
    with as_stored(network, method, export):
        assert network.training
        assert all(torch.equal(value, decoded[key]) for key, value in network.named_parameters())
        assert scheme == "fp16" or any(not torch.equal(value, latent[key]) for key, value in decoded.items())
    assert all(torch.equal(value, latent[key]) for key, value in network.named_parameters())


@pytest.mark.parametrize("name", ["dense", "legendre"])
def test_the_last_steps_see_the_network_that_is_stored(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    real = Trainer._accumulate

    def listen(self: Trainer, state: Any, index: int) -> float:
        seen.append({key: value.detach().clone() for key, value in state.network.named_parameters()})
        return real(self, state, index)

    monkeypatch.setattr(Trainer, "_accumulate", listen)
    # rates of zero at the end: the weights seen by the last step are those that it leaves
    network = train(tmp_path / "run", name=name, lr_curve=[["0", 1.0], ["-1", 0.0]], **QAT)
    method, _ = make(name)
    stored = {tensor.name: dequantise(tensor.quantise()) for tensor in method.export(network, EXPORT)}
    decoded = dict(method.evaluate(stored).named_parameters())
    assert all(torch.equal(value, decoded[key]) for key, value in seen[-1].items())
    assert any(not torch.equal(value, decoded[key]) for key, value in network.named_parameters())


def test_a_network_that_cannot_take_what_is_stored_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method_class = find_method("dense").load()
    real = method_class.export
    monkeypatch.setattr(method_class, "export", lambda *arguments: real(*arguments)[1:])
    with pytest.raises(UsageError, match=r"^train.qat_start: .*do not fit the network") as caught:
        train(tmp_path / "run", **QAT)
    assert "\n" not in str(caught.value)


def test_replay_reads_the_last_batches_again_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = Batches.batch

    def listen(self: Batches, step: int, micro: int) -> tuple[np.ndarray, np.ndarray]:
        read.append(step)
        return real(self, step, micro)

    monkeypatch.setattr(Batches, "batch", listen)
    train(tmp_path / "run", **REPLAY, **DISTILL)
    assert read[-2 * STEPS :: 2] == [0, 1, 2, 3, 4, 5, 3, 4, 5, 3]
    log = read_log(tmp_path / "run")
    rates = [1.0 - step / STEPS for step in range(6)] + [0.1, 0.1, 0.05, 0.05]
    assert [step.lr_scale for step in log.steps] == pytest.approx(rates)
    begun = [(event.fields["step"], event.fields["phase"]) for event in log.events if event.event == "phase"]
    assert begun == [(7, "replay"), (9, "distill")]


def test_without_replay_distillation_reads_the_next_batches() -> None:
    phases = Phases({"distill_start": "5", "distill_lr": 0.05})
    phases.advance(5, 10)
    assert (phases.batch_index(7), phases.lr_scale(0.5)) == (7, 0.05)


def test_a_phase_goes_on_though_the_end_moves_away() -> None:
    phases = Phases({"qat_start": "-5", "replay_start": "-5", "replay_batches": 2, "replay_lr": 0.1})
    assert phases.advance(15, float("inf")) == []
    assert phases.advance(15, 20) == ["qat", "replay"]
    assert phases.advance(16, 1000) == []
    assert [phases.batch_index(step) for step in range(15, 20)] == [13, 14, 13, 14, 13]


def test_a_run_shorter_than_its_phases_takes_one_ordinary_step() -> None:
    phases = Phases({"replay_start": "-250", "replay_batches": 100, "replay_lr": 0.1})
    assert (phases.advance(0, 20), phases.advance(1, 20), phases.batch_index(7)) == ([], ["replay"], 0)


def test_the_loss_of_distillation_by_hand() -> None:
    # one token in each of two sequences, two entries: softmax((ln 3) / 1) = (3/4, 1/4) at temperature 2
    log = np.log
    teacher = torch.tensor([[[2 * log(3), 0.0]], [[0.0, 0.0]]])
    student = torch.tensor([[[0.0, 0.0]], [[2 * log(4), 0.0]]])
    loss, cross_entropy = distillation_loss(student, teacher, torch.tensor([[0], [1]]), temperature=2.0, weight=0.7)
    first = 0.75 * log(0.75 / 0.5) + 0.25 * log(0.25 / 0.5)
    second = 0.5 * log(0.5 / 0.8) + 0.5 * log(0.5 / 0.2)
    usual = (log(2) + log(17)) / 2
    assert float(cross_entropy) == pytest.approx(usual)
    assert float(loss) == pytest.approx(0.7 * 4 * (first + second) / 2 + 0.3 * usual)


def test_the_divergence_is_summed_over_the_tokens_of_a_sequence() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 1, 3, 5)
    targets = torch.tensor([[0, 1, 2]])
    whole, _ = distillation_loss(student, teacher, targets, temperature=2.0, weight=1.0)
    parts = [
        distillation_loss(student[:, t : t + 1], teacher[:, t : t + 1], targets[:, t : t + 1], temperature=2, weight=1)
        for t in range(3)
    ]
    assert float(whole) == pytest.approx(sum(float(part) for part, _ in parts), rel=1e-5)


@pytest.mark.parametrize("name", ["dense", "legendre", "recursive"])
def test_the_teacher_runs_inside_the_network_it_teaches(name: str) -> None:
    torch.manual_seed(0)
    method = make(name)[0]
    network, other = method.build().train(), method.build().eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    tokens = torch.randint(256, (2, 32))
    leaves = network.begin_step()
    before = [leaf.detach().clone() for leaf in leaves]
    logits = network.logits_with({key: value.detach() for key, value in other.named_parameters()}, tokens)
    torch.testing.assert_close(logits, other(tokens).detach())
    assert network.training
    assert not logits.requires_grad
    assert all(map(torch.equal, leaves, before))
    network.finish_step(torch.autograd.grad(network.loss(tokens, tokens), leaves))


@pytest.mark.parametrize(("start", "num_steps"), [("-10", 30), ("20", 30), ("50%", 28), ("", 33), ("-200", 25)])
def test_steps_within_a_budget_in_operations_by_hand(start: str, num_steps: int) -> None:
    # A step takes 3 operations, a step with a teacher 4: 30 x 3 + 10; 28 x 3 + 14; the first has no teacher.
    extra = teacher_flops({"distill_start": start}, 3.0)
    assert whole_steps(100, 3.0, extra) == num_steps
    assert num_steps * 3 + extra(num_steps) <= 100 < (num_steps + 1) * 3 + extra(num_steps + 1)


@pytest.mark.parametrize(("start", "num_steps"), [("50%", 11), ("4", 9)])
def test_a_budget_in_operations_holds_the_teacher_too(tmp_path: Path, start: str, num_steps: int) -> None:
    forward = make("dense")[0].flops_per_step(128) / 3
    # `train` declares one operation a step, so nearly all of this is the teacher's
    clock = Clock(parse_budget(f"{5.5 * forward:.0f}flop"))
    train(tmp_path / "run", clock=clock, ema_decay=0.9, distill_start=start)
    assert clock.num_steps == num_steps
    assert clock.num_flops == pytest.approx(5 * forward, rel=0.01)


def test_the_forward_pass_of_the_teacher_is_counted(tmp_path: Path) -> None:
    clock = Clock(parse_budget(f"{STEPS}steps"))
    train(tmp_path / "run", clock=clock, **DISTILL)
    forward = make("dense")[0].flops_per_step(128) / 3
    # ten steps of one operation, as `train` declares, and two with a teacher
    assert clock.num_flops == pytest.approx(STEPS + 2 * forward, rel=0.05)


def test_a_slow_first_step_of_a_timed_run_begins_no_phase(tmp_path: Path) -> None:
    seconds = [0.0]

    def pass_time(step: int) -> None:
        seconds[0] += 3.5 if step == 1 else 1.0

    # By the first step alone 40 seconds hold 11 steps, of which the second would be the eleventh before the end.
    clock = Clock(parse_budget("40s"), now=lambda: seconds[0])
    train(tmp_path / "run", clock=clock, after_step=pass_time, qat_start="-11")
    begun = [event.fields["step"] for event in read_log(tmp_path / "run").events if event.event == "phase"]
    assert clock.num_steps == 37
    assert begun == [27]


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
# torch.compile imports modules that use deprecated functions, of torch and of the standard library
as_torch_warns = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@needs_compiler
@as_torch_warns
@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", "recursive"])
def test_the_phases_under_torch_compile_are_those_of_the_plain_run(tmp_path: Path, name: str) -> None:
    def losses(folder: Path, **changes: Any) -> np.ndarray:
        export = ExportSettings(matrices="ternary-row", embeddings="ternary-row")
        train(folder, name=name, export=export, **REPLAY, **DISTILL, **changes)
        return np.array([step.loss_nats for step in read_log(folder).steps])

    late = {"qat_start": "2"}
    plain, compiled = (losses(tmp_path / str(on), compile=on, **late) for on in (False, True))
    # A compiled product differs by 1e-7, which a symbol that rounds the other way makes 1e-3.
    assert abs(compiled - plain).max() < 5e-3 < 2e-2 < abs(losses(tmp_path / "without") - plain).max()


@needs_compiler
@as_torch_warns
@pytest.mark.parametrize("name", ["dense", "recursive"])
def test_a_compiled_network_sees_what_the_file_gives_back(tmp_path: Path, name: str) -> None:
    # In the published code the switch is a class attribute, which torch.compile takes for a constant.
    torch.manual_seed(1)
    method, _ = make(name)
    network = method.build().eval()
    compiled = torch.compile(network)
    tokens = torch.randint(256, (1, 16))
    with torch.no_grad():
        before = compiled(tokens)
        with as_stored(network, method, EXPORT):
            seen = compiled(tokens)
        stored = {tensor.name: dequantise(tensor.quantise()) for tensor in method.export(network, EXPORT)}
        expected = method.evaluate(stored)(tokens)
        torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(compiled(tokens), before, atol=0, rtol=0)
        assert not torch.allclose(seen, before, atol=1e-3)


def test_beginnings_as_logged_begin_at_the_same_steps() -> None:
    settings = {"qat_start": "50%", "swa_start": "-3", "replay_start": "", "distill_start": "-50"}
    positions = positions_as_logged(settings, {"qat": 17, "swa": 18})
    assert positions == {"qat_start": "17", "swa_start": "19", "distill_start": ""}
    phases = Phases(positions)
    assert [phases.advance(step, 1000) for step in (16, 17, 18)] == [[], ["qat"], ["swa"]]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"qat_start": "20"}, ["qat_start = 20 is never reached in 20 steps"]),
        ({"replay_start": "-250"}, ["replay_start = -250 is before the run of 20 steps: it begins at once"]),
        ({"qat_start": "0", "replay_start": "19", "distill_start": "-20", "swa_start": "100%"}, []),
        ({"swa_start": "21"}, ["swa_start = 21 is never reached in 20 steps"]),
        ({"swa_start": "-21"}, ["swa_start = -21 is before the run of 20 steps: it begins at once"]),
        ({"swa_start": "0", "qat_start": ""}, []),
    ],
)
def test_phases_out_of_the_run_are_named(settings: dict[str, str], said: list[str]) -> None:
    assert list(describe_surprises(settings, 20)) == said


@pytest.mark.parametrize(
    ("start", "first"),
    [("0", 0), ("80%", 7), ("-1", 8), ("8", 7), ("100%", 9), ("1000", None)],  # the last of ten steps has index 9
)
def test_a_uniform_average_takes_in_what_its_position_finds(start: str, first: int | None) -> None:
    phases = Phases({"swa_start": start})
    begun = [step for step in range(10) if phases.advance(step, 10) == ["swa"]]
    assert begun == ([] if first is None else [first])


def test_the_weights_of_the_last_steps_are_averaged(tmp_path: Path) -> None:
    left: list[np.ndarray] = []
    method, settings = make("dense")
    build, networks = method.build, []
    method.build = lambda: networks.append(build()) or networks[-1]

    def note(step: int) -> None:
        left.append(networks[-1].get_parameter("blocks.0.mlp.up.weight").detach().numpy().copy())

    recipe = settings.train.model_copy(update={"swa_start": "80%"})
    network = short_trainings.train(tmp_path / "run", method, recipe, num_steps=STEPS, after_step=note)
    averaged = network.get_parameter("blocks.0.mlp.up.weight").detach().numpy()
    np.testing.assert_allclose(averaged, np.mean(left[-3:], axis=0), atol=1e-6)  # after steps 8, 9 and 10
