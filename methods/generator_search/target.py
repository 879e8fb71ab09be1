"""How many numbers an expression may have for a network to have so many times fewer parameters than the dense one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from harness.errors import UsageError
from harness.method import Task
from methods.generator_search.counting import count_params
from methods.generator_search.grammar import Expression
from methods.generator_search.method import GeneratorSearch, GeneratorSearchSettings

Part = Literal["blocks", "model"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A size to reach.

    Attributes:
        settings: of the network, whatever their expression.
        ratio: times fewer parameters than the dense network of the same shape.
        part: whether of the matrices of the blocks, or of the whole network.
        dense_params: numbers of that part in the dense network.
        kept_params: numbers of that part that no expression generates: none of the blocks' matrices; of the network
            its embedding, norms, gains and scales.
    """

    settings: GeneratorSearchSettings
    ratio: float
    part: Part
    dense_params: int
    kept_params: int

    @property
    def expression_params(self) -> float:
        """Numbers that the expressions of all roles may have together."""
        return self.dense_params / self.ratio - self.kept_params

    def count(self, expression: Expression) -> int:
        """Count the numbers of an expression over all roles.

        Raises:
            UsageError: it cannot have the shape of a role.
        """
        shapes = Counter(self.settings.shape(role) for role in self.settings.linear_shapes)
        return sum(number * count_params(expression, shape) for shape, number in shapes.items())

    def factor(self, expression: Expression) -> float:
        """Return how many times fewer parameters the part has with an expression."""
        return self.dense_params / (self.count(expression) + self.kept_params)


def find_target(settings: GeneratorSearchSettings, task: Task, ratio: float, part: Part) -> Target:
    """Work out a target.

    Raises:
        UsageError: the ratio is none, or leaves the expression nothing.
    """
    if not 1 <= ratio < 1e6:
        raise UsageError(f"--ratio {ratio:g}: give a number from 1 on")
    from harness.plan import build_on_meta

    counts = GeneratorSearch(settings, task).count_params(build_on_meta(GeneratorSearch(settings, task))).parts
    blocks = settings.num_blocks * sum(inside * outside for inside, outside in settings.linear_shapes.values())
    others = sum(counts.values()) - counts["generators"]
    kept = others if part == "model" else 0
    target = Target(settings=settings, ratio=ratio, part=part, dense_params=blocks + kept, kept_params=kept)
    if target.expression_params < len(settings.linear_shapes):
        raise UsageError(
            f"--ratio {ratio:g}: the dense network has {target.dense_params:,} parameters, and what no expression "
            f"generates (embedding, gains, scales) has {kept:,}, so that {target.expression_params:,.0f} are left; "
            "ask for a smaller --ratio, --of blocks, or a wider network"
        )
    return target
