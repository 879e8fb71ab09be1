"""A method of this project at a preset, and the same model in plain PyTorch with the same weights."""

from __future__ import annotations

from dataclasses import dataclass

import plain
import torch
from torch import Tensor

from harness.backbone import BackboneMethod
from harness.method import Task
from harness.nn.network import Network
from harness.registry import find_method
from harness.settings import resolve_settings
from harness.training.recipe import Recipe

METHODS = ("dense", "legendre")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Both sides, and the recipe that both are trained by."""

    method: BackboneMethod
    recipe: Recipe
    network: Network
    plain: plain.PlainModel

    def copy_weights(self) -> None:
        """Give the plain model the weights of ours."""
        self.plain.load_state_dict(dict(self.method.stored_tensors(self.network)))

    def plain_training(self, tokens: Tensor) -> plain.Training:
        """Return the training of the plain model on a text."""
        recipe = self.recipe
        return plain.Training(
            self.plain,
            tokens,
            num_windows=recipe.micro_batch_sequences,
            context=recipe.context,
            rates={"matrix": recipe.matrix_lr, "embedding": recipe.embedding_lr, "scalar": recipe.scalar_lr},
            dtype=getattr(torch, recipe.precision),
        )


def make_pair(name: str, preset: str, precision: str, vocab_size: int) -> Pair:
    """Build a method's network and the plain model of its settings, with the same weights."""
    info = find_method(name)
    settings = resolve_settings(info, preset, (f"train.precision={precision}",))
    context = settings.train.context
    method = info.load()(settings.model, Task(vocab_size=vocab_size, context=context))
    assert isinstance(method, BackboneMethod)
    model = method.settings
    shape = plain.Shape(
        width=model.width,
        num_layers=model.num_layers,
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads,
        mlp_width=model.mlp_width,
        vocab_size=vocab_size,
        context=context,
        embedding_rank=model.embedding_rank,
    )
    if name == "dense":
        other: plain.PlainModel = plain.Dense(shape)
    else:
        other = plain.Legendre(shape, model.attention_degree, model.mlp_degree)
    torch.manual_seed(0)
    pair = Pair(method=method, recipe=settings.train, network=method.build(), plain=other)
    pair.copy_weights()
    return pair
