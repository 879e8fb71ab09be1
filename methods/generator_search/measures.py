"""What can be counted of a model of which only its width, depth and size were published (torch-free).

A SwiGLU transformer of width d and L layers with MLP width f, key/value width k and a vocabulary of V has
L (2 d^2 + 2 d k + 3 d f) numbers in its blocks (query, output; key, value; gate, up, down), V d in its embedding and as
many in a head that is not tied. Norms (2 d a layer) are left out: 0.5 million.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

WIDTH, LAYERS = 4096, 64
# MLP widths in use at this width: 8/3 d rounded as by Llama, 3 d, 3.5 d as Llama 3, 4 d, and their neighbours.
MLP_WIDTHS = (10_922, 11_008, 12_288, 13_824, 14_336, 15_360, 16_384, 17_920, 18_432, 20_480)
# Key and value heads of 128 features: as many as query heads, and groups of 4, 8, 16 and 32.
KV_WIDTHS = (4096, 1024, 512, 256, 128)
# Llama, T5-like, GPT-2, Qwen's older, GPT-4's, Llama 3, Qwen 2, Gemma.
VOCABULARIES = (32_000, 32_768, 50_257, 65_536, 100_277, 128_256, 151_936, 256_000)


class Configuration(NamedTuple):
    """A model of the published width and depth."""

    mlp_width: int
    kv_width: int
    vocabulary: int
    is_tied: bool

    @property
    def block_params(self) -> int:
        """Numbers in all blocks."""
        return LAYERS * (2 * WIDTH**2 + 2 * WIDTH * self.kv_width + 3 * WIDTH * self.mlp_width)

    @property
    def table_params(self) -> int:
        """Numbers in embedding and head."""
        return self.vocabulary * WIDTH * (1 if self.is_tied else 2)

    @property
    def params(self) -> int:
        """Numbers of the model."""
        return self.block_params + self.table_params


def configurations() -> Iterator[Configuration]:
    """Yield every configuration of the widths and vocabularies above."""
    for mlp_width in MLP_WIDTHS:
        for kv_width in KV_WIDTHS:
            for vocabulary in VOCABULARIES:
                yield from (Configuration(mlp_width, kv_width, vocabulary, is_tied) for is_tied in (True, False))


def matching(low: float, high: float) -> list[Configuration]:
    """Return the configurations whose number of parameters lies between two limits."""
    return [each for each in configurations() if low <= each.params <= high]


def num_configurations(low: float, high: float) -> float:
    """How many configurations have so many parameters."""
    return len(matching(low, high))


def least_table_share(low: float, high: float, small: float) -> float:
    """Least share of a small model's parameters that its tables take, over the configurations that match."""
    return min(each.table_params for each in matching(low, high)) / small


def least_block_factor(low: float, high: float, small: float) -> float:
    """Least factor by which blocks shrink where tables stay as they are; over those that leave blocks anything."""
    factors = [
        each.block_params / (small - each.table_params) for each in matching(low, high) if each.table_params < small
    ]
    return min(factors)


def num_without_blocks(low: float, high: float, small: float) -> float:
    """How many matching configurations have tables that are larger than the whole small model."""
    return sum(each.table_params >= small for each in matching(low, high))


def tokens_a_second(params: float, flops_a_weight: float, flops: float) -> float:
    """Return tokens a second, one by one, where each weight is generated for each token and no memory is waited for.

    Args:
        params: weights that a token is multiplied with.
        flops_a_weight: operations that generate one.
        flops: operations a second.
    """
    return flops / (params * (2 + flops_a_weight))


MEASURES: Mapping[str, Callable[..., float]] = {
    "num_configurations": num_configurations,
    "least_table_share": least_table_share,
    "least_block_factor": least_block_factor,
    "num_without_blocks": num_without_blocks,
    "tokens_a_second": tokens_a_second,
}
