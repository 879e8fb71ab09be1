"""The linear map whose weight is a chain of cores.

Shape letters as in `harness.nn.factorise`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.nn.factorise import Modes, contract, rebuild
from methods.mpo.costs import Plan, chain_direction, chain_rows


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
        self.chain: Plan = chain_direction(modes, bonds)
        self._chain_rows = [chain_rows(modes, bonds, with_backward=backward) for backward in (False, True)]
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
        return self.forward_by(self.choose_plan(x.numel() // self.in_features, torch.is_grad_enabled()), x)

    def choose_plan(self, num_rows: int, with_backward: bool) -> Plan:
        """Return the plan that the cost model expects to take less time, forward or forward and backward."""
        return self.chain if num_rows in self._chain_rows[with_backward] else "rebuild"

    def forward_by(self, plan: Plan, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O) by one plan."""
        if plan == "rebuild":
            return F.linear(x, self.weight, self.bias)
        y_NO = contract(list(self.cores), x.reshape(-1, self.in_features), from_left=plan == "left")
        y = y_NO.view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    @torch.no_grad()
    def set_cores(self, cores: Sequence[Tensor]) -> None:
        """Take over the values of cores of the same shapes."""
        for mine, given in zip(self.cores, cores, strict=True):
            cast(Tensor, mine).copy_(given)
