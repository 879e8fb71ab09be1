"""Legendre: weights that vary over depth as low-degree polynomials."""
