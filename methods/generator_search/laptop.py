"""What a 17.6B network costs on a laptop, its weights stored or generated (torch-free), and the sizes that it may have.

    python -m methods.generator_search.laptop

prints both tables of the method's README. Nothing of the claimed program was published, so each row is one way in which
it might work, at assumed speeds; a row is an upper bound, since attention, norms and all waiting are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from harness.tables import Table
from methods.generator_search.measures import Configuration, matching

CLAIMED_PARAMS, CLAIMED_SMALL = 17.6e9, 417e6
LOW, HIGH = 17.55e9, 17.65e9
HEAD_WIDTH = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Laptop:
    """Assumed speeds.

    Attributes:
        memory_bytes: all of it for weights.
        flops: operations a second in matrix products.
        bandwidth: bytes a second from memory.
    """

    memory_bytes: float = 16e9
    flops: float = 1e12
    bandwidth: float = 1e11


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """A way to hold and to make the weights.

    Attributes:
        name: in the table.
        held_bytes: in memory all the time.
        moved_bytes: read or written for a pass over all layers, however many tokens go through.
        flops_a_weight: operations that generate one weight.
    """

    name: str
    held_bytes: float
    moved_bytes: float
    flops_a_weight: float

    def tokens_a_second(self, laptop: Laptop, num_tokens: int = 1) -> float:
        """Return tokens a second when so many go through the layers together; the slower of memory and arithmetic.

        Generating and moving are once a pass, the products once a token.
        """
        compute = CLAIMED_PARAMS * (2 * num_tokens + self.flops_a_weight) / laptop.flops
        return num_tokens / max(compute, self.moved_bytes / laptop.bandwidth)


def ways() -> Iterator[Way]:
    """Yield the ways of the table: stored at three widths, generated once, generated for every pass."""
    for bits in (16, 8, 4):
        size = CLAIMED_PARAMS * bits / 8
        yield Way(name=f"17.6B stored in {bits} bits", held_bytes=size, moved_bytes=size, flops_a_weight=0)
    small, all_weights = CLAIMED_SMALL * 2, CLAIMED_PARAMS * 2
    yield Way(
        name="generated once, kept in 16 bits",
        held_bytes=small + all_weights,
        moved_bytes=all_weights,
        flops_a_weight=0,
    )
    costs = {
        "for nothing": 0,
        "as Kronecker product, 1 operation a weight": 1,
        "as 4 functions of depth, 8 operations": 8,
        "as product of rank 64, 128 operations": 128,
    }
    for how, flops in costs.items():
        yield Way(
            name=f"generated for every pass {how}", held_bytes=small, moved_bytes=small, flops_a_weight=float(flops)
        )
    yield Way(
        name="the same for nothing, but written to memory and read back",
        held_bytes=small,
        moved_bytes=small + 2 * all_weights,
        flops_a_weight=0,
    )


def laptop_table(laptop: Laptop) -> Table:
    """Lay out memory and speed of each way."""
    rows = [
        (
            way.name,
            f"{way.held_bytes / 1e9:.1f}",
            "yes" if way.held_bytes <= laptop.memory_bytes else "no",
            f"{CLAIMED_PARAMS * (2 + way.flops_a_weight) / 1e9:,.0f}",
            f"{way.tokens_a_second(laptop):.2g}",
            f"{way.tokens_a_second(laptop, 256):.2g}",
        )
        for way in ways()
    ]
    title = (
        f"17.6B weights on a laptop of {laptop.memory_bytes / 1e9:.0f} GB, {laptop.flops:.0e} operations/s and "
        f"{laptop.bandwidth / 1e9:.0f} GB/s"
    )
    columns = ("weights", "held GB", "fits", "GFLOPs a token", "tokens/s, one by one", "tokens/s, 256 together")
    return Table(title=title, columns=columns, rows=rows, right=frozenset(range(1, 6)))


def sizes_table() -> Table:
    """Lay out the configurations that have 17.6B parameters, and what 417M leaves their blocks."""
    rows = [_size_row(each) for each in sorted(matching(LOW, HIGH), key=lambda each: each.params)]
    columns = (
        *("MLP", "KV heads", "vocabulary", "head", "parameters", "tables", "of 417M", "left for blocks"),
        "blocks, fewer",
    )
    title = f"4096 wide, 64 layers, SwiGLU: {len(rows)} usual configurations of 17.55B to 17.65B"
    return Table(title=title, columns=columns, rows=rows, right=frozenset({0, 1, 2, 4, 5, 6, 7, 8}))


def _size_row(each: Configuration) -> tuple[str, ...]:
    left = CLAIMED_SMALL - each.table_params
    return (
        f"{each.mlp_width:,}",
        str(each.kv_width // HEAD_WIDTH),
        f"{each.vocabulary:,}",
        "tied" if each.is_tied else "own",
        f"{each.params / 1e9:.3f}B",
        f"{each.table_params / 1e6:,.1f}M",
        f"{each.table_params / CLAIMED_SMALL:.1%}",
        f"{left / 1e6:,.1f}M" if left > 0 else "none",
        f"{each.block_params / left:,.0f}x" if left > 0 else "-",
    )


def main() -> int:
    """Print both tables; returns the exit code."""
    print(sizes_table().to_markdown())
    print(laptop_table(Laptop()).to_markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
