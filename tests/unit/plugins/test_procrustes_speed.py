"""Variants of a model whose maps run in structured form: counts, bytes, the table, models without weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from methods.procrustes import speed
from methods.procrustes.layer import StructuredLinear
from methods.procrustes.speed import main, time_in_turns, weight_bytes
from methods.procrustes.variants import SLICING, VARIANTS, build_variant, draw_model

transformers = pytest.importorskip("transformers", reason="needs the extra hf")

WIDTH, INNER, LAYERS, VOCAB, POSITIONS = 64, 128, 2, 40, 32
TOKENS = torch.randint(0, VOCAB, (1, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config")
    transformers.OPTConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        word_embed_proj_dim=WIDTH,
        ffn_dim=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=POSITIONS,
        architectures=["OPTForCausalLM"],
    ).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return draw_model(str(folder))


@torch.no_grad()
def test_the_rotated_model_does_what_the_dense_one_does(model: Any) -> None:
    rotated = build_variant("dense, rotated", model, 0.5)
    expected = model(input_ids=TOKENS).logits
    torch.testing.assert_close(rotated(input_ids=TOKENS).logits, expected, rtol=0, atol=1e-4 * expected.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "dense, rotated"])
def test_maps_have_at_most_their_share_and_run(model: Any, name: str) -> None:
    variant = build_variant(name, model, 0.5)
    maps = [module for module in variant.modules() if isinstance(module, StructuredLinear)]
    assert len(maps) == 5 * LAYERS
    for module in maps:
        structure = module.structure
        # one term, or one rank of each block, at the least
        assert sum(factor.numel() for factor in module.factors) == structure.num_params
        assert (
            0.3 * structure.rows * structure.columns < structure.num_params <= 0.51 * structure.rows * structure.columns
        )
    assert variant(input_ids=TOKENS).logits.isfinite().all()
    assert sum(p.numel() for p in model.parameters()) * 4 <= weight_bytes(model)


@torch.no_grad()
@pytest.mark.parametrize("name", [*VARIANTS, SLICING])
def test_models_drawn_in_bfloat16_stay_in_it(folder: Path, name: str) -> None:
    narrow = draw_model(str(folder), device="cpu", dtype=torch.bfloat16)
    variant = build_variant(name, narrow, 0.5)
    assert {parameter.dtype for parameter in variant.parameters()} == {torch.bfloat16}
    logits = variant(input_ids=TOKENS).logits
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


@torch.no_grad()
def test_models_are_drawn_on_the_device_that_is_named(folder: Path) -> None:
    # a device without memory: what is drawn elsewhere, or copied to the processor, shows
    drawn = draw_model(str(folder), device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in drawn.parameters()} == {("meta", torch.bfloat16)}
    assert drawn(input_ids=TOKENS.to("meta")).logits.shape == (1, 12, VOCAB)


def test_what_has_no_room_is_said_in_its_cells(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(models: Any, window: torch.Tensor, repeats: int) -> list[float]:
        if window.numel() > 1:
            raise torch.OutOfMemoryError
        return [0.002, 0.001]

    monkeypatch.setattr(speed, "time_in_turns", run_out)
    lines = list(speed.measure(model, ["low rank, no skips"], 0.5, [1, 16], 1))
    assert lines[2].endswith(f"| 1 | {speed.NO_ROOM} |")
    assert lines[3].endswith(f"| 1 (0.50) | {speed.NO_ROOM} |")


def test_a_gpu_that_is_not_there_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([str(folder), "--device", "cuda"]) == 2
    assert capsys.readouterr().err == ("error: --device cuda: torch sees no GPU here. Leave it out for the processor\n")


def test_bytes_are_counted_once(model: Any) -> None:
    tables = (VOCAB + POSITIONS + 2) * WIDTH
    block = 4 * (WIDTH + 1) * WIDTH + 2 * WIDTH * INNER + INNER + WIDTH + 4 * WIDTH
    # the head is the table
    assert weight_bytes(model) == 4 * (tables + LAYERS * block + 2 * WIDTH)


def test_models_take_turns() -> None:
    calls: list[str] = []
    models = [lambda name=name, **_: calls.append(name) for name in "ab"]
    times = time_in_turns(models, TOKENS, 2)
    assert calls == list("ababab")
    assert all(0 <= time < 1 for time in times)


def test_the_command_prints_a_row_for_each_variant(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(folder), "--tokens", "1", "16", "999", "--repeats", "1", "--rows", "low rank, no skips", SLICING]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"| maps (processor, threads: {torch.get_num_threads()}, float32) |")
    assert lines[0].count("ms a token") == 2
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[0] for row in cells] == ["dense", "low rank, no skips", SLICING]
    numbers = [int(row[1].replace(",", "")) for row in cells]
    assert numbers[0] > max(numbers[1:])
    megabytes = [float(row[2]) for row in cells]
    assert megabytes == pytest.approx([4 * number / 1e6 for number in numbers], abs=0.051)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--share", "1/0"], "divides by zero"),
        (["--share", "5"], "--share is above 0 and at most 1"),
        (["--repeats", "0"], "--tokens and --repeats are at least 1"),
        (["--tokens", "-3"], "--tokens and --repeats are at least 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    options: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(folder), *options])
    assert said in capsys.readouterr().err


def test_windows_that_are_all_too_long_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--tokens", "4096", "--rows", "slicing"]) == 2
    assert "the model takes windows of at most" in capsys.readouterr().err


def test_a_folder_without_configuration_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no readable config.json. Give a folder in the hub's layout" in error
