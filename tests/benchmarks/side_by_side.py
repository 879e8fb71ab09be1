"""Two ways of doing the same, timed in turn in one process on one thread, so that both see the machine equally busy.

Seconds are those in which this process computes: what else the machine does is not under test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from time import process_time


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Seconds of both, round by round.

    Attributes:
        first: of the one whose seconds stand above the line.
        second: of the other.
    """

    first: Sequence[float]
    second: Sequence[float]

    @property
    def ratio(self) -> float:
        """Median, over the rounds, of the seconds of the first over those of the second."""
        return median(self._ratios)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of the ratios of single rounds."""
        low, _, high = quantiles(self._ratios, n=4)
        return low, high

    @property
    def _ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.first, self.second, strict=True)]

    def cells(self) -> tuple[str, ...]:
        """Return milliseconds of both, the ratio, its quartiles and the number of rounds, as a table shows them."""
        low, high = self.quartiles
        milliseconds = (f"{1e3 * median(side):.1f}" for side in (self.first, self.second))
        return *milliseconds, f"{self.ratio:.3f}", f"{low:.3f} to {high:.3f}", str(len(self.first))


def alternate(first: Callable[[], object], second: Callable[[], object], num_rounds: int) -> Pairs:
    """Call both in turn, once more than is counted."""
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(num_rounds + 1):
        for call, spent in zip((first, second), seconds, strict=True):
            started = process_time()
            call()
            spent.append(process_time() - started)
    return Pairs(first=seconds[0][1:], second=seconds[1][1:])
