"""From the text of an expression to the expression: `legendre(3, kron(8, 8)) + scale_layer_rows(low_rank(4))`."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import partial

from harness.errors import UsageError, suggest
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

MAX_LENGTH = 2000

# How each head is made, and how many whole numbers and how many expressions it takes.
_MAKERS: dict[str, tuple[Callable[..., Expression], int, int]] = {
    "free": (Free, 0, 0),
    "row": (partial(Vector, "row"), 0, 0),
    "column": (partial(Vector, "column"), 0, 0),
    "layer": (partial(Vector, "layer"), 0, 0),
    "low_rank": (LowRank, 1, 0),
    "kron": (Kronecker, 2, 0),
    "mpo": (Chain, 1, 0),
    "random": (Random, 1, 0),
    "cos_rows": (partial(Waves, "rows"), 1, 0),
    "cos_columns": (partial(Waves, "columns"), 1, 0),
    "matmul": (MatMul, 1, 2),
    "scale_rows": (partial(Scale, "rows"), 0, 1),
    "scale_layers": (partial(Scale, "layers"), 0, 1),
    "scale_layer_rows": (partial(Scale, "layer_rows"), 0, 1),
    "legendre": (partial(OverDepth, "legendre"), 1, 1),
    "cosine": (partial(OverDepth, "cosine"), 1, 1),
    "share": (Share, 1, 1),
}


def parse(text: str) -> Expression:
    """Read an expression: names, whole numbers, `+`, `*` (element by element), brackets.

    Raises:
        UsageError: it is none; says which part.
    """
    if len(text) > MAX_LENGTH:
        raise UsageError(f"expression: {len(text)} characters, more than {MAX_LENGTH}; write a shorter one")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(
            f"expression: {text!r:.60} cannot be read; write for example low_rank(8) + legendre(3, kron(8, 8))"
        ) from error
    return _read(tree.body, text)


def _read(node: ast.expr, text: str) -> Expression:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        maker = Sum if isinstance(node.op, ast.Add) else Product
        return maker(_read(node.left, text), _read(node.right, text))
    if isinstance(node, ast.Name):
        return _make(node.id, [], text)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _make(node.func.id, node.args, text)
    raise UsageError(f"expression: {_part(node, text)!r:.60} is no part of the grammar: {', '.join(_MAKERS)}, +, *")


def _make(head: str, given: list[ast.expr], text: str) -> Expression:
    if head not in _MAKERS:
        raise UsageError(f"expression: no part is called '{head}'. {suggest(head, _MAKERS)}")
    maker, num_numbers, num_children = _MAKERS[head]
    numbers = [node.value for node in given[:num_numbers] if isinstance(node, ast.Constant) and type(node.value) is int]
    if len(given) != num_numbers + num_children or len(numbers) != num_numbers:
        raise UsageError(
            f"expression: {head} takes {num_numbers} whole number(s) and then {num_children} expression(s), "
            f"got ({', '.join(_part(node, text) for node in given):.60})"
        )
    return maker(*numbers, *(_read(node, text) for node in given[num_numbers:]))


def _part(node: ast.expr, text: str) -> str:
    return ast.get_source_segment(text.strip(), node) or "?"
