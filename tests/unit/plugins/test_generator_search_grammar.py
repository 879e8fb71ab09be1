"""The grammar of weight generators: texts, sorts, counts by formula against what modules hold, formulas."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_expressions import expressions

from harness.errors import UsageError
from methods.generator_search.combinators import make_part
from methods.generator_search.counting import Shape, count_params
from methods.generator_search.formula import formula
from methods.generator_search.grammar import Expression, Free, OverDepth, Share, Sum
from methods.generator_search.parsing import MAX_LENGTH, parse

SHAPE = Shape(rows=12, columns=8, layers=3)


@given(expressions())
def test_a_text_parses_back(expression: Expression) -> None:
    assert parse(expression.text) == expression


@given(expressions(), st.integers(1, 5))
def test_numbers_by_formula_are_those_that_the_module_holds(expression: Expression, layers: int) -> None:
    shape = Shape(rows=12, columns=8, layers=layers)
    part = make_part(expression, shape, "query")
    assert count_params(expression, shape) == sum(parameter.numel() for parameter in part.parameters())


@pytest.mark.parametrize(
    ("text", "num_params"),
    [
        ("free", 12 * 8),
        ("row", 12),
        ("column", 8),
        ("layer", 3),
        ("low_rank(2)", 2 * (12 + 8)),
        ("low_rank(99)", 8 * (12 + 8)),  # at most the full rank
        ("kron(3, 4)", 3 * 4 + 4 * 2),
        ("kron(5, 5)", 4 * 4 + 3 * 2),  # the largest divisors of 12 and 8 that are at most 5
        ("mpo(2)", 2 * (3 * 2) + 2 * (4 * 4)),  # two sites, (3, 2) and (4, 4), joined by a bond of 2
        ("random(7)", 0),
        ("cos_rows(5)", 5 * 8),
        ("cos_columns(5)", 12 * 5),
        ("matmul(5, free, low_rank(1))", 12 * 5 + (5 + 8)),
        ("scale_rows(random(1))", 12),
        ("scale_layers(random(1))", 3),
        ("scale_layer_rows(random(1))", 3 * 12),
        ("legendre(2, kron(3, 4))", 2 * (3 * 4 + 4 * 2)),
        ("legendre(9, row)", 3 * 12),  # at most one function a layer
        ("share(2, free)", 2 * 12 * 8),  # layers 0 and 1, layer 2
        ("free + row * scale_rows(column)", 12 * 8 + 12 + 12 + 8),
    ],
)
def test_numbers_by_hand(text: str, num_params: int) -> None:
    assert count_params(parse(text), SHAPE) == num_params


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"),
        ("low_rank(8", "cannot be read"),
        ("low_rnk(8)", "Did you mean 'low_rank'"),
        ("low_rank", "takes 1 whole number"),
        ("low_rank(8, 8)", "takes 1 whole number"),
        ("low_rank(True)", "takes 1 whole number"),
        ("low_rank(0)", "low_rank(0): 0 is not 1 to 4096"),
        ("low_rank(-1)", "takes 1 whole number"),
        ("low_rank(10000000)", "is not 1 to 4096"),
        ("random(1.5)", "takes 1 whole number"),
        ("free - row", "no part of the grammar"),
        ("__import__('os')", "no part is called"),
        ("free.T", "no part of the grammar"),
        ("legendre(2, share(1, free))", "does not vary with depth"),
        ("share(2, scale_layers(free))", "does not vary with depth"),
        ("scale_rows(" * 70 + "free" + ")" * 70, "more than 64 parts"),
        ("free + " * MAX_LENGTH + "free", "characters, more than"),
        ("(" * 500 + "free" + ")" * 500, "cannot be read"),
        ("fr\0ee", "cannot be read"),
    ],
)
def test_what_is_no_expression_is_one_line_that_says_why(text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(text)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_a_usage_error(text: str) -> None:
    try:
        assert isinstance(parse(text), Expression)
    except UsageError as error:
        assert "expression" in str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("free", "A"),
        (
            "legendre(3, kron(8, 8)) + scale_layer_rows(low_rank(4))",
            "sum_k<3 P_k(t) (A_k (x) B_k)[8x8] + diag(a_l) C D^T[4]",
        ),
        ("share(1, low_rank(2)) * (row + layer)", "A_l B_l^T[2] * (a 1^T + c_l)"),
        ("share(2, cos_rows(3) + random(5))", "(g = l // 2: F[3] A_g + R_g[seed 5])"),
        ("cosine(2, matmul(4, free, mpo(2)))", "sum_k<2 cos_k(t) A_k [4] MPO(B_k)[2]"),
    ],
)
def test_formulas(text: str, expected: str) -> None:
    assert formula(parse(text)) == expected


@given(expressions())
def test_every_expression_has_a_formula(expression: Expression) -> None:
    assert formula(expression)


def test_sorts() -> None:
    assert not parse("free + low_rank(2)").varies
    assert parse("free + share(1, low_rank(2))").varies
    assert parse("free * layer").varies
    assert Sum(Free(), OverDepth("cosine", 2, Free())).with_children((Share(1, Free()), Free())).varies
