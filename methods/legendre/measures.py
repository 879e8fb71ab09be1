"""What claims about polynomials over depth are judged by: condition numbers, and what degree 0 is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from methods.legendre.generator import LegendreGenerator, basis_values, group_depths

SEED = 0


def legendre_condition(degree: int, layers: int) -> float:
    """Condition number of the Legendre polynomials 0 .. degree over equidistant depths, in the 2-norm."""
    return float(np.linalg.cond(basis_values("legendre", group_depths(layers), degree)))


def monomial_condition(degree: int, layers: int) -> float:
    """The same of the monomials t^0 .. t^degree."""
    return float(np.linalg.cond(basis_values("monomial", group_depths(layers), degree)))


def largest_product(degree: int, layers: int) -> float:
    """Largest cosine between two different orders as vectors over the depths; 0 if they are orthogonal there."""
    values_LK = basis_values("legendre", group_depths(layers), degree).astype(np.float64)
    unit_LK = values_LK / np.linalg.norm(values_LK, axis=0)
    return float(np.abs(unit_LK.T @ unit_LK - np.eye(degree + 1)).max())


@torch.no_grad()
def degree0_difference(layers: int, trained: str) -> float:
    """Largest difference between the weights of two layers at degree 0; `trained`: with scales apart, yes or no."""
    generator = _degree_zero(layers)
    if trained == "yes":
        generator.layer_scales.copy_(torch.linspace(0.5, 1.5, layers))
    weights = [generator.generate(index) for index in range(layers)]
    return float(max((weight - weights[0]).abs().max() for weight in weights))


@torch.no_grad()
def degree0_ratio(layers: int) -> float:
    """With the layers' scales trained apart: how far weights are from multiples of one another."""
    generator = _degree_zero(layers)
    generator.layer_scales.copy_(torch.linspace(0.5, 1.5, layers))
    weights = [generator.generate(index) / generator.layer_scales[index] for index in range(layers)]
    return float(max((weight - weights[0]).abs().max() for weight in weights))


def _degree_zero(layers: int) -> LegendreGenerator:
    torch.manual_seed(SEED)
    return LegendreGenerator(layers, 0, 24, 16)


MEASURES: Mapping[str, Callable[..., float]] = {
    "legendre_condition": legendre_condition,
    "monomial_condition": monomial_condition,
    "largest_product": largest_product,
    "degree0_difference": degree0_difference,
    "degree0_ratio": degree0_ratio,
}
