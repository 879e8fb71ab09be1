"""Speed of the entropy coders on a quarter of a million symbols; run with --benchmark-enable, ratios side by side.

The same numbers as a Markdown table, over more symbols: `python tests/benchmarks/codec_table.py`.
"""

from __future__ import annotations

import pytest
from codec_table import CODERS, KINDS, draw_symbols, entropy_bytes, full_name
from pytest_benchmark.fixture import BenchmarkFixture

from harness.artifact.codec import code_of, decode, encode

NUM_SYMBOLS = 1 << 18


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("coder", CODERS)
def test_encode(benchmark: BenchmarkFixture, coder: str, kind: str) -> None:
    symbols = draw_symbols(kind, NUM_SYMBOLS)
    benchmark.group = f"encode {kind}"
    payload = benchmark(encode, symbols, full_name(coder, symbols))
    if payload is not None:
        benchmark.extra_info["size_over_entropy"] = round(len(payload) / entropy_bytes(symbols), 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("coder", CODERS)
def test_decode(benchmark: BenchmarkFixture, coder: str, kind: str) -> None:
    symbols = draw_symbols(kind, NUM_SYMBOLS)
    coder = full_name(coder, symbols)
    payload = encode(symbols, coder)
    if payload is None:
        pytest.skip("rows are alike: no classes")
    benchmark.group = f"decode {kind}"
    decoded = benchmark(decode, coder, payload, code_of(symbols.dtype), symbols.shape)
    assert (decoded == symbols).all()
