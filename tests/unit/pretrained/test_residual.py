"""Folding norms and changing bases leaves the function of each family as it is; what cannot is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_writer import write_gguf
from torch import Tensor, nn

from harness.errors import RunError, UsageError
from harness.pretrained.families import find_family
from harness.pretrained.load import load_pretrained
from harness.pretrained.residual import ResidualModel

transformers = pytest.importorskip("transformers", reason="needs the extra hf")

SIZES = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "attn_implementation": "sdpa",
}
ROTARY = SIZES | {"num_key_value_heads": 2, "intermediate_size": 40}
FAMILIES = {
    "opt": lambda **more: transformers.OPTConfig(**SIZES, ffn_dim=40, word_embed_proj_dim=24, **more),
    "llama": lambda **more: transformers.LlamaConfig(**ROTARY, attention_bias=True, mlp_bias=True, **more),
    "qwen2": lambda **more: transformers.Qwen2Config(**ROTARY, **more),
}
ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
TOKENS = torch.randint(0, 61, (2, 20), generator=torch.Generator().manual_seed(3))


def make_model(config: Any, dtype: torch.dtype = torch.float64) -> Any:
    """Return a random model with gains, biases and embeddings far from their initial values."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.3 * noise if "norm" in name and name.endswith("weight") else 0.2 * noise + 0.05)
    return model


def in_full_precision(model: Any) -> Any:
    """Replace RMS norms by those of torch, since those of transformers compute in float32 whatever the dtype."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__.endswith("RMSNorm"):
                norm = nn.RMSNorm(child.weight.numel(), eps=child.variance_epsilon).to(child.weight.dtype)
                norm.weight = child.weight
                setattr(module, name, norm)
    return model


@torch.no_grad()
def logits_of(model: Any) -> Tensor:
    return model(input_ids=TOKENS).logits


def draw_bases(number: int, size: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q for _ in range(number)]


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_rotated_equals_original(family: str, tied: bool, dtype: torch.dtype, bound: float) -> None:
    model = in_full_precision(make_model(FAMILIES[family](tie_word_embeddings=tied), dtype))
    before = logits_of(model)
    residual = ResidualModel(model)
    assert residual.is_tied == tied
    folded = logits_of(model)
    # Twice: skip matrices and the tied head's matrix must compose.
    for _ in range(2):
        residual.rotate(draw_bases(residual.num_bases, residual.width))
        rotated = logits_of(model)
        for after in (folded, rotated):
            assert (after - before).abs().max() <= bound * before.abs().max()
    assert before.abs().max() > 0.5


def test_the_norms_of_transformers_themselves_agree_to_single_precision() -> None:
    model = make_model(FAMILIES["qwen2"](tie_word_embeddings=True), torch.float32)
    before = logits_of(model)
    residual = ResidualModel(model)
    residual.rotate(draw_bases(residual.num_bases, residual.width))
    assert (logits_of(model) - before).abs().max() <= 1e-4 * before.abs().max()


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_means_stay_where_norms_do_not_subtract_them(family: str) -> None:
    model = make_model(FAMILIES[family](tie_word_embeddings=False))
    before = model.model.embed_tokens.weight.clone()
    assert torch.equal(ResidualModel(model).embeddings[0].weight, before)
    assert before.mean(1).abs().min() > 0


def test_opt_has_a_residual_stream_of_mean_zero() -> None:
    model = make_model(FAMILIES["opt"](tie_word_embeddings=True))
    residual = ResidualModel(model)
    seen: list[Tensor] = []
    for block in residual.blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits_of(model)
    assert max(state.mean(-1).abs().max() for state in seen) < 1e-12


def test_parameters_of_a_tied_opt_counted_by_hand() -> None:
    residual = ResidualModel(make_model(FAMILIES["opt"](tie_word_embeddings=True)))
    d, f, v, layers, positions = 24, 40, 61, 3, 34
    linears = layers * (4 * d * d + 4 * d + 2 * d * f + f + d)
    # the head keeps gain and bias of the final norm, ones and the embeddings' means
    assert residual.num_params() == (v + positions) * d + linears + 2 * d + d + v
    residual.rotate(draw_bases(residual.num_bases, d))
    assert residual.num_params() == (v + positions) * d + linears + d * d + d + d + v + layers * 2 * d * d


def test_generation_with_a_cache_goes_on() -> None:
    model = make_model(FAMILIES["llama"](tie_word_embeddings=False, eos_token_id=None, pad_token_id=0))
    options = {"max_new_tokens": 5, "do_sample": False}
    before = model.generate(TOKENS, **options)
    residual = ResidualModel(model)
    residual.rotate(draw_bases(residual.num_bases, residual.width))
    assert torch.equal(model.generate(TOKENS, **options), before)


def test_places_of_each_basis() -> None:
    residual = ResidualModel(make_model(FAMILIES["llama"]()))
    roles = [[(place.block, place.role) for place in residual.places(basis)] for basis in range(residual.num_bases)]
    assert roles[0] == [(0, "query"), (0, "key"), (0, "value")]
    assert roles[1] == [(0, "output"), (0, "gate"), (0, "up")]
    assert roles[2] == [(0, "down"), (1, "query"), (1, "key"), (1, "value")]
    assert roles[6] == [(2, "down")]
    with pytest.raises(UsageError, match="7 bases are needed for 3 blocks, got 2"):
        residual.rotate(draw_bases(2, 24))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gpt2"}, "no rule to rotate models of type 'gpt2'. Known: llama, opt, qwen2"),
        ({"model_type": "qwen3"}, "Did you mean 'qwen2'"),
        ({"model_type": "opt", "do_layer_norm_before": False}, "normalises after each sublayer"),
        ({"model_type": "opt", "_remove_final_layer_norm": True}, "has no final norm"),
        ({"model_type": "opt", "word_embed_proj_dim": 8}, r"projects its embeddings \(8 to 24 features\)"),
    ],
)
def test_what_a_rotation_would_change_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        find_family(type("Config", (), {"hidden_size": 24} | config))
    assert "\n" not in str(caught.value)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model in the layout of the hub, in several shards."""
    make_model(FAMILIES["qwen2"](tie_word_embeddings=True), torch.float32).save_pretrained(
        tmp_path, max_shard_size="20KB"
    )
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    return tmp_path


def test_a_folder_of_shards_is_loaded(saved: Path) -> None:
    model = load_pretrained(str(saved))
    assert torch.equal(
        logits_of(model), logits_of(make_model(FAMILIES["qwen2"](tie_word_embeddings=True), torch.float32))
    )
    assert load_pretrained(str(saved), dtype=torch.float64).dtype == torch.float64


def test_a_missing_shard_is_one_line(saved: Path) -> None:
    sorted(saved.glob("*.safetensors"))[1].unlink()
    with pytest.raises(RunError, match="weights cannot be read .* Fetch them again") as caught:
        load_pretrained(str(saved))
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused(saved: Path) -> None:
    model = make_model(FAMILIES["qwen2"](tie_word_embeddings=True), torch.float32)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = torch.nan
    model.save_pretrained(saved / "nan")
    with pytest.raises(RunError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds values that are not finite"):
        load_pretrained(str(saved / "nan"))


def test_unknown_kinds_and_absent_folders_are_refused_before_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}), encoding="utf-8")
    with pytest.raises(UsageError, match="no rule to rotate models of type 'gpt2'"):
        load_pretrained(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no readable configuration"):
        load_pretrained(str(tmp_path / "empty"))


def test_a_file_that_is_no_gguf_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(UsageError, match="a GGUF file needs packages|no readable configuration") as caught:
        load_pretrained(str(tmp_path / "model.gguf"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 10**7}, "num_hidden_layers is 10000000, beyond"),
        ({"hidden_size": 1 << 30}, "hidden_size is 1073741824, beyond"),
        ({"vocab_size": -5}, "vocab_size is -5, expected a number from 1"),
        ({"num_attention_heads": 0}, "no readable configuration|num_attention_heads is 0"),
        ({"hidden_size": "24"}, "no readable configuration"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised already"),
    ],
)
def test_configurations_of_no_dense_model_are_refused_before_weights(
    saved: Path, change: dict[str, Any], message: str
) -> None:
    config = json.loads((saved / "config.json").read_text(encoding="utf-8")) | change
    config.pop("layer_types")  # a list as long as the depth, whose length is checked by its library
    (saved / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        load_pretrained(str(saved))
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_is_one_line(saved: Path) -> None:
    shard = sorted(saved.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(RunError, match="weights cannot be read .* Fetch them again") as caught:
        load_pretrained(str(saved))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "shape"), [("model.layers.0.mlp.up_proj.bias", (40,)), ("model.extra", (2,))])
def test_tensors_that_the_configuration_knows_nothing_of_are_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    from safetensors.torch import load_file, save_file

    make_model(FAMILIES["qwen2"](), torch.float32).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    frequencies = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(3)}
    save_file(tensors | frequencies, path, metadata={"format": "pt"})
    load_pretrained(str(tmp_path))
    save_file(tensors | {name: torch.ones(shape)}, path, metadata={"format": "pt"})
    with pytest.raises(RunError, match=f"1 tensors have no place .* {name}"):
        load_pretrained(str(tmp_path))


def test_shapes_other_than_those_of_the_configuration_are_named_as_such(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text(encoding="utf-8")) | {"intermediate_size": 44}
    (saved / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(RunError, match=r"shapes are not those of its config\.json"):
        load_pretrained(str(saved))


@pytest.mark.parametrize("source", ["./absent", "/absent/model", "absent.gguf", "a/b/c"])
def test_a_path_to_nothing_is_not_asked_of_the_hub(source: str) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        load_pretrained(source)


def test_a_gguf_file_is_loaded_with_equal_logits(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="needs the extra hf")
    pytest.importorskip("accelerate", reason="needs the extra hf")
    model = make_model(transformers.LlamaConfig(**ROTARY, rope_parameters=ROPE), torch.float32)
    write_gguf(tmp_path / "model.gguf", model)
    assert torch.equal(logits_of(load_pretrained(str(tmp_path / "model.gguf"))), logits_of(model))


def test_a_gguf_file_without_its_reader_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(64))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "gguf" else object())
    with pytest.raises(UsageError, match=r"a GGUF file needs packages .* pip install 'claims-harness\[hf\]'"):
        load_pretrained(str(tmp_path / "model.gguf"))


def test_code_of_the_folder_is_not_run(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "custom", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (saved / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (saved / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n", encoding="utf-8")
    with pytest.raises(UsageError):
        load_pretrained(str(saved))
    assert not Path("ran").exists()


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"a pretrained model needs packages .* pip install 'claims-harness\[hf\]'"):
        load_pretrained("anything")
