"""SliceGPT: rotate every part to the principal components of what it reads, and cut off the least ones.

Shape letters: D residual features, W those that are kept, B windows, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from harness.pretrained.moments import Moments
from harness.pretrained.parts import CentredHead, DenseSkip
from harness.pretrained.residual import Place, ResidualModel


@torch.no_grad()
def stream_bases(residual: ResidualModel, moments: Mapping[Place, Moments], tokens_BT: Tensor) -> list[Tensor]:
    """Return for each basis the principal components (D, D) of the normalised stream there, the leading one first.

    Args:
        residual: not rotated yet.
        moments: of its linear maps.
        tokens_BT: token ids, for the basis of the head.

    Source: Ashkboos et al. 2024, "SliceGPT", arXiv:2401.15024, section 3.
    """
    head = Moments()
    handle = residual.head_norm.norm.register_forward_hook(lambda module, inputs, output: head.add_inputs(output))
    for batch in torch.split(tokens_BT, 16):
        residual.model(input_ids=batch)
    handle.remove()
    readers = [
        next(place for place in residual.places(basis) if place.reads) for basis in range(residual.num_bases - 1)
    ]
    seen = [*(moments[place].second for place in readers), head.second]
    return [principal_components(second) for second in seen]


def principal_components(second_DD: Tensor) -> Tensor:
    """Return the orthonormal eigenvectors (D, D) of E[x x^T] as rows, the leading one first."""
    vectors_DD: Tensor = torch.linalg.eigh(second_DD).eigenvectors
    return vectors_DD.flip(1).T


@torch.no_grad()
def slice_model(residual: ResidualModel, bases: Sequence[Tensor], width: int) -> None:
    """Keep W features of the stream everywhere; a norm over fewer features is made up for in what reads from it.

    Args:
        residual: not rotated yet; changed in place.
        bases: of each part, features in order of what they matter.
        width: W.
    """
    # x / sqrt(sum / W) is sqrt(W / D) times x / sqrt(sum / D)
    scale = (residual.width / width) ** 0.5
    residual.rotate(bases)
    for index in range(residual.num_bases):
        for place in residual.places(index):
            module = cast(nn.Linear, residual.module(place))
            if place.reads:
                module.weight = nn.Parameter(scale * module.weight[:, :width])
            else:
                module.weight = nn.Parameter(module.weight[:width].clone())
                module.bias = None if module.bias is None else nn.Parameter(module.bias[:width].clone())
    for block in residual.blocks:
        for skip in (block.attention_skip, block.mlp_skip):
            if isinstance(skip, DenseSkip):
                skip.matrix = nn.Parameter(skip.matrix[:width, :width].clone())
    for embedding in residual.embeddings:
        embedding.weight = nn.Parameter(embedding.weight[:, :width].clone())
    _slice_head(residual, width, scale)


def _slice_head(residual: ResidualModel, width: int, scale: float) -> None:
    norm, head = residual.head_norm, residual.model.lm_head
    if not residual.is_tied:
        head.weight = nn.Parameter(scale * head.weight[:, :width])
        return
    head.weight = residual.embeddings[0].weight
    assert norm.gain is not None
    norm.gain = nn.Parameter(scale * norm.gain[:width, :width])
    norm.bias = None if norm.bias is None else nn.Parameter(norm.bias[:width].clone())
    if isinstance(head, CentredHead):
        head.ones = nn.Parameter(head.ones[:width].clone())


def sliced_params(residual: ResidualModel, width: int) -> int:
    """Count the parameters of a model of which W features are kept."""
    cut = residual.width - width
    total: int = residual.num_params() - sum(table.size(0) for table in residual.tables) * cut
    for index in range(residual.num_bases):
        for place in residual.places(index):
            total -= residual.weight(place).size(1) * cut
            if not place.reads and residual.module(place).bias is not None:
                total -= cut
    total += 2 * len(residual.blocks) * width**2
    head = cast(Any, residual.model.lm_head)
    if not residual.is_tied:
        return total - int(head.weight.size(0)) * cut
    total += width**2 - residual.width
    for vector in (residual.head_norm.bias, getattr(head, "ones", None)):
        total -= 0 if vector is None else cut
    return total


def largest_width(residual: ResidualModel, total: int) -> int:
    """Return the largest W whose model has at most a total of parameters, 1 at least."""
    return max((width for width in range(1, residual.width) if sliced_params(residual, width) <= total), default=1)
