"""What claims about rotated transformers are judged by.

How far a rotated model's logits are from the original's, how much a rotation lowers the error of a projection, and what
models of published shapes store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, cast

import torch
from torch import Tensor

from harness.errors import UsageError, missing_extra, suggest

SEED = 0
_SIZES = {"vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4}
_PUBLISHED_SHAPES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama2-7b": (
        "llama",
        {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
        | {"num_attention_heads": 32, "num_key_value_heads": 32, "tie_word_embeddings": False},
    ),
    "opt-125m": (
        "opt",
        {"vocab_size": 50272, "hidden_size": 768, "word_embed_proj_dim": 768, "ffn_dim": 3072}
        | {"num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 2048},
    ),
}
_ROTARY = {**_SIZES, "num_key_value_heads": 2, "intermediate_size": 40, "max_position_embeddings": 32}


def rotation_error(family: str) -> float:
    """Largest change of a logit, of the largest, by folding norms and random bases in a random model, in float32."""
    from harness.pretrained.residual import ResidualModel

    model = _random_model(family)
    before = _logits(model)
    residual = ResidualModel(model)
    generator = torch.Generator().manual_seed(SEED)
    size = residual.width
    residual.rotate(
        [
            torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
            for _ in range(residual.num_bases)
        ]
    )
    return _relative(_logits(model), before)


def centring_error(family: str) -> float:
    """The same by subtracting each embedding's mean, as the public code does whatever the family's norms do."""
    model = _random_model(family)
    before = _logits(model)
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table.sub_(table.mean(1, keepdim=True))
    return _relative(_logits(model), before)


def projection_gain(structure: str) -> float:
    """Error of projecting the maps of a random Llama model after the rotation found for them, of that without rotation.

    Root mean square of the relative errors of all maps; the rotation is that of 50 alternating projections.
    """
    from harness.pretrained.residual import ResidualModel
    from methods.procrustes.classes import BlockLowRank, Kronecker, LowRank, Monarch
    from methods.procrustes.comparison import mean_error
    from methods.procrustes.compress import by_alternation, compress, without_rotation
    from methods.procrustes.solver import SolverOptions

    made = {
        "kronecker": lambda rows, columns: Kronecker(rows, columns, 3, 4, 1),
        "kronecker_square": lambda rows, columns: Kronecker(rows, columns, 4, 4, 4),
        "monarch": lambda rows, columns: Monarch(rows, columns, 4, 4, 8),
        "low_rank": lambda rows, columns: LowRank(rows, columns, 6),
        "block_low_rank": lambda rows, columns: BlockLowRank(rows, columns, 4, 4, 1),
    }
    if structure not in made:
        raise UsageError(f"no class '{structure}'. {suggest(structure, made)}")
    rotated, direct = (
        compress(
            ResidualModel(_random_model("llama")),
            lambda place, rows, columns: made[structure](rows, columns),
            solve,
            skips=skips,
        )
        for solve, skips in ((by_alternation(SolverOptions(max_iterations=50)), "dense"), (without_rotation, "none"))
    )
    after, before = mean_error(rotated), mean_error(direct)
    assert after is not None
    assert before is not None
    return after / before


def stored_share(model: str, terms: int, parts: int, skips: str, head: str = "as it is") -> float:
    """Numbers of a compressed model, skip matrices counted, over those of the model, built without allocating it.

    Every map of the blocks but `value` is one-sided Kronecker, as in the shipped configurations.

    Args:
        model: whose shape, "llama2-7b" or "opt-125m".
        terms: of each class.
        parts: of the residual features.
        skips: "dense", "cayley" or "none".
        head: "own" cuts a head that the model shares with its embeddings from them, as a shipped one does.
    """
    from harness.pretrained.architecture import make_empty_model
    from harness.pretrained.residual import ResidualModel
    from methods.procrustes.budgets import compressed_params, one_sided

    for value, known in ((model, _PUBLISHED_SHAPES), (skips, ("dense", "cayley", "none")), (head, ("as it is", "own"))):
        if value not in known:
            raise UsageError(f"no '{value}' here. {suggest(value, known)}")
    family, shape = _PUBLISHED_SHAPES[model]
    architecture = {"model_type": family, **shape}
    before = sum(parameter.numel() for parameter in make_empty_model(architecture).parameters())
    residual = ResidualModel(
        make_empty_model({**architecture, **({"tie_word_embeddings": False} if head == "own" else {})})
    )
    return compressed_params(residual, one_sided(Fraction(terms, parts)), cast(Any, skips)) / before


def _random_model(family: str) -> Any:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise missing_extra("a model of transformers", "hf") from error
    made = {
        "opt": lambda: transformers.OPTConfig(**_SIZES, ffn_dim=40, word_embed_proj_dim=24, max_position_embeddings=32),
        "llama": lambda: transformers.LlamaConfig(**_ROTARY, tie_word_embeddings=False),
        "qwen2": lambda: transformers.Qwen2Config(**_ROTARY, tie_word_embeddings=False),
    }
    if family not in made:
        raise UsageError(f"no family '{family}'. {suggest(family, made)}")
    torch.manual_seed(SEED)
    model = transformers.AutoModelForCausalLM.from_config(made[family]()).eval()
    with torch.no_grad():  # gains, biases and embeddings away from ones and zeros
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.3 * noise if "norm" in name and name.endswith("weight") else 0.2 * noise + 0.05)
    return model


@torch.no_grad()
def _logits(model: Any) -> Tensor:
    tokens = torch.randint(0, 61, (2, 20), generator=torch.Generator().manual_seed(SEED + 1))
    logits: Tensor = model(input_ids=tokens).logits
    return logits


def _relative(after: Tensor, before: Tensor) -> float:
    return float((after - before).abs().max() / before.abs().max())


MEASURES: Mapping[str, Callable[..., float]] = {
    "rotation_error": rotation_error,
    "centring_error": centring_error,
    "projection_gain": projection_gain,
    "stored_share": stored_share,
}
