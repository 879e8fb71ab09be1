"""The linear map whose weight is a chain of cores.

Shape letters as in `harness.nn.factorise`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.nn.factorise import Modes, TensorTrain, rebuild
from methods.mpo.blocks import contract_in_blocks, rows_of_block
from methods.mpo.costs import Plan, choose_plan


class MPOLinear(nn.Module):
    """y = x W^T + b with W a chain of cores; fresh cores as published.

    Args:
        modes: features of each site.
        bonds: 1, r_1, ..., 1.
        bias: whether it has a bias, dense and zero at first.

    Source: arXiv 2603.28534. Each core is randn * I^(-1/4) / chi^((L-1)/(2L)); with unlike bonds, chi^(L-1) is their
    product. A weight then has the variance I^(-L/2): 1/I with L = 2 sites, less with more.
    """

    def __init__(self, modes: Modes, bonds: Sequence[int], *, bias: bool = False) -> None:
        super().__init__()
        self.modes, self.bonds = modes, tuple(bonds)
        self.out_features, self.in_features = modes.shape
        std = self.in_features**-0.25 / math.prod(bonds) ** (0.5 / modes.num_sites)
        self.cores = nn.ParameterList(
            nn.Parameter(nn.init.normal_(torch.empty(shape), std=std)) for shape in modes.core_shapes(bonds)
        )
        self.bias = nn.Parameter(torch.zeros(self.out_features)) if bias else None

    @property
    def weight(self) -> Tensor:
        """The matrix (O, I), made now; differentiable, in the dtype of the cores also under autocast."""
        with torch.autocast(self.cores[0].device.type, enabled=False):
            return rebuild(list(self.cores))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O), by the plan that the cost model expects to take less time."""
        num_rows = x.numel() // self.in_features
        return self.forward_by(choose_plan(self.modes, self.bonds, num_rows, torch.is_grad_enabled()), x)

    def forward_by(self, plan: Plan, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O) by one plan."""
        if plan == "rebuild":
            return F.linear(x, self.weight, self.bias)
        from_left = plan == "left"
        block = rows_of_block(self.modes, self.bonds, from_left=from_left)
        y_NO = contract_in_blocks(list(self.cores), x.reshape(-1, self.in_features), block, from_left=from_left)
        y = y_NO.view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    @torch.no_grad()
    def set_matrix(self, weight_OI: Tensor) -> None:
        """Take the cores of TT-SVD, in float64, of a matrix (O, I); bonds beyond its ranks start at zero.

        Raises:
            UsageError: the matrix has another shape.
        """
        found = TensorTrain.of(weight_OI.double(), self.modes, max(self.bonds))
        for mine, core in zip(self.cores, found.cores, strict=True):
            mine[..., core.size(3) :] = 0
            mine[: core.size(0), ..., : core.size(3)] = core.to(mine.dtype)
