"""Artifacts whose headers promise what their tensors do not keep, and networks that see what they predict."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.artifact.container import write_artifact
from harness.data.tokenizers import ByteTokenizer
from harness.errors import ArtifactError, MissingExtraError, UsageError
from harness.evaluate import score_artifact
from harness.loading import check_causal, load_artifact
from harness.method import ExportSettings, Task
from harness.nn.network import Network
from harness.registry import find_method
from harness.scoring import EvalMode, ScoreRequest
from harness.settings import resolve_settings

CONTEXT = 16


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the tiny dense network with its header changed."""
    info, tokenizer = find_method("dense"), ByteTokenizer()
    settings = resolve_settings(info, "tiny", ("width=16", "mlp_width=16", "num_layers=2")).model
    task = Task(vocab_size=tokenizer.vocab_size, context=CONTEXT)
    torch.manual_seed(0)
    method = info.load()(settings, task)
    tensors = method.export(method.build(), ExportSettings())
    meta = {
        "method": "dense",
        "settings": {"model": settings.model_dump(mode="json")},
        "task": asdict(task),
        "tokenizer": {"kind": tokenizer.kind},
    }

    def write(change: Callable[[dict[str, Any]], object] = lambda meta: None) -> Path:
        change(meta)
        write_artifact(tmp_path / "a.bin", meta=meta, tensors=tensors, blobs={"tokenizer": b""})
        return tmp_path / "a.bin"

    return write


def put(*keys: str, value: object) -> Callable[[dict[str, Any]], object]:
    def change(meta: dict[str, Any]) -> None:
        for key in keys[:-1]:
            meta = meta[key]
        meta[keys[-1]] = value

    return change


def test_an_honest_artifact_is_scored(write: Callable[..., Path], tmp_path: Path) -> None:
    result = score_artifact(
        ScoreRequest(
            artifact=str(write()),
            data="synthetic",
            eval_mode=EvalMode(context=CONTEXT, stride=CONTEXT),
            scores_path=str(tmp_path / "scores.npz"),
        )
    )
    assert result["metrics"]["test"]["val_bpb"] == pytest.approx(8, abs=0.1)
    assert result["test_openings"] == ["score the artifact"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "scores.npz"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda meta: meta.pop("task"), "does not describe a model"),
        (put("task", value=7), "does not describe a model"),
        (put("task", "vocab_size", value="many"), "does not describe a model"),
        (put("task", "vocab_size", value=255), "does not fit a tokenizer"),
        (put("task", "context", value=0), "does not fit a tokenizer"),
        (put("tokenizer", "kind", value="words"), "no tokenizer"),
        (put("settings", "model", "num_heads", value=3), "num_heads"),
        (put("settings", "model", "colour", value=3), "colour"),
        (put("settings", "model", "num_layers", value=5), "disagree|schedule"),
        (put("settings", "model", "width", value=1 << 20), "network of over"),
        (put("settings", "model", "mlp_width", value=1 << 62), "does not describe a model|network of over"),
        (put("settings", "model", "num_layers", value=1 << 17), "num_layers"),
        (put("task", "vocab_size", value=1 << 40), "network of over"),
    ],
)
def test_a_header_that_makes_no_model_is_the_files_fault(
    change: Callable[[dict[str, Any]], object], told: str, write: Callable[..., Path]
) -> None:
    with pytest.raises(ArtifactError, match=told) as caught:
        load_artifact(write(change))
    assert str(caught.value).count("a.bin") == 1
    assert "\n" not in str(caught.value)


def test_nothing_of_a_forged_size_is_allocated(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(put("settings", "model", "width", value=1 << 14))
    built: list[str] = []
    method_class = find_method("dense").load()
    build = method_class.build
    monkeypatch.setattr(method_class, "build", lambda self: built.append(str(torch.zeros(()).device)) or build(self))
    with pytest.raises(ArtifactError, match="network of over"):
        load_artifact(path)
    assert built == ["meta"]


def test_no_hook_stays_behind(write: Callable[..., Path]) -> None:
    with pytest.raises(ArtifactError):
        load_artifact(write(put("settings", "model", "width", value=1 << 20)))
    module = sys.modules["torch.nn.modules.module"]
    assert not module._global_parameter_registration_hooks
    assert not module._global_module_registration_hooks


def test_a_method_that_is_not_installed_is_not_the_files_fault(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="unknown method 'elsewhere'"):
        load_artifact(write(put("method", value="elsewhere")))
    monkeypatch.setattr("harness.registry.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="dense"):
        load_artifact(write(put("method", value="dense")))


def test_windows_longer_than_the_networks_context_are_refused(write: Callable[..., Path]) -> None:
    mode = EvalMode(context=2 * CONTEXT, stride=CONTEXT)
    with pytest.raises(ArtifactError, match="made for a context of 16"):
        score_artifact(ScoreRequest(artifact=str(write()), data="synthetic", eval_mode=mode))


class Sums(Network):
    """Logits from the sum of the tokens that `sees` lets each position see."""

    def __init__(self, sees: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.ones(()))
        self.sees = sees

    def forward(self, tokens_BT: Tensor, last: int | None = None) -> Tensor:
        places = torch.arange(tokens_BT.shape[1])
        mask_TT = self.sees(places[:, None], places[None, :]).float()
        summed_BT = tokens_BT.float() @ mask_TT.T
        return (summed_BT[:, -(last or len(places)) :, None] * self.anchor).expand(-1, -1, 7)


def looks(sees: Callable[[Tensor, Tensor], Tensor], context: int = CONTEXT) -> None:
    check_causal(Sums(sees), vocab_size=7, context=context)


@pytest.mark.parametrize("context", [1, 2, 3, CONTEXT])
def test_a_causal_network_passes(context: int) -> None:
    looks(lambda at, other: other <= at, context)


@pytest.mark.parametrize(
    "sees",
    [
        lambda at, other: other <= at + 1,  # the token to be predicted
        lambda at, other: other >= 0,
        lambda at, other: (other <= at) | (other == CONTEXT - 1),
        lambda at, other: (other <= at) | (other // 4 == at // 4),  # within chunks
        lambda at, other: (other <= at) | ((other // 8 == 0) & (at // 8 == 0)),  # in the first half only
    ],
)
def test_a_network_that_peeks_is_refused(sees: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(ArtifactError, match="the network looks ahead: logits before position"):
        looks(sees)
