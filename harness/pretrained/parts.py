"""The modules that stand where a pretrained model had norms, skip connections and a tied head.

Shape letters: D residual features, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GainlessNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps), which commutes with rotations; computed in float32 at least.

    Args:
        eps: of the norm.
        removed_D: direction (D,) whose part in x is taken out first, where x may have one; its length does not matter.
    """

    removed: nn.Parameter | None

    def __init__(self, eps: float, removed_D: Tensor | None = None) -> None:
        super().__init__()
        self.eps = eps
        self.removed = None if removed_D is None else nn.Parameter(removed_D)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        if self.removed is not None:
            unit_D = F.normalize(self.removed.to(wide), dim=0)
            wide = wide - (wide @ unit_D)[..., None] * unit_D
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class DenseSkip(nn.Module):
    """A skip connection that changes the basis: x becomes x S.

    Args:
        matrix_DD: S.
    """

    def __init__(self, matrix_DD: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix_DD)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        return x @ self.matrix


class HeadNorm(nn.Module):
    """The final norm: gainless, then the gain of a tied head, which the table that it shares cannot take.

    Args:
        eps: of the norm.
        gain: (D,), or (D, D) between two bases; None where the head has taken it.
        bias: (D,).
    """

    def __init__(self, eps: float, gain: Tensor | None, bias: Tensor | None) -> None:
        super().__init__()
        self.norm = GainlessNorm(eps)
        self.gain = None if gain is None else nn.Parameter(gain)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        x = self.norm(x)
        if self.gain is not None:
            x = x * self.gain if self.gain.ndim == 1 else x @ self.gain
        return x if self.bias is None else x + self.bias


class CentredHead(nn.Module):
    """A head tied to embeddings whose row means were removed: z E'^T + (z e) m^T gives what z E^T did.

    Args:
        embedding: holds E' (V, D).
        ones_D: e, ones in the basis of the embedding.
        means_V: m, the means removed.
    """

    def __init__(self, embedding: nn.Embedding, ones_D: Tensor, means_V: Tensor) -> None:
        super().__init__()
        self.weight = embedding.weight
        self.ones = nn.Parameter(ones_D)
        self.means = nn.Parameter(means_V)

    def forward(self, z: Tensor) -> Tensor:
        """Map (..., D) to logits (..., V)."""
        return F.linear(z, self.weight) + (z @ self.ones)[..., None] * self.means
