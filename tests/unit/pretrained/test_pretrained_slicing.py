"""Slicing: exact where the stream has no more components, counts, order of components."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from harness.pretrained.moments import measure_moments
from harness.pretrained.residual import ResidualModel
from harness.pretrained.slicing import largest_width, slice_model, sliced_params, stream_bases

transformers = pytest.importorskip("transformers", reason="needs the extra hf")

TOKENS = torch.randint(0, 40, (4, 12), generator=torch.Generator().manual_seed(1))


def make_model(family: str, rank: int = 16, tied: bool = True) -> ResidualModel:
    """Return a model whose residual stream lies in the span of `rank` of its 16 features' directions."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = {
        "opt": lambda: transformers.OPTConfig(**sizes, ffn_dim=24, word_embed_proj_dim=16, tie_word_embeddings=tied),
        "qwen2": lambda: transformers.Qwen2Config(
            **sizes, intermediate_size=24, num_key_value_heads=2, tie_word_embeddings=tied, rms_norm_eps=1e-12
        ),
    }[family]()
    residual = ResidualModel(transformers.AutoModelForCausalLM.from_config(config).double().eval())
    basis = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64)).Q[:, :rank]
    onto = basis @ basis.T
    with torch.no_grad():
        for embedding in residual.embeddings:
            embedding.weight.copy_(torch.randn_like(embedding.weight) @ onto)
        for index in range(residual.num_bases):
            for place in residual.places(index):
                if not place.reads:
                    module = residual.module(place)
                    module.weight.copy_(onto @ module.weight)
                    if module.bias is not None:
                        module.bias.copy_(onto @ torch.randn_like(module.bias))
    return residual


@torch.no_grad()
def logits_of(residual: ResidualModel) -> Tensor:
    return residual.model(input_ids=TOKENS).logits.double()


@pytest.mark.parametrize("tied", [True, False])
def test_directions_that_the_stream_never_takes_are_cut_for_nothing(tied: bool) -> None:
    residual = make_model("qwen2", rank=6, tied=tied)
    before = logits_of(residual)
    bases = stream_bases(residual, measure_moments(residual, TOKENS, with_gradients=False), TOKENS)
    slice_model(residual, bases, 6)
    assert residual.embeddings[0].weight.shape == (40, 6)
    torch.testing.assert_close(logits_of(residual), before, rtol=0, atol=1e-4 * before.abs().max().item())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["opt", "qwen2"])
def test_counts_made_before_are_those_of_the_model(family: str, tied: bool) -> None:
    residual = make_model(family, tied=tied)
    bases = stream_bases(residual, measure_moments(residual, TOKENS, with_gradients=False), TOKENS)
    expected = sliced_params(residual, 9)
    assert largest_width(residual, expected) == 9 == largest_width(residual, expected + 1)
    assert largest_width(residual, expected - 1) == 8
    before = logits_of(residual)
    slice_model(residual, bases, 9)
    assert residual.num_params() == expected
    assert logits_of(residual).isfinite().all()
    assert not torch.allclose(logits_of(residual), before)
