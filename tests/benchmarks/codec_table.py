"""Entropy coders side by side, as a Markdown table: `python tests/benchmarks/codec_table.py [SYMBOLS]`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from harness.artifact.codec import SYMBOL_CODERS, code_of, decode, encode
from harness.artifact.quantize import quantise

CODERS = ("range", "range-rows", "range-peaks", "zstd", "lzma", "zlib", "packed")
LABELS = {"zstd": "zstd -22", "zlib": "zlib -9", "lzma": "LZMA -9e", "packed": "packed bits"}
COLUMNS = 512


def draw_symbols(kind: str, num_symbols: int) -> NDArray[np.generic]:
    """Symbols of a matrix of 512 columns: alike rows, or rows of unlike scales under one common step."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(max(1, num_symbols // COLUMNS), COLUMNS))
    unlike = weight * np.exp(rng.normal(size=(len(weight), 1)) * 0.5)
    pruned = np.where(np.abs(weight) > 0.6745, weight, 0)
    source = {"int8-row": weight, "int6-row": weight, "ternary-row": weight, "int6-step, unlike rows": unlike}
    source |= {"int8-row, half pruned": pruned}
    return quantise(source[kind], kind.split(",")[0]).symbols


KINDS = ("int8-row", "int6-row", "ternary-row", "int6-step, unlike rows", "int8-row, half pruned")


def entropy_bytes(symbols: NDArray[np.generic]) -> float:
    """Order-0 entropy of the symbols' own histogram."""
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum()) / 8


def best_seconds(call: Callable[[], object], least_seconds: float = 0.3) -> float:
    """The shortest of several calls, at least two."""
    seconds: list[float] = []
    while len(seconds) < 2 or sum(seconds) < least_seconds:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def full_name(coder: str, symbols: NDArray[np.generic]) -> str:
    """The coder's name for symbols wider than a byte: byte coders take each plane of bytes by itself."""
    return coder if coder in SYMBOL_CODERS else "+".join([coder] * symbols.dtype.itemsize)


def measure(symbols: NDArray[np.generic], coder: str) -> tuple[float, float, float] | None:
    """Size over entropy, encoded and decoded Msym/s; None where the coder does not apply."""
    coder = full_name(coder, symbols)
    payload = encode(symbols, coder)
    if payload is None:
        return None
    encode_seconds = best_seconds(lambda: encode(symbols, coder))
    decode_seconds = best_seconds(lambda: decode(coder, payload, code_of(symbols.dtype), symbols.shape))
    millions = symbols.size / 1e6
    return len(payload) / entropy_bytes(symbols), millions / encode_seconds, millions / decode_seconds


def render_table(num_symbols: int) -> str:
    """The table, one row for each kind of symbols and coder."""
    heads = ("symbols", "coder", "size / entropy", "encode Msym/s", "decode Msym/s")
    lines = [f"| {' | '.join(heads)} |", "| --- | --- | ---: | ---: | ---: |"]
    for kind in KINDS:
        symbols = draw_symbols(kind, num_symbols)
        for coder in CODERS:
            if (found := measure(symbols, coder)) is not None:
                ratio, encoded, decoded = found
                label = LABELS.get(coder, coder)
                lines.append(f"| {kind} | {label} | {ratio:.4f} | {encoded:.1f} | {decoded:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(render_table(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
