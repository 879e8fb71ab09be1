"""The language of predicates: arithmetic and comparisons over evidence, nothing else.

    expression  := comparison | expression and expression | expression or expression | not expression | (expression)
    comparison  := sum (< | <= | > | >= | == | !=) sum ...
    sum         := numbers, names of facts, + - * / **, unary -, calls of functions by name

A name is a fact of the claim file. A literal is exact. Functions are those of `FUNCTIONS`, which only compute, and
those that the caller gives, which fetch evidence; their arguments may be texts. `==` asks whether both sides can be one
number within what was printed or measured; `<` is decided only where the limits decide it. There are no attributes, no
subscripts, no lambdas, no comprehensions and no assignments: the text is parsed by `ast` and only the nodes above are
walked.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from harness.claims.quantities import (
    Number,
    Truth,
    all_of,
    any_of,
    between,
    combine,
    divide,
    exact,
    is_less,
    may_be_equal,
    power,
)
from harness.errors import UsageError, suggest

MAX_CHARACTERS, MAX_DEPTH = 2000, 40
Value = Number | bool | None | str
Fetch = Callable[..., Value]

_ARITHMETIC: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: lambda a, b: combine(lambda x, y: x + y, a, b),
    ast.Sub: lambda a, b: combine(lambda x, y: x - y, a, b),
    ast.Mult: lambda a, b: combine(lambda x, y: x * y, a, b),
    ast.Div: divide,
    ast.Pow: power,
}


def _least(*numbers: Number) -> Number:
    return combine(min, *numbers)


def _most(*numbers: Number) -> Number:
    return combine(max, *numbers)


def _absolute(number: Number) -> Number:
    found = combine(abs, number)
    return between(0.0, found.high, found.value) if number.low <= 0 <= number.high else found


def _within(number: Number, target: Number, margin: Number) -> Truth:
    """Whether a number is no further than a margin from another."""
    return is_less(_absolute(_ARITHMETIC[ast.Sub](number, target)), margin, or_equal=True)


def _sum(*numbers: Number) -> Number:
    return combine(lambda *parts: math.fsum(parts), *numbers)


def _unrounded(number: Number) -> Number:
    """The printed number itself, taken as exact."""
    return exact(number.value)


# name -> (function, least and most arguments)
FUNCTIONS: Mapping[str, tuple[Callable[..., Value], int, int]] = {
    "abs": (_absolute, 1, 1),
    "min": (_least, 1, 12),
    "max": (_most, 1, 12),
    "sum": (_sum, 1, 12),
    "sqrt": (lambda a: combine(math.sqrt, a), 1, 1),
    "log": (lambda a: combine(math.log, a), 1, 1),
    "log2": (lambda a: combine(math.log2, a), 1, 1),
    "exp": (lambda a: combine(math.exp, a), 1, 1),
    "floor": (lambda a: combine(math.floor, a), 1, 1),
    "within": (_within, 3, 3),
    "exactly": (_unrounded, 1, 1),
}


LANGUAGE = (
    ("name", "a fact or margin of the claim file, within the limits of its print"),
    ("1.5, 2e9", "a number, exactly"),
    ("+ - * / **", "arithmetic, the limits carried along"),
    ("a < b, a <= b, a > b, a >= b", "yes or no where all numbers within the limits agree, else undecided"),
    ("a == b, a != b", "whether both can be one number within their limits"),
    ("and or not", "of three values: yes, no, undecided"),
    ("abs sqrt log log2 exp floor", "of one number"),
    ("min max sum", "of up to 12 numbers"),
    ("within(a, b, margin)", "whether a is no further than the margin from b"),
    ("exactly(a)", "the number as printed, without its limits"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """What an expression may name.

    Attributes:
        facts: numbers by name.
        fetches: functions that fetch evidence, by name; each takes texts and numbers, by place or by keyword.
    """

    facts: Mapping[str, Number]
    fetches: Mapping[str, Fetch]


def parse_expression(text: str) -> ast.expr:
    """Parse a predicate and check that it uses nothing but the language.

    Raises:
        UsageError: names the first place that is not in the language.
    """
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"the expression is longer than {MAX_CHARACTERS:,} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"not an expression: {getattr(error, 'msg', error)}: {text.strip()[:80]}") from None
    _check(tree, 0)
    return tree


def names_in(tree: ast.expr) -> set[str]:
    """Return the facts that an expression names."""
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node not in called}


def calls_in(tree: ast.expr) -> set[str]:
    """Return the functions that an expression calls."""
    return {cast(ast.Name, node.func).id for node in ast.walk(tree) if isinstance(node, ast.Call)}


def may_say_equal(tree: ast.AST, truth: bool) -> bool:
    """Whether an expression that is true, or is false, may be so since two numbers are one."""
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
        return may_say_equal(tree.operand, not truth)
    if isinstance(tree, ast.Eq if truth else ast.NotEq):
        return True
    return any(may_say_equal(child, truth) for child in ast.iter_child_nodes(tree))


def _check(node: ast.AST, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise UsageError(f"the expression is nested deeper than {MAX_DEPTH}")
    match node:
        case ast.Constant(value=bool() | None):
            raise UsageError("True, False and None are no values of the language")
        case ast.Constant(value=int() | float() | str()) | ast.Name():
            children: list[ast.AST] = []
        case ast.UnaryOp(op=ast.USub() | ast.Not()):
            children = [node.operand]
        case ast.BinOp(op=op) if type(op) in _ARITHMETIC:
            children = [node.left, node.right]
        case ast.BoolOp():
            children = [*node.values]
        case ast.Compare(ops=ops) if all(
            isinstance(op, (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)) for op in ops
        ):
            children = [node.left, *node.comparators]
        case ast.Call(func=ast.Name()) if all(keyword.arg for keyword in node.keywords):
            children = [*node.args, *(keyword.value for keyword in node.keywords)]
        case _:
            raise UsageError(f"not in the language of predicates: {ast.unparse(node)[:80]}")
    for child in children:
        _check(child, depth + 1)


def evaluate(tree: ast.expr, names: Names) -> Value:
    """Return what an expression says: a truth, or a number.

    Args:
        tree: of `parse_expression`.
        names: facts, and functions that fetch evidence.

    Raises:
        UsageError: an unknown name or function, wrong arguments, or no finite number.
    """
    return _WALKERS[type(tree)](tree, names)


def _literal(tree: ast.Constant, names: Names) -> Value:
    if isinstance(tree.value, str):
        return tree.value
    try:
        value = float(cast(float, tree.value))
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise UsageError("not a finite number")
    return exact(value)


def _fact(tree: ast.Name, names: Names) -> Value:
    if tree.id not in names.facts:
        raise UsageError(f"no fact '{tree.id}'. {suggest(tree.id, names.facts)}")
    return names.facts[tree.id]


def _unary(tree: ast.UnaryOp, names: Names) -> Value:
    if isinstance(tree.op, ast.USub):
        return combine(lambda a: -a, _number(tree.operand, names))
    truth = _truth(tree.operand, names)
    return None if truth is None else not truth


def _binary(tree: ast.BinOp, names: Names) -> Value:
    return _ARITHMETIC[type(tree.op)](_number(tree.left, names), _number(tree.right, names))


def _boolean(tree: ast.BoolOp, names: Names) -> Value:
    truths = [_truth(value, names) for value in tree.values]
    return all_of(truths) if isinstance(tree.op, ast.And) else any_of(truths)


def evaluate_truth(tree: ast.expr, names: Names) -> Truth:
    """Return what a predicate says; as `evaluate`, and a number is refused."""
    return _truth(tree, names)


def _number(node: ast.expr, names: Names) -> Number:
    value = evaluate(node, names)
    if not isinstance(value, Number):
        raise UsageError(f"not a number: {ast.unparse(node)[:80]}")
    return value


def _truth(node: ast.expr, names: Names) -> Truth:
    value = evaluate(node, names)
    if not (value is None or isinstance(value, bool)):
        raise UsageError(f"says neither yes nor no: {ast.unparse(node)[:80]}")
    return value


def _compare(tree: ast.Compare, names: Names) -> Truth:
    sides = [_number(side, names) for side in (tree.left, *tree.comparators)]
    found: list[Truth] = []
    for op, first, second in zip(tree.ops, sides, sides[1:], strict=False):
        match op:
            case ast.Eq():
                found.append(may_be_equal(first, second))
            case ast.NotEq():
                found.append(not may_be_equal(first, second))
            case ast.Lt() | ast.LtE():
                found.append(is_less(first, second, or_equal=isinstance(op, ast.LtE)))
            case _:
                found.append(is_less(second, first, or_equal=isinstance(op, ast.GtE)))
    return all_of(found)


def _call(tree: ast.Call, names: Names) -> Value:
    name = cast(ast.Name, tree.func).id
    if name in names.fetches:
        arguments = [_argument(argument, names) for argument in tree.args]
        keywords = {cast(str, keyword.arg): _argument(keyword.value, names) for keyword in tree.keywords}
        return names.fetches[name](*arguments, **keywords)
    if name not in FUNCTIONS:
        raise UsageError(f"no function '{name}'. {suggest(name, [*FUNCTIONS, *names.fetches])}")
    function, least, most = FUNCTIONS[name]
    if tree.keywords or not least <= len(tree.args) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise UsageError(f"{name}() takes {wanted} arguments, by place")
    return function(*(_number(argument, names) for argument in tree.args))


def _argument(node: ast.expr, names: Names) -> Any:
    """An argument of a fetch: a text, a plain number where it is exact, or a number with limits."""
    value = evaluate(node, names)
    if isinstance(value, Number) and value.is_exact:
        return int(value.value) if value.value == int(value.value) else value.value
    return value


_WALKERS: Mapping[type[ast.expr], Callable[[Any, Names], Value]] = {
    ast.Constant: _literal,
    ast.Name: _fact,
    ast.UnaryOp: _unary,
    ast.BinOp: _binary,
    ast.BoolOp: _boolean,
    ast.Compare: _compare,
    ast.Call: _call,
}
