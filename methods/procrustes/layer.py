"""The linear map whose weight is a member of a structured class, run in structured form."""

from __future__ import annotations

from torch import Tensor, nn

from methods.procrustes.classes import Factors, StructuredClass


class StructuredLinear(nn.Module):
    """y = x S + b, with S (I, O) never built.

    Args:
        structure: class of S.
        factors: of S.
        bias: b (O,), or None.
    """

    def __init__(self, structure: StructuredClass, factors: Factors, bias: Tensor | None) -> None:
        super().__init__()
        self.structure = structure
        self.factors = nn.ParameterList(nn.Parameter(factor.contiguous()) for factor in factors)
        self.bias = None if bias is None else nn.Parameter(bias.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        y = self.structure.apply(tuple(self.factors), x)
        return y if self.bias is None else y + self.bias
