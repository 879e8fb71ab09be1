"""Initial values as the published code ends up with them, after its pass over all linear maps.

Shape letters: O and I out and in features of a linear map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.nn.inits import Init, uniform_fan_in

# The published pass leaves maps with a side below this as `torch.nn.Linear` made them.
ORTHOGONAL_FROM = 64


def orthogonal_if_large(weight_OI: Tensor) -> None:
    """Fill with orthogonal rows or columns; a map with a side below 64 uniformly instead."""
    if min(weight_OI.shape) >= ORTHOGONAL_FROM:
        nn.init.orthogonal_(weight_OI)
    else:
        uniform_fan_in(weight_OI)


def orthogonal_projection(num_blocks: int) -> Init:
    """Return the initialiser of the maps from narrow tables: orthogonal, times 1/sqrt(2 * num_blocks).

    The published code declares both zero, and its later pass overwrites that where both sides are at least 64. On
    narrower ones the zeros would stay, and an n-gram table of zeros would never learn: here they are orthogonal too.
    """

    def fill(weight_OI: Tensor) -> None:
        nn.init.orthogonal_(weight_OI, gain=(2 * num_blocks) ** -0.5)

    return fill


def make_loop_vectors(kind: str, num_loops: int, width: int, scale: float) -> nn.Parameter:
    """Return one vector a loop, of shape (loops, width).

    Args:
        kind: "gaussian", normal with deviation `scale` (code of Frugendorff Squared), or "qr", orthogonal rows of
            length `scale` (its README, and the code of the Micro Crawler).
        num_loops: number of vectors.
        width: features of each.
        scale: see `kind`.
    """
    vectors_LD = torch.empty(num_loops, width)
    if kind == "qr":
        nn.init.orthogonal_(vectors_LD, gain=scale)
    else:
        nn.init.normal_(vectors_LD, std=scale)
    return nn.Parameter(vectors_LD)
