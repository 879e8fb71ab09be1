"""Expressions of every kind for properties, apart from how the search draws them."""

from __future__ import annotations

from hypothesis import strategies as st

from methods.generator_search import grammar
from methods.generator_search.grammar import Expression

SIZE = st.integers(1, 9)


def _leaves() -> st.SearchStrategy[Expression]:
    return st.one_of(
        st.just(grammar.Free()),
        st.builds(grammar.Vector, st.sampled_from(["row", "column"])),
        st.builds(grammar.LowRank, SIZE),
        st.builds(grammar.Kronecker, SIZE, SIZE),
        st.builds(grammar.Chain, SIZE),
        st.builds(grammar.Random, st.integers(0, 99)),
        st.builds(grammar.Waves, st.sampled_from(["rows", "columns"]), SIZE),
    )


def _combined(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    return st.one_of(
        st.builds(grammar.Sum, inner, inner),
        st.builds(grammar.Product, inner, inner),
        st.builds(grammar.MatMul, st.sampled_from([4, 8, 9]), inner, inner),
    )


def _matrices() -> st.SearchStrategy[Expression]:
    return st.recursive(
        _leaves(),
        lambda inner: _combined(inner) | st.builds(grammar.Scale, st.just("rows"), inner),
        max_leaves=4,
    )


def expressions() -> st.SearchStrategy[Expression]:
    """Draw matrices and stacks; chains of cores fit rows of 12, columns of 8 and the inner sizes that are drawn."""
    stacks = st.one_of(
        st.builds(grammar.OverDepth, st.sampled_from(["legendre", "cosine"]), st.integers(1, 4), _matrices()),
        st.builds(grammar.Share, st.integers(1, 4), _matrices()),
        st.just(grammar.Vector("layer")),
    )
    return st.recursive(
        stacks | _matrices(),
        lambda inner: (
            _combined(inner) | st.builds(grammar.Scale, st.sampled_from(["rows", "layers", "layer_rows"]), inner)
        ),
        max_leaves=4,
    )
