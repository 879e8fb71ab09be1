"""Modules of the leaves of an expression: each makes its weights, and draws initial numbers of a given size.

Shape letters: O and I rows and columns of a weight, L layers, N copies of a matrix, R inner size, K functions. `pick`
chooses copies of a matrix, or layers of a stack.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from torch import Tensor, nn

from harness.nn.factorise import rebuild
from methods.generator_search.bases import Floats, cosines
from methods.generator_search.counting import Shape, blocks_of, core_shapes, rank_of, terms_of
from methods.generator_search.grammar import Chain, Expression, Free, Kronecker, LowRank, Random, Vector, Waves

ALL = slice(None)


class Part(nn.Module):
    """The module of a node.

    Args:
        node: of the expression.
        shape: of what it makes.
        role: of the linear map, from which fixed random numbers are made.
    """

    def __init__(self, node: Expression, shape: Shape, role: str) -> None:
        super().__init__()
        self.node, self.shape, self.varies = node, shape, node.varies

    @property
    def can_be_zero(self) -> bool:
        """Whether `draw` can make all weights zero."""
        return True

    def forward(self, pick: slice = ALL) -> Tensor:
        """Return weights (n, O, I), where an axis of equal values may have the size 1."""
        raise NotImplementedError

    def draw(self, power_N: Floats, *, zero: bool) -> None:
        """Draw initial numbers.

        Args:
            power_N: mean square of the entries of each copy, one number for a stack; mean over layers for a stack.
            zero: start at zero, where `can_be_zero` says that it can, with factors that still learn.
        """
        raise NotImplementedError


def _normal(parameter: Tensor, power_N: Floats, *, zero: bool = False) -> None:
    """Draw (N, ...) from N(0, power) copy by copy, or zeros."""
    with torch.no_grad():
        deviations = torch.tensor(np.sqrt(power_N), dtype=parameter.dtype)
        parameter.normal_().mul_(deviations.view(-1, *[1] * (parameter.ndim - 1)) * (not zero))


class FreePart(Part):
    """A parameter (N, O, I)."""

    def __init__(self, node: Free, shape: Shape, role: str) -> None:
        super().__init__(node, shape, role)
        self.matrix = nn.Parameter(torch.empty(shape.copies, shape.rows, shape.columns))

    def forward(self, pick: slice = ALL) -> Tensor:
        """Return the parameter."""
        return self.matrix[pick]

    def draw(self, power_N: Floats, *, zero: bool) -> None:
        """Draw the numbers themselves."""
        _normal(self.matrix, power_N, zero=zero)


class VectorPart(Part):
    """A parameter (N, O), (N, I) or (L, 1)."""

    node: Vector

    def __init__(self, node: Vector, shape: Shape, role: str) -> None:
        super().__init__(node, shape, role)
        sizes = {
            "row": (shape.copies, shape.rows),
            "column": (shape.copies, shape.columns),
            "layer": (shape.layers, 1),
        }
        self.vector = nn.Parameter(torch.empty(sizes[node.axis]))

    def forward(self, pick: slice = ALL) -> Tensor:
        """Return (n, O, 1), (n, 1, I) or (n, 1, 1)."""
        return self.vector[pick].unsqueeze(1 if self.node.axis == "column" else 2)

    def draw(self, power_N: Floats, *, zero: bool) -> None:
        """Draw the numbers themselves."""
        _normal(self.vector, power_N, zero=zero)


class LowRankPart(Part):
    """Parameters U (N, O, R) and V (N, R, I)."""

    def __init__(self, node: LowRank, shape: Shape, role: str) -> None:
        super().__init__(node, shape, role)
        rank = rank_of(node, shape)
        self.left = nn.Parameter(torch.empty(shape.copies, shape.rows, rank))
        self.right = nn.Parameter(torch.empty(shape.copies, rank, shape.columns))

    def forward(self, pick: slice = ALL) -> Tensor:
        """Return U V."""
        return self.left[pick] @ self.right[pick]

    def draw(self, power_N: Floats, *, zero: bool) -> None:
        """Draw both factors alike: an entry is a sum of R products."""
        power_N = np.sqrt(power_N / self.left.size(2))
        _normal(self.left, power_N, zero=zero)
        _normal(self.right, power_N)


class KroneckerPart(Part):
    """Parameters A (N, m, n) and B (N, O / m, I / n)."""

    def __init__(self, node: Kronecker, shape: Shape, role: str) -> None:
        super().__init__(node, shape, role)
        m, n = blocks_of(node, shape)
        self.left = nn.Parameter(torch.empty(shape.copies, m, n))
        self.right = nn.Parameter(torch.empty(shape.copies, shape.rows // m, shape.columns // n))

    def forward(self, pick: slice = ALL) -> Tensor:
        """Return A (x) B."""
        product = self.left[pick][:, :, None, :, None] * self.right[pick][:, None, :, None, :]
        return product.reshape(-1, self.shape.rows, self.shape.columns)

    def draw(self, power_N: Floats, *, zero: bool) -> None:
        """Draw both factors alike."""
        _normal(self.left, np.sqrt(power_N), zero=zero)
        _normal(self.right, np.sqrt(power_N))


class ChainPart(Part):
    """Cores (A, o, i, Z), kept as parameters (N, A o, i Z)."""

    def __init__(self, node: Chain, shape: Shape, role: str) -> None:
        super().__init__(node, shape, role)
        self.core_shapes = core_shapes(node, shape)
        self.cores = nn.ParameterList(
            nn.Parameter(torch.empty(shape.copies, left * out, inside * right))
            for left, out, inside, right in self.core_shapes
        )

    def forward(self, pick: slice = ALL) -> Tensor:
        """Multiply the cores of each copy out."""
        return torch.stack(
            [
                rebuild([core[copy].view(each) for core, each in zip(self.cores, self.core_shapes, strict=True)])
                for copy in range(self.shape.copies)[pick]
            ]
        )

    def draw(self, power_N: Floats, *, zero: bool) -> None:
        """Draw all cores alike: an entry is a sum of as many products as the bonds have values together."""
        bonds = math.prod(shape[3] for shape in self.core_shapes)
        power_N = (power_N / bonds) ** (1 / len(self.cores))
        for site, core in enumerate(self.cores):
            _normal(core, power_N, zero=zero and site == 0)


class RandomPart(Part):
    """Fixed numbers (N, O, I), uniform, from seed, role and copy alone: the same on every machine."""

    node: Random
    matrix: Tensor

    def __init__(self, node: Random, shape: Shape, role: str) -> None:
        super().__init__(node, shape, role)
        size = shape.rows * shape.columns
        # raw bits, since those alone are promised to stay the same from one numpy to the next
        bits_NS = [
            np.random.PCG64(np.random.SeedSequence([node.seed, zlib.crc32(role.encode()), copy])).random_raw(size)
            for copy in range(shape.copies)
        ]
        uniform = (np.stack(bits_NS) >> np.uint64(11)) * 2.0**-53
        values = math.sqrt(12) * (uniform - 0.5).reshape(-1, shape.rows, shape.columns)
        self.register_buffer("matrix", torch.tensor(values, dtype=torch.float32), persistent=False)

    @property
    def can_be_zero(self) -> bool:
        """No: zeros would stay zeros."""
        return False

    def forward(self, pick: slice = ALL) -> Tensor:
        """Return the numbers."""
        return self.matrix[pick]

    def draw(self, power_N: Floats, *, zero: bool) -> None:
        """Scale numbers of mean square 1."""
        self.matrix.mul_(torch.tensor(np.sqrt(power_N), dtype=torch.float32)[:, None, None])


class WavesPart(Part):
    """Cosines (O, K) times a parameter (N, K, I), or a parameter (N, O, K) times cosines (K, I)."""

    node: Waves
    waves: Tensor

    def __init__(self, node: Waves, shape: Shape, role: str) -> None:
        super().__init__(node, shape, role)
        terms, of_rows = terms_of(node, shape), node.axis == "rows"
        waves_PK = cosines(shape.rows if of_rows else shape.columns, terms)
        waves = torch.tensor(waves_PK if of_rows else waves_PK.T, dtype=torch.float32)
        self.register_buffer("waves", waves, persistent=False)
        self._sum_of_squares = float((waves_PK**2).sum()) / len(waves_PK)
        sizes = (terms, shape.columns) if of_rows else (shape.rows, terms)
        self.factor = nn.Parameter(torch.empty(shape.copies, *sizes))

    def forward(self, pick: slice = ALL) -> Tensor:
        """Return F C or C F^T."""
        return self.waves @ self.factor[pick] if self.node.axis == "rows" else self.factor[pick] @ self.waves

    def draw(self, power_N: Floats, *, zero: bool) -> None:
        """Draw coefficients alike: the mean square of a cosine over its points is 1 / 2, that of the constant 1."""
        _normal(self.factor, power_N / self._sum_of_squares, zero=zero)
