"""Evolution with successive halving: many candidates for few steps, the best of them for more, under a fixed total.

The first rung is filled by evolution, generation after generation; each later one trains the best of the rung before
for `ETA` times as many steps, from the start. All candidates of a rung see the same tokens. What is proposed depends
on the seed and on results alone, never on which of several workers was done first.

Source: Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization"
(successive halving); Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search" (tournaments).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import UsageError
from methods.generator_search.breeding import Breeder, known_expressions
from methods.generator_search.grammar import Expression
from methods.generator_search.trial import Result, Trial

ETA = 3
# Candidates that are proposed together, before any of them is known.
GENERATION = 6
_TOURNAMENT = 3
# Of proposals that have no sizes near the target, or were tried, for one that is new.
_MAX_PROPOSALS = 400

RunTrials = Callable[[Sequence[Trial]], Mapping[Trial, Result]]
Resize = Callable[[Expression], Expression | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """How many candidates each rung has, and how many steps it gives them.

    Attributes:
        first_steps: steps of a candidate on the first rung.
        num_candidates: of each rung.
    """

    first_steps: int
    num_candidates: tuple[int, ...]

    @classmethod
    def within(cls, max_steps: int, first_steps: int, num_rungs: int) -> Ladder:
        """Return the widest ladder whose steps are not above a total.

        Raises:
            UsageError: not even one candidate a rung fits.
        """
        if min(first_steps, num_rungs) < 1:
            raise UsageError("--rung-steps and --rungs: give at least 1")
        one_each = sum(first_steps * ETA**rung for rung in range(num_rungs))
        if one_each > max_steps:
            raise UsageError(
                f"--budget holds {max_steps:,} steps, and one candidate takes {one_each:,} on {num_rungs} rungs; "
                "give more, or fewer --rungs or --rung-steps"
            )
        width = max_steps // first_steps
        while (ladder := cls(first_steps=first_steps, num_candidates=_narrowing(width, num_rungs))).total > max_steps:
            width -= 1
        return ladder

    def steps(self, rung: int) -> int:
        """Steps of a candidate of a rung."""
        return self.first_steps * int(ETA**rung)

    @property
    def total(self) -> int:
        """Steps of all candidates together."""
        return sum(number * self.steps(rung) for rung, number in enumerate(self.num_candidates))


def _narrowing(width: int, num_rungs: int) -> tuple[int, ...]:
    return tuple(max(1, width // ETA**rung) for rung in range(num_rungs))


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A candidate with what its last rung says of it.

    Attributes:
        expression: its text.
        rung: the last one that it was trained on.
        tune_bpb: bits per byte there; None where training failed.
    """

    expression: str
    rung: int
    tune_bpb: float | None

    @property
    def order(self) -> tuple[float, float, str]:
        """Key by which candidates are ranked: those of later rungs first, then by score."""
        return -self.rung, float("inf") if self.tune_bpb is None else self.tune_bpb, self.expression


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a search found.

    Attributes:
        ranking: every candidate that was trained, the best first.
        num_unsized: forms that were proposed and could not be brought to the target.
        num_failed: trainings that ended without a score.
    """

    ranking: tuple[Standing, ...]
    num_unsized: int
    num_failed: int


class Search:
    """One search.

    Args:
        ladder: how wide it is.
        resize: brings a form to the target, or says that it cannot.
        run: trains candidates, several at a time.
        seed: of the proposals.
    """

    def __init__(self, ladder: Ladder, *, resize: Resize, run: RunTrials, seed: int) -> None:
        self._ladder, self._resize, self._run = ladder, resize, run
        self._rng = np.random.default_rng(seed)
        self._breeder = Breeder(self._rng)
        self._forms: dict[str, Expression] = {}
        self._unsized: set[str] = set()
        self._standings: dict[str, Standing] = {}
        self._num_failed = 0

    def run(self) -> Outcome:
        """Search to the end."""
        self._evolve(self._ladder.num_candidates[0])
        for rung, number in list(enumerate(self._ladder.num_candidates))[1:]:
            scored = [each for each in self._ranking() if each.rung == rung - 1 and each.tune_bpb is not None]
            self._train([each.expression for each in scored[:number]], rung)
        return Outcome(ranking=tuple(self._ranking()), num_unsized=len(self._unsized), num_failed=self._num_failed)

    def _ranking(self) -> list[Standing]:
        return sorted(self._standings.values(), key=lambda each: each.order)

    def _evolve(self, width: int) -> None:
        """Fill the first rung: known forms, as many random ones, then children of the best so far."""
        first = [text for form in known_expressions() if (text := self._admit(form))]
        while len(first) < min(width, max(len(first), width // 2)):
            first.append(self._propose(self._draw))
        self._train(first[:width], 0)
        while len(self._standings) < width:
            number = min(GENERATION, width - len(self._standings))
            self._train([self._propose(self._breed) for _ in range(number)], 0)

    def _train(self, expressions: Sequence[str], rung: int) -> None:
        trials = [Trial(expression=text, num_steps=self._ladder.steps(rung)) for text in expressions]
        results = self._run(trials)
        for trial in trials:
            tune_bpb = results[trial].tune_bpb
            self._num_failed += tune_bpb is None
            self._standings[trial.expression] = Standing(expression=trial.expression, rung=rung, tune_bpb=tune_bpb)

    def _propose(self, make: Callable[[], Expression]) -> str:
        for _ in range(_MAX_PROPOSALS):
            if text := self._admit(make()):
                return text
        raise UsageError(
            f"{_MAX_PROPOSALS} forms in a row could not be brought within 2% of the target or were tried before; "
            "choose another --ratio, a larger preset or a smaller --budget"
        )

    def _admit(self, form: Expression) -> str:
        """Return the text of a form at its sizes, empty where it has none near the target or was proposed before."""
        if (sized := self._resize(form)) is None:
            self._unsized.add(form.text)
            return ""
        if sized.text in self._forms:
            return ""
        self._forms[sized.text] = sized
        return sized.text

    def _draw(self) -> Expression:
        return self._breeder.random(int(self._rng.integers(2, 7)))

    def _breed(self) -> Expression:
        return self._breeder.child_of(self._parent(), self._parent())

    def _parent(self) -> Expression:
        """Return the best of a few that are drawn from those with a score."""
        scored = [each for each in self._ranking() if each.tune_bpb is not None]
        if not scored:
            return self._draw()
        places = self._rng.integers(len(scored), size=_TOURNAMENT)
        return self._forms[scored[int(min(places))].expression]
