"""Weights over depth as polynomials: W_l = s_l * sum_k P_k(t_l) C_k, one coefficient matrix per order k.

Shape letters: L layers of a group, K orders (degree + 1), O and I out and in features, R rank of the LoRA pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.nn.generated import WeightGenerator

Basis = Literal["legendre", "monomial"]

# Columns of weight gradients that are gathered at a time: 11 layers of 16,384 float32 (0.7 MB) stay in the L2 cache.
_COLUMNS = 16_384


def group_depths(num_layers: int) -> NDArray[np.float64]:
    """Return the depths t_l of a group's layers: equidistant from -1 to 1, or 0 for a single layer."""
    return np.linspace(-1.0, 1.0, num_layers) if num_layers > 1 else np.zeros(1)


def basis_values(basis: Basis, depths_L: NDArray[np.float64], degree: int) -> NDArray[np.floating[Any]]:
    """Return P_k(t_l), or t_l^k for monomials, of shape (L, K)."""
    if basis == "legendre":
        return np.polynomial.legendre.legvander(depths_L, degree)
    return np.vander(depths_L, degree + 1, increasing=True)


class LegendreGenerator(WeightGenerator):
    """The weights of one role in the layers of one group.

    Args:
        num_layers: L, layers of the group.
        degree: highest order.
        in_features: I.
        out_features: O.
        basis: polynomials over depth.
        zero: all coefficients start at zero; else order k is drawn from N(0, (2^-k / sqrt(O))^2).
        lora_rank: R of a pair added to each layer, W_l + A_l B_l; 0 for none.
        wrap: take W - round(W).

    Source: LegendreGPT, record of 2026-03-31; see README.md.
    """

    basis: Tensor

    def __init__(
        self,
        num_layers: int,
        degree: int,
        in_features: int,
        out_features: int,
        *,
        basis: Basis = "legendre",
        zero: bool = False,
        lora_rank: int = 0,
        wrap: bool = False,
    ) -> None:
        super().__init__(num_layers)
        self.wrap = wrap
        self._weights: Tensor | None = None
        self._gradient: Tensor | None = None
        values_LK = basis_values(basis, group_depths(num_layers), degree)
        self.register_buffer("basis", torch.tensor(values_LK, dtype=torch.float32), persistent=False)
        self.layer_scales = nn.Parameter(torch.ones(num_layers))
        self.coefficients = nn.Parameter(torch.zeros(degree + 1, out_features, in_features))
        if not zero:
            for k, matrix_OI in enumerate(self.coefficients.data):
                nn.init.normal_(matrix_OI, std=2.0**-k * out_features**-0.5)
        self.lora_a = self.lora_b = None
        if lora_rank:
            self.lora_a = nn.Parameter(torch.zeros(num_layers, out_features, lora_rank))
            self.lora_b = nn.Parameter(0.01 * torch.randn(num_layers, lora_rank, in_features))

    def generate(self, index: int) -> Tensor:
        """Return the weight (O, I) of one layer, differentiable."""
        with torch.autocast(self.basis.device.type, enabled=False):
            mixing_1K = self._mixing()[index : index + 1]
            weight_OI = (mixing_1K @ self.coefficients.flatten(1)).view(self.coefficients.shape[1:])
            if self.lora_a is not None and self.lora_b is not None:
                weight_OI = weight_OI + self.lora_a[index] @ self.lora_b[index]
            return weight_OI - weight_OI.round() if self.wrap else weight_OI

    def generate_all(self) -> Sequence[Tensor]:
        """Return the weights (O, I) of all layers, written into one buffer that is kept from step to step."""
        num_layers, (_, *shape_OI) = self.num_weights, self.coefficients.shape
        if self._weights is None:
            self._weights = self.coefficients.new_empty(num_layers, *shape_OI)
        torch.mm(self._mixing(), self.coefficients.flatten(1), out=self._weights.flatten(1))
        if self.lora_a is not None and self.lora_b is not None:
            self._weights.baddbmm_(self.lora_a, self.lora_b)
        if self.wrap:
            self._weights.sub_(self._weights.round())
        return self._weights.unbind()

    def pull_back(self, gradients: Sequence[Tensor]) -> None:
        """Set the gradients of coefficients, scales and LoRA pair from those of the weights (O, I).

        With M = diag(s) P and G the flattened gradients (L, O * I): dC = M^T G, dM = G C^T. G is gathered a few
        columns at a time, so that it is read from memory once for both products.
        """
        mixing_LK = self._mixing()
        coefficients_KN = self.coefficients.flatten(1)
        if self._gradient is None:
            self._gradient = torch.empty_like(self.coefficients)
        gradient_KN = self._gradient.flatten(1)
        mixing_gradient_LK = mixing_LK.new_zeros(mixing_LK.shape)
        num_numbers = coefficients_KN.size(1)
        columns = _COLUMNS if mixing_LK.device.type == "cpu" else num_numbers
        flat_gradients = [gradient_OI.flatten() for gradient_OI in gradients]
        for start in range(0, num_numbers, columns):
            part = slice(start, start + columns)
            part_LN = torch.stack([gradient_N[part] for gradient_N in flat_gradients])
            torch.mm(mixing_LK.T, part_LN, out=gradient_KN[:, part])
            # not addmm_, which cuBLAS refuses for a group of one layer
            mixing_gradient_LK += part_LN @ coefficients_KN[:, part].T
        self.coefficients.grad = self._gradient
        self.layer_scales.grad = torch.linalg.vecdot(mixing_gradient_LK, self.basis)
        if self.lora_a is not None and self.lora_b is not None:
            gradient_LOI = torch.stack(list(gradients))
            self.lora_a.grad = gradient_LOI @ self.lora_b.mT
            self.lora_b.grad = self.lora_a.mT @ gradient_LOI

    @torch.no_grad()
    def pulls(self, gradients: Sequence[Tensor]) -> Mapping[str, Sequence[Tensor]]:
        """Return s_l P_k(t_l) G_l of each layer for each order k: they add up to the gradient of its coefficients."""
        return {
            f"coefficients.{k}": [factor * gradient for factor, gradient in zip(mixing_L, gradients, strict=True)]
            for k, mixing_L in enumerate(self._mixing().T)
        }

    def train(self, mode: bool = True) -> Self:
        """Switch to training, or to evaluation and let the buffers of training go."""
        if not mode:
            self._weights = self._gradient = None
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert the module: the buffers of training are made again where it then is."""
        self._weights = self._gradient = None
        return super()._apply(fn, recurse)

    def _mixing(self) -> Tensor:
        return self.layer_scales[:, None] * self.basis
