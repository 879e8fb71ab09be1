"""Fixed functions of a place: cosines over rows, columns or depth, Legendre polynomials over depth.

Shape letters: P points, K functions, L layers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from methods.generator_search.grammar import Basis

Floats = NDArray[np.float64]


def cosines(num_points: int, num_terms: int) -> Floats:
    """Return cos(pi k (p + 1/2) / P), of shape (P, K): the type-II cosine transform, whose columns are orthogonal."""
    points_P1 = np.arange(num_points)[:, None] + 0.5
    return np.asarray(np.cos(np.pi * points_P1 * np.arange(num_terms) / num_points))


def basis_values(basis: Basis, num_layers: int, num_terms: int) -> Floats:
    """Return b_k at each layer, of shape (L, K): Legendre polynomials at equidistant depths -1 to 1, or cosines."""
    if basis == "cosine":
        return cosines(num_layers, num_terms)
    depths_L = np.linspace(-1.0, 1.0, num_layers) if num_layers > 1 else np.zeros(1)
    return np.asarray(np.polynomial.legendre.legvander(depths_L, num_terms - 1))
