"""Folding norms and changing bases leaves the function of each family as it is; what cannot is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
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
    with pytest.raises(UsageError, match="another package is needed|no readable configuration") as caught:
        load_pretrained(str(tmp_path / "model.gguf"))
    assert "\n" not in str(caught.value)


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
