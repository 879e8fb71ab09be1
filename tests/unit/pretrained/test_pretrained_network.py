"""A compressed pretrained model goes through its file and into one basis again, and stays the same function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import NUM_ROWS, make_config, make_model
from torch import nn

from harness.artifact.container import Artifact, write_artifact
from harness.artifact.params import import_closure
from harness.errors import ArtifactError
from harness.method import ExportSettings, Task
from harness.pretrained.architecture import describe_config, make_empty_model
from harness.pretrained.architecture import make_config as rebuild_config
from harness.pretrained.network import PretrainedNetwork
from harness.pretrained.residual import ResidualModel
from harness.pretrained.unrotate import dense_state, fit_state, needed_changes

transformers = pytest.importorskip("transformers", reason="needs the extra hf")

from methods.procrustes.layer import StructuredLinear  # noqa: E402
from methods.procrustes.pretrained import PretrainedProcrustes, PretrainedProcrustesSettings  # noqa: E402

TOKENS = torch.randint(0, NUM_ROWS, (2, 20), generator=torch.Generator().manual_seed(3))
EXACT = ExportSettings(matrices="fp32", embeddings="fp32", scalars="fp32")
CASES = [
    *((family, skips, True) for family in ("opt", "llama", "qwen2") for skips in ("dense", "cayley")),
    ("opt", "shared", True),
    ("opt", "none", False),
    ("opt", "dense", False),
    ("llama", "none", True),
    ("qwen2", "dense", False),
]


class Observer:
    """What `train` asks of a run, of windows drawn at random."""

    def __init__(self, model: Any) -> None:
        self.pretrained = model

    def observe(self, watch: Any, *, num_tokens: int) -> Any:
        return watch(torch.randint(0, NUM_ROWS, (num_tokens // 16, 16), generator=torch.Generator().manual_seed(1)))


def compress(config: Any, **settings: Any) -> tuple[PretrainedProcrustes, PretrainedNetwork]:
    chosen = {"solver": "principal", "weighting": "none", "calibration_tokens": 256} | settings
    model = PretrainedProcrustesSettings.model_validate({"architecture": describe_config(config), **chosen})
    method = PretrainedProcrustes(model, Task(vocab_size=NUM_ROWS, context=32))
    return method, method.train(Observer(make_model(config))).eval()


def store(method: PretrainedProcrustes, network: PretrainedNetwork, path: Path, export: ExportSettings) -> Artifact:
    write_artifact(path, meta={}, tensors=method.export(network, export), blobs={})
    return Artifact.open(path)


@torch.no_grad()
def logits_of(network: nn.Module) -> torch.Tensor:
    return network(TOKENS)


@pytest.mark.parametrize(("family", "skips", "tied"), CASES)
def test_decoded_and_exported_weights_compute_the_same(family: str, skips: str, tied: bool, tmp_path: Path) -> None:
    config = make_config(family, tie_word_embeddings=tied)
    method, network = compress(config, skips=skips)
    expected = logits_of(network)
    assert (expected - make_model(config)(TOKENS).logits).abs().max() > 1e-2 * expected.abs().max()  # it did something
    decoded = method.evaluate({each.name: each.value for each in method.export(network, EXACT)})
    assert torch.equal(logits_of(decoded), expected)
    assert method.count_params(decoded) == method.count_params(network)
    state = dense_state(decoded.residual)
    changed = needed_changes(method.settings.architecture, state)
    exported = transformers.AutoModelForCausalLM.from_config(rebuild_config(changed)).eval()
    exported.load_state_dict(fit_state(state, make_empty_model(changed).state_dict()))
    with torch.no_grad():
        apart = (exported(TOKENS).logits - expected).abs().max()
    assert apart <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("weighting", ["weights", "activations", "gradients"])
def test_every_weighting_keeps_more_of_the_function_than_rank_alone(weighting: str) -> None:
    config = make_config("opt", tie_word_embeddings=True)
    before = make_model(config)(TOKENS).logits
    plain, weighted = (
        logits_of(compress(config, solver="descent", weighting=name, structure="low_rank", share=0.7)[1])
        for name in ("none", weighting)
    )
    assert not torch.equal(plain, weighted)
    assert torch.isfinite(weighted).all()
    if weighting != "weights":  # a guess promises nothing on random weights
        assert (weighted - before).norm() < (plain - before).norm()


def test_nothing_compressed_is_the_model_itself(tmp_path: Path) -> None:
    """With every role exact only the bases are left, which cancel."""
    roles = ["query", "key", "value", "output", "gate", "up", "down"]
    for family in ("opt", "llama"):
        config = make_config(family, tie_word_embeddings=True)
        before = make_model(config)(TOKENS).logits
        for skips in ("dense", "cayley", "shared"):
            _, network = compress(config, exact_roles=roles, skips=skips)
            assert (logits_of(network) - before).abs().max() <= 1e-4 * before.abs().max()


def test_counts_of_a_tied_opt_by_hand(tmp_path: Path) -> None:
    method, network = compress(make_config("opt", tie_word_embeddings=True), skips="dense")
    d, f, v, layers, positions = 24, 40, NUM_ROWS, 2, 50
    tables = (v + positions) * d
    biases = layers * (3 * d + d + f + d)
    # one-sided with 3 terms in 4 parts of d: 3 (4 + d/4 N) numbers for N = d, d, d (q, k, o), f, f
    factors = layers * (3 * 3 * (4 + d // 4 * d) + 2 * 3 * (4 + d // 4 * f))
    skips, norms = layers * 2 * d * d, (2 * layers + 1) * d
    head = d * d + d + d + v  # gain between bases, bias, ones, means
    stored = tables + biases + factors + layers * d * d + skips + norms + head
    artifact = store(method, network, tmp_path / "a.bin", EXACT)
    assert artifact.num_params_stored == stored == method.count_stored(method.build(), EXACT)
    counts = method.count_params(network)
    assert sum(counts.parts.values()) == stored
    dense = layers * (3 * d * d + 2 * d * f)
    assert counts.effective == stored - factors + dense
    maps = [module.structure for module in network.modules() if isinstance(module, StructuredLinear)]
    assert sum(each.num_params for each in maps) == factors
    products = sum(each.multiply_adds for each in maps)
    # the tied head and one row of each table
    assert counts.active == stored - tables - factors + products + v * d + 2 * d


def test_a_header_of_a_stranger_is_refused() -> None:
    described = describe_config(make_config("llama"))
    assert rebuild_config(described).to_dict()["rms_norm_eps"] == 1e-6
    for change in (
        {"model_type": "gpt_neox"},
        {"auto_map": {"AutoConfig": "evil.py"}},
        {"num_hidden_layers": 1 << 40},
        {"num_hidden_layers": -1},
        {"hidden_size": "24"},
        {"num_attention_heads": 0},
        {"rope_parameters": 7},
        {"attn_implementation": "someone/kernels"},
    ):
        with pytest.raises(ArtifactError):
            rebuild_config(described | change)
    for change in (
        {"hidden_size": "wide"},
        {"vocab_size": 2.5},
        {"num_attention_heads": 0},
        {"hidden_act": "nope"},
        {"pad_token_id": 1 << 20},
        {"rope_parameters": {"rope_type": "nope", "rope_theta": 1.0}},
        {"rope_parameters": {"rope_type": "yarn", "factor": "x"}},
    ):
        with pytest.raises(ArtifactError) as error:
            make_empty_model(described | change)
        assert "\n" not in str(error.value)


def test_tensors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    method, network = compress(make_config("llama"))
    tensors = store(method, network, tmp_path / "a.bin", EXACT).decode_tensors()
    name = "model.model.layers.0.attention_skip.matrix"
    with pytest.raises(ArtifactError, match="disagree on the tensors"):
        method.evaluate({key: value for key, value in tensors.items() if key != name})
    with pytest.raises(ArtifactError, match="has shape"):
        method.evaluate(tensors | {name: tensors[name][:3]})


def test_export_asks_nothing_of_methods() -> None:
    found = import_closure(["harness.pretrained.export"], ("harness", "methods"))
    assert not [name for name in found if name.startswith("methods")]


def test_a_residual_model_without_numbers_has_the_shapes_of_one_with(tmp_path: Path) -> None:
    config = make_config("qwen2")
    empty = ResidualModel(make_empty_model(describe_config(config))).model
    full = ResidualModel(make_model(config)).model
    assert {n: p.shape for n, p in empty.named_parameters()} == {n: p.shape for n, p in full.named_parameters()}


@pytest.mark.parametrize("chosen", [{"comparison": False}, {"skips": "none"}])
def test_a_model_is_not_loaded_again_where_nothing_is_compared(chosen: dict[str, Any]) -> None:
    method, _ = compress(make_config("llama"), **chosen)

    def load() -> Any:
        raise AssertionError("loaded")

    assert method.beside(load, lambda num_tokens: torch.zeros(1, 2), torch.zeros(2, 4, dtype=torch.int64)) == ()
