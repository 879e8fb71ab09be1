"""Candidates of the search for expressions: their sizes, how they are made, the ladder of rungs, the ranking."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_expressions import expressions

from harness.errors import UsageError
from methods.generator_search.breeding import MAX_SEARCHED_NODES, Breeder, known_expressions, places, put
from methods.generator_search.counting import Shape, count_params
from methods.generator_search.grammar import Expression, OverDepth, Share
from methods.generator_search.halving import ETA, Ladder, Outcome, Search
from methods.generator_search.parsing import parse
from methods.generator_search.resizing import TOLERANCE, fit, resize, simplify
from methods.generator_search.trial import Result, Trial

LAYERS = 4
SHAPES = (Shape(rows=64, columns=64, layers=LAYERS), Shape(rows=128, columns=64, layers=LAYERS))


def count(expression: Expression) -> int:
    return sum(count_params(expression, shape) for shape in SHAPES)


def to_size(form: Expression, target: float = 3000) -> Expression | None:
    return fit(form, target, count, LAYERS)


def kinds(expression: Expression) -> list[str]:
    """Return what an expression is made of, but for nodes over depth, which are left out where they have no effect."""
    return [node.head for node in expression.walk() if not isinstance(node, OverDepth | Share)]


@settings(max_examples=20)
@given(expressions(), st.floats(500, 20_000))
def test_what_is_resized_is_within_two_per_cent_and_keeps_its_form(expression: Expression, target: float) -> None:
    sized = resize(expression, target, count, LAYERS)
    if sized is not None:
        assert count(sized) == pytest.approx(target, rel=TOLERANCE)
        assert resize(expression, target, count, LAYERS) == sized
        assert kinds(sized) == kinds(expression)


@pytest.mark.parametrize("form", known_expressions(), ids=str)
def test_known_forms_reach_a_common_size(form: Expression) -> None:
    sized = to_size(form, 6000)
    assert sized is not None
    assert count(sized) == pytest.approx(6000, rel=TOLERANCE)


def test_a_form_of_coarse_sizes_gets_a_small_term() -> None:
    # a rank is 4 * (128 + 192) = 1,280 numbers: 4 or 5 of them are 5,120 or 6,400
    form = parse("share(1, low_rank(2))")
    assert resize(form, 6000, count, LAYERS) is None
    sized = to_size(form, 6000)
    assert sized is not None
    assert kinds(sized)[:2] == ["+", "low_rank"]
    assert count(sized) == pytest.approx(6000, rel=TOLERANCE)


def test_a_form_without_such_sizes_is_none() -> None:
    assert to_size(parse("free")) is None
    assert resize(parse("random(1)"), 3000, count, LAYERS) is None


def test_what_has_no_effect_is_left_out() -> None:
    assert simplify(parse("legendre(1, free) + share(4, low_rank(2))"), 4).text == "free + low_rank(2)"
    assert simplify(parse("share(3, cosine_of)".replace("cosine_of", "free")), 4).text == "share(3, free)"


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_children_are_of_the_grammar(seed: int) -> None:
    breeder = Breeder(np.random.default_rng(seed))
    one, other = breeder.random(6), breeder.random(6)
    for _ in range(5):
        child = breeder.child_of(one, other)
        assert parse(child.text) == child
        assert sum(1 for _ in child.walk()) <= max(MAX_SEARCHED_NODES, sum(1 for _ in one.walk()))
        one, other = child, one


@given(expressions())
def test_every_place_can_hold_what_is_there(expression: Expression) -> None:
    found = list(places(expression))
    assert [place.node for place in found] == list(expression.walk())
    assert all(put(expression, place.path, place.node) == expression for place in found)
    assert all(place.takes_stacks or not place.node.varies for place in found)


def test_the_ladder_is_as_wide_as_the_budget() -> None:
    # 9 * 10 + 3 * 30 + 1 * 90 = 270; a tenth candidate needs 10 more
    ladder = Ladder.within(279, 10, 3)
    assert ladder.num_candidates == (9, 3, 1)
    assert ladder.total == 270
    assert Ladder.within(280, 10, 3).num_candidates == (10, 3, 1)


@given(st.integers(1, 5000), st.integers(1, 50), st.integers(1, 4))
def test_no_ladder_is_above_its_budget(budget: int, first: int, num_rungs: int) -> None:
    least = sum(first * ETA**rung for rung in range(num_rungs))
    if budget < least:
        with pytest.raises(UsageError, match="one candidate takes"):
            Ladder.within(budget, first, num_rungs)
    else:
        ladder = Ladder.within(budget, first, num_rungs)
        assert ladder.total <= budget
        assert min(ladder.num_candidates) >= 1


class FakeRuns:
    """Scores by a hash of the expression, better with more steps; some trainings fail."""

    def __init__(self) -> None:
        self.asked: list[Trial] = []

    def __call__(self, trials: Sequence[Trial]) -> Mapping[Trial, Result]:
        self.asked += trials
        return {trial: Result(tune_bpb=self.score(trial), seconds=0.0) for trial in reversed(trials)}

    @staticmethod
    def score(trial: Trial) -> float | None:
        value = zlib.crc32(trial.expression.encode()) % 1000
        return None if value % 10 == 0 else 2 + value / 1000 + 1 / trial.num_steps


def search(seed: int = 0, ladder: Ladder | None = None) -> tuple[Outcome, FakeRuns]:
    runs = FakeRuns()
    ladder = ladder or Ladder.within(1000, 10, 3)
    return Search(ladder, resize=lambda form: to_size(form, 6000), run=runs, seed=seed).run(), runs


def test_a_search_is_decided_by_its_seed() -> None:
    first, again, other = search(0)[0], search(0)[0], search(1)[0]
    assert first == again
    assert first.ranking != other.ranking


def test_each_rung_trains_the_best_of_the_one_before() -> None:
    ladder = Ladder.within(1000, 10, 3)
    outcome, runs = search(ladder=ladder)
    by_steps = {steps: [t for t in runs.asked if t.num_steps == steps] for steps in (10, 30, 90)}
    assert tuple(map(len, by_steps.values())) == ladder.num_candidates
    for lower, upper in ((10, 30), (30, 90)):
        scores = {t.expression: runs.score(t) for t in by_steps[lower] if runs.score(t) is not None}
        best = sorted(scores, key=lambda text: (scores[text], text))[: len(by_steps[upper])]
        assert [t.expression for t in by_steps[upper]] == best
    # ranked by the last rung, then by score; no expression twice, failures last
    rungs = [standing.rung for standing in outcome.ranking]
    assert rungs == sorted(rungs, reverse=True)
    assert len({standing.expression for standing in outcome.ranking}) == len(outcome.ranking)
    assert outcome.num_failed == sum(runs.score(t) is None for t in runs.asked)
    assert all(count(parse(t.expression)) == pytest.approx(6000, rel=TOLERANCE) for t in runs.asked)


def test_evolution_finds_better_than_it_began_with() -> None:
    """A landscape with a slope: the fewer parts, the better, down to a kron of free sides."""

    def run(trials: Sequence[Trial]) -> Mapping[Trial, Result]:
        return {t: Result(tune_bpb=float(t.expression.count("cos_")) * -1 + 9, seconds=0.0) for t in trials}

    ladder = Ladder(first_steps=1, num_candidates=(60,))
    found = Search(ladder, resize=lambda form: to_size(form, 6000), run=run, seed=0).run()
    known = max(text.text.count("cos_") for text in known_expressions())
    assert found.ranking[0].expression.count("cos_") > known
