"""The effect that a predicate asks about, so that predicates which ask the same at several sizes can be joined."""

from __future__ import annotations

import ast
from typing import NamedTuple

from harness.claims.expressions import calls_in
from harness.claims.fetches import FETCHES

_BELOW, _ABOVE = (ast.Lt, ast.LtE), (ast.Gt, ast.GtE)
_FUNCTIONS = ("difference", "ratio")


class Effect(NamedTuple):
    """A comparison of A and B with a number.

    Attributes:
        asks: function, figure and comparison, such as "difference of val_bpb < 0": all but the runs.
        is_above: whether the claim says that the effect is above the number, not below.
    """

    asks: str
    is_above: bool


def effect_of(tree: ast.expr) -> Effect | None:
    """Return the effect of a predicate; None for one of another form than `difference(A, B, "figure") < number`."""
    match tree:
        case ast.Compare(
            left=ast.Call(
                func=ast.Name(id=name),
                args=[ast.Constant(value=str()), ast.Constant(value=str()), ast.Constant(value=str(figure))],
                keywords=[],
            ),
            ops=[op],
            comparators=[bound],
        ) if name in _FUNCTIONS and isinstance(op, (*_BELOW, *_ABOVE)) and not calls_in(bound) & FETCHES.keys():
            is_above = isinstance(op, _ABOVE)
            sign = (">" if is_above else "<") + ("=" if isinstance(op, (ast.LtE, ast.GtE)) else "")
            return Effect(f"{name} of {figure} {sign} {ast.unparse(bound)}", is_above)
    return None
