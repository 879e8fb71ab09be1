"""Small models trained as sources of compressions: their schedule, that they learn, that a seed gives the same one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.data.prepare import prepare
from harness.errors import UsageError
from harness.pretrained.load import load_pretrained
from harness.pretrained.source import hash_weights
from methods.procrustes import source_model
from methods.procrustes.source_model import WARM_UP_STEPS, main, make_model, rate_at

pytest.importorskip("transformers", reason="needs the extra hf")


def test_the_rate_warms_up_and_ends_near_zero() -> None:
    rates = [rate_at(step, 1000) for step in range(1000)]
    assert rates[0] == 1 / WARM_UP_STEPS
    assert max(rates) == rates[WARM_UP_STEPS] == 1
    assert rates[550] == pytest.approx(0.5)  # half of the way down
    assert 0 < rates[-1] < 1e-5


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(UsageError, match="--width 30: 4 heads do not divide it. Give a multiple of 4"):
        make_model(30, 1, 0)


def test_a_seed_gives_the_same_model_which_has_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # a corpus that is everywhere, in place of the one that may have to be fetched
    monkeypatch.setattr(source_model, "prepare", lambda name, tokenizer: prepare("synthetic", tokenizer=tokenizer))
    options = ["--steps", "25", "--width", "16", "--layers", "1"]
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main([str(tmp_path / name), "--seed", seed, *options]) == 0
    assert capsys.readouterr().err == ""
    first, again, other = (load_pretrained(str(tmp_path / name)) for name in "abc")
    assert hash_weights(first) == hash_weights(again) != hash_weights(other)
    text = prepare("synthetic", tokenizer="bytes").train.read(0, 129 * 8)
    tokens = torch.from_numpy(text.astype("int64")).view(8, 129)[:, :128]
    untrained = make_model(16, 1, 1).eval()
    with torch.no_grad():
        losses = [model(input_ids=tokens, labels=tokens).loss.item() for model in (untrained, first)]
    assert losses[1] < losses[0] - 0.05


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["new", "--steps", "0"], "at least 1"),
        (["new", "--seed", "-1"], "--seed is at least 0"),
        (["taken.txt"], "choose a folder that is empty or is not there"),
    ],
)
def test_what_could_not_be_trained_or_saved_is_refused_before_it(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken.txt").write_text("here")
    with pytest.raises(SystemExit, match="2"):
        main(options)
    assert said in capsys.readouterr().err
