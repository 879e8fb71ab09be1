"""Two factors for a matrix, W = U V: drawn, by truncated SVD, by SVD weighted with the inputs.

Shape letters: O and I out and in features, R rank.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LowRankLinear(nn.Module):
    """The map y = U (V x) + b, run as a chain: the product U V is never formed.

    Args:
        in_features: I.
        out_features: O.
        rank: R.
        std: deviation of the entries that the product U V starts with; 0 starts U, and so the product, at zero.
        bias: whether there is a bias b.
    """

    def __init__(self, in_features: int, out_features: int, rank: int, *, std: float, bias: bool = False) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.zeros(out_features, rank))
        self.v = nn.Parameter(torch.empty(rank, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        # An entry of U V is a sum of R products, so factors of variance std / sqrt(R) give it the variance std^2.
        nn.init.normal_(self.v, std=((std or in_features**-0.5) / rank**0.5) ** 0.5)
        if std:
            nn.init.normal_(self.u, std=(std / rank**0.5) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        return F.linear(F.linear(x, self.v), self.u, self.bias)


def truncated_svd(weight_OI: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the factors U (O, R) and V (R, I), float64, whose product is nearest to W in the Frobenius norm.

    The singular values are split evenly, so that both factors learn at the same pace.

    Source: Eckart and Young 1936, "The approximation of one matrix by another of lower rank", Psychometrika 1.
    """
    left_OK, values_K, right_KI = torch.linalg.svd(weight_OI.double(), full_matrices=False)
    root_R = values_K[:rank].sqrt()
    return left_OK[:, :rank] * root_R, root_R[:, None] * right_KI[:rank]


def whitened_svd(weight_OI: Tensor, moment_II: Tensor, rank: int, *, damping: float) -> tuple[Tensor, Tensor]:
    """Return the factors U (O, R) and V (R, I), float64, of least mean squared error E |W x - U V x|^2.

    With M = E[x x^T] = L L^T that error is |(W - U V) L|_F^2, so the truncated SVD of W L, times L^-1 on the right,
    has the least. Singular values are split as in `truncated_svd`.

    Args:
        weight_OI: W.
        moment_II: M, symmetric and not negative.
        rank: R.
        damping: added to the diagonal of M in units of its mean, since M has no inverse where features are unused.

    Source: Wang et al. 2024, "SVD-LLM", arXiv:2403.07378 (whitening by Cholesky); the same optimum in Chen et al. 2021,
        "DRONE: Data-aware Low-rank Compression for Large NLP Models".
    """
    moment_II = moment_II.double()
    mean = moment_II.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    damped_II = moment_II + torch.eye(len(moment_II), dtype=torch.float64, device=moment_II.device) * (damping * mean)
    lower_II = torch.linalg.cholesky(damped_II)
    u_OR, coloured_RI = truncated_svd(weight_OI.double() @ lower_II, rank)
    v_RI = torch.linalg.solve_triangular(lower_II, coloured_RI, upper=False, left=False)
    return u_OR, v_RI
