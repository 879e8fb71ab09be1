"""Expressions as formulas: `sum_k<3 P_k(t) (A_k (x) B_k)[8x8] + diag(s_l) C D^T[4]`.

Capital letters are free matrices, F cosines, R random ones; small letters are vectors, c_l a number a layer. Sizes are
in square brackets. Index k counts functions of depth, g groups of layers, l layers; without one, all layers share it.
"""

from __future__ import annotations

from collections.abc import Iterator

from methods.generator_search.grammar import (
    Chain,
    Expression,
    Free,
    Kronecker,
    LowRank,
    MatMul,
    OverDepth,
    Product,
    Random,
    Scale,
    Share,
    Sum,
    Vector,
    Waves,
)


def formula(expression: Expression) -> str:
    """Write an expression as people do; distinct letters are distinct numbers."""
    return _Writer().write(expression, "")


def _letters(alphabet: str) -> Iterator[str]:
    return (f"{letter}{number or ''}" for number in range(100) for letter in alphabet)


class _Writer:
    """Hands out letters that are not in use, from left to right."""

    def __init__(self) -> None:
        self._big, self._small = _letters("ABCDEGHJKLMNQSUVWXYZ"), _letters("abdefhmnpqsuvw")

    def write(self, node: Expression, index: str) -> str:
        """Write a node whose letters get an index."""
        match node:
            case Sum(left, right):
                return f"{self.write(left, index)} + {self.write(right, index)}"
            case Product(left, right):
                return f"{self._factor(left, index)} * {self._factor(right, index)}"
            case MatMul(inner, left, right):
                return f"{self._factor(left, index)} [{inner}] {self._factor(right, index)}"
            case Scale(axis, child):
                scale = "c_l" if axis == "layers" else f"diag({next(self._small)}{index if axis == 'rows' else '_l'})"
                return f"{scale} {self._factor(child, index)}"
            case OverDepth(basis, terms, child):
                return f"sum_k<{terms} {'P' if basis == 'legendre' else 'cos'}_k(t) {self._factor(child, '_k')}"
            case Share(1, child):
                return self._factor(child, "_l")
            case Share(layers, child):
                return f"(g = l // {layers}: {self.write(child, '_g')})"
        return self._write_leaf(node, index)

    def _write_leaf(self, node: Expression, index: str) -> str:
        match node:
            case Vector(axis):
                return "c_l" if axis == "layer" else self._write_vector(axis, index)
            case LowRank(rank):
                return f"{self._matrix(index)} {self._matrix(index)}^T[{rank}]"
            case Kronecker(rows, columns):
                return f"({self._matrix(index)} (x) {self._matrix(index)})[{rows}x{columns}]"
            case Chain(chi):
                return f"MPO({self._matrix(index)})[{chi}]"
            case Random(seed):
                return f"R{index}[seed {seed}]"
            case Waves(axis, terms):
                return f"F[{terms}] {self._matrix(index)}" if axis == "rows" else f"{self._matrix(index)} F^T[{terms}]"
        assert isinstance(node, Free), f"no formula for {type(node).__name__}"
        return self._matrix(index)

    def _write_vector(self, axis: str, index: str) -> str:
        letter = f"{next(self._small)}{index}"
        return f"{letter} 1^T" if axis == "row" else f"1 {letter}^T"

    def _factor(self, node: Expression, index: str) -> str:
        text = self.write(node, index)
        return f"({text})" if isinstance(node, Sum | Product | OverDepth) else text

    def _matrix(self, index: str) -> str:
        return f"{next(self._big)}{index}"
