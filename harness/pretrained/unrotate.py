"""A rotated, compressed model turned back to one with a single basis: dense matrices that its library itself can run.

Skip matrices are products of two bases, so that along the depth they cancel: with C the product of those before a part,
the stream x there is y C for a y that no skip matrix changes. What reads x by W reads y by C W; what writes to x by W
writes to y by W C^-1. Norms keep their value, since C is orthogonal (to the rounding that it is stored with).

A norm that subtracts the mean removes one direction of the stream: the one in which embeddings have no part, and which
`keep_means_out` tells the norms of the compressed model to remove, too. It is turned to where the library has it.

Shape letters: D residual features, I and O in and out features of a map, V rows of the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from harness.pretrained.residual import ResidualModel

State = dict[str, Tensor]


@torch.no_grad()
def dense_state(residual: ResidualModel) -> State:
    """Return the weights of the model in one basis, float32, by the names of its library; the head is not tied.

    Args:
        residual: its maps are turned to double precision on the way, one after the other.
    """
    family, width = residual.family, residual.width
    turn_DD = _mean_turn(residual) if family.centres else torch.eye(width, dtype=torch.float64)
    state: State = {}
    for path, embedding in zip(family.embeddings, residual.embeddings, strict=True):
        state[f"{family.decoder}.{path}.weight"] = embedding.weight.double() @ turn_DD
    change_DD = turn_DD.T
    for index, block in enumerate(residual.blocks):
        prefix = f"{family.decoder}.layers.{index}"
        # the attention and the MLP: what reads before a skip matrix, and what writes after it
        for skip, writer in ((block.attention_skip, "output"), (block.mlp_skip, "down")):
            after_DD = change_DD @ _matrix_of(skip, width)[0]
            back_DD = torch.linalg.inv(after_DD)
            in_attention = writer == "output"
            for role, path in family.linears.items():
                if (role in ("query", "key", "value", "output")) != in_attention:
                    continue
                module = block.linear(role)
                weight_IO, bias_O = _matrix_of(module, _in_features(residual, index, role))
                if role == writer:
                    weight_IO, bias_O = weight_IO @ back_DD, bias_O @ back_DD
                else:
                    weight_IO = change_DD @ weight_IO
                state[f"{prefix}.{path}.weight"] = weight_IO.T
                state[f"{prefix}.{path}.bias"] = bias_O
            change_DD = after_DD
    state |= _head_state(residual, change_DD)
    return {name: tensor.float().contiguous() for name, tensor in state.items()}


def _head_state(residual: ResidualModel, change_DD: Tensor) -> State:
    """Return the head's matrix with the gain of its norm, and the bias of that norm that gives the head's offsets."""
    norm, head = residual.head_norm, cast(nn.Module, residual.model.lm_head).double()
    width = residual.width
    gain_DD = torch.eye(width, dtype=torch.float64)
    if norm.gain is not None:
        gain_DD = norm.gain.double().diag() if norm.gain.ndim == 1 else norm.gain.double()
    zero_D = torch.zeros(width, dtype=torch.float64)
    offset_V = head(zero_D if norm.bias is None else norm.bias.double())
    matrix_DV = change_DD @ (head(gain_DD) - head(zero_D))
    state = {"lm_head.weight": matrix_DV.T}
    if offset_V.abs().max() > 0:
        # c M = o, which had a solution before the matrices were rounded
        path = f"{residual.family.decoder}.{residual.family.final_norm}.bias"
        state[path] = torch.linalg.lstsq(matrix_DV @ matrix_DV.T, matrix_DV @ offset_V).solution
    return state


def _in_features(residual: ResidualModel, block: int, role: str) -> int:
    """Return how many features a map reads; those of attention and MLP inside are the out features of their readers."""
    if role == "output":
        return int(_out_features(residual.blocks[block].linear("query"), residual.width))
    if role == "down":
        return int(_out_features(residual.blocks[block].linear("up"), residual.width))
    return residual.width


def _out_features(module: nn.Module, in_features: int) -> int:
    parameter = next(module.parameters())
    return int(module(torch.zeros(1, in_features).to(parameter)).size(-1))


def _matrix_of(module: nn.Module, in_features: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Return matrix (I, O) and bias (O,) of a module that computes an affine map, whatever it is made of."""
    module = module.double()
    bias_O = module(torch.zeros(in_features, dtype=torch.float64, device=device))
    return module(torch.eye(in_features, dtype=torch.float64, device=device)) - bias_O, bias_O


@torch.no_grad()
def keep_means_out(residual: ResidualModel) -> None:
    """Let the norms of a compressed model remove what its library's norms subtract, wherever its basis has that.

    Nothing wrote in that direction before the compression; a structured matrix may.
    """
    if not residual.family.centres:
        return
    direction_D, device = _empty_direction(residual), residual.tables[0].device
    for block in residual.blocks:
        for norm, skip in ((block.norm, block.attention_skip), (block.mlp_norm, block.mlp_skip)):
            norm.removed = nn.Parameter(direction_D.float())
            direction_D = direction_D @ _matrix_of(skip, residual.width, device)[0]
            skip.float()
    residual.head_norm.norm.removed = nn.Parameter(direction_D.float())


def _empty_direction(residual: ResidualModel) -> Tensor:
    """Return the unit vector (D,) in which no embedding has a part, in the first basis."""
    gram_DD = torch.stack([table.double().T @ table.double() for table in residual.tables]).sum(0)
    vectors_DD: Tensor = torch.linalg.eigh(gram_DD).eigenvectors
    return vectors_DD[:, 0]


def _mean_turn(residual: ResidualModel) -> Tensor:
    """Return an orthogonal matrix (D, D) that takes the direction of no embedding to that of the mean."""
    width, empty_D = residual.width, _empty_direction(residual)
    mean_D = torch.full((width,), width**-0.5, dtype=torch.float64)
    mirror_D = empty_D - mean_D
    if mirror_D.norm() < 1e-12:
        return torch.eye(width, dtype=torch.float64)
    mirror_D = mirror_D / mirror_D.norm()
    turn_DD: Tensor = torch.eye(width, dtype=torch.float64) - 2 * mirror_D.outer(mirror_D)
    return turn_DD


def fit_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> State:
    """Return a state with all names of a model: gains of its norms 1, biases that nothing needs 0.

    Args:
        state: of `dense_state`.
        expected: the state of the model without numbers, which gives names and shapes.
    """
    fitted: State = {}
    for name, place in expected.items():
        if name in state:
            fitted[name] = state[name]
        else:
            fitted[name] = torch.full(place.shape, 0.0 if name.endswith("bias") else 1.0)
    return fitted


def needed_changes(architecture: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the architecture with a head of its own and, in OPT, with biases where folded norms left some."""
    changed = dict(architecture) | {"tie_word_embeddings": False}
    has_biases = any(name.endswith("bias") and bool(tensor.any()) for name, tensor in state.items())
    if changed["model_type"] == "opt" and has_biases:
        changed |= {"enable_bias": True, "layer_norm_elementwise_affine": True}
    return changed
