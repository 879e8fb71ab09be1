"""How a difference goes with size: the slope by hand, its two errors, what is said and what is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from made_runs import group

from harness.comparison import Group, compare
from harness.errors import UsageError
from harness.trend import Rung, Trend, find_trends

SIZES = {"tiny": 1_000_000, "small": 2_000_000, "medium": 8_000_000}


def sized(found: Group, num_params: int) -> Group:
    runs = {
        seed: run._replace(
            record=run.record.model_copy(
                update={"params": run.record.params and run.record.params.model_copy(update={"stored": num_params})}
            )
        )
        for seed, run in found.runs.items()
    }
    return replace(found, runs=runs)


def ladder(gaps: Sequence[float], noise: Sequence[float] = (0.0, 0.0001, -0.0001), seeds: int = 3) -> list[Rung]:
    """A and B at three sizes: B scores 2, A that and the gap; seeds differ by a little in both."""
    rungs = []
    for at, ((size, number), gap) in enumerate(zip(SIZES.items(), gaps, strict=True)):
        a = group("a", [2 + gap + each for each in np.roll(noise, at)[:seeds]], text=1)
        b = group("b", [2.0] * seeds, text=2)
        rungs.append(Rung(size=size, comparison=compare([sized(a, number), sized(b, number)])))
    return rungs


def only(trends: Sequence[Trend]) -> Trend:
    (found,) = trends
    return found


def test_the_slope_is_that_of_least_squares_over_doublings() -> None:
    gaps = [0.30, 0.26, 0.10]
    found = only(find_trends(ladder(gaps)))
    expected = np.polyfit(np.log2(list(SIZES.values())), gaps, 1)[0]
    sign = 1 if found.first == "a" else -1
    assert found.slope == pytest.approx(sign * expected, abs=1e-12)
    assert found.differences == pytest.approx([sign * gap for gap in gaps])
    assert found.sizes == ("tiny", "small", "medium")
    assert found.num_params == pytest.approx(list(SIZES.values()))
    assert found.num_seeds == 3


@pytest.mark.parametrize(
    ("gaps", "said"),
    [
        ([0.30, 0.26, 0.10], "the gap shrinks"),
        ([0.10, 0.20, 0.40], "the gap grows"),
        ([-0.10, -0.20, -0.40], "the gap grows"),
        ([-0.20, -0.10, 0.20], "the order turns round"),
        ([0.0, 0.10, 0.20], "the gap grows"),
        ([0.0, -0.10, -0.20], "the gap grows"),
        ([0.20, 0.10, 0.0], "the gap shrinks"),
        ([0.2, 0.2, 0.2], "not settled"),
    ],
)
def test_what_is_said(gaps: Sequence[float], said: str) -> None:
    assert only(find_trends(ladder(gaps))).verdict == said


def test_seeds_that_disagree_settle_nothing() -> None:
    rungs = ladder([0.1, 0.2, 0.4])
    # the largest size's seeds stray by more than the gap grows
    strays = sized(group("a", [2.9, 2.1, 1.9], text=1), SIZES["medium"])
    rungs[-1] = Rung(size="medium", comparison=compare([strays, sized(group("b", [2.0] * 3, text=2), SIZES["medium"])]))
    found = only(find_trends(rungs))
    assert found.verdict == "not settled"
    assert found.low is not None and found.high is not None and found.low < 0 < found.high


def test_one_seed_settles_nothing() -> None:
    found = only(find_trends(ladder([0.1, 0.2, 0.4], seeds=1)))
    assert found.verdict == "not settled: one seed"
    assert found.over_seeds is None and found.p_holm is None and found.over_text.low < found.over_text.high


def test_a_slope_between_two_ties_is_no_gap() -> None:
    trend = only(find_trends(ladder([0.1, 0.2, 0.4])))
    unsettled = replace(trend, better_at_ends=(None, None))
    assert unsettled.verdict == f"A - B {'rises' if trend.slope > 0 else 'falls'}"


def test_unlike_eval_modes_make_no_ladder() -> None:
    rungs = ladder([0.1, 0.2, 0.4])
    runs = rungs[0].comparison.groups[0].runs
    for seed, run in runs.items():
        runs[seed] = run._replace(blocks=replace(run.blocks, context=64))  # type: ignore[index]
    with pytest.raises(UsageError, match="unlike eval modes"):
        find_trends(rungs)


def test_sizes_are_ordered_by_parameters_and_need_two() -> None:
    rungs = ladder([0.1, 0.2, 0.4])
    assert only(find_trends(rungs[::-1])).sizes == ("tiny", "small", "medium")
    assert find_trends(rungs[:1]) == []
    assert find_trends([rungs[0], rungs[0]]) == []  # one size twice is no line


def test_a_size_that_one_of_the_two_lacks_is_left_out() -> None:
    rungs = ladder([0.1, 0.2, 0.4])
    rungs[1] = Rung(size="small", comparison=compare([sized(group("b", [2.0] * 3), SIZES["small"])]))
    assert only(find_trends(rungs)).sizes == ("tiny", "medium")


def test_other_text_is_refused() -> None:
    rungs = ladder([0.1, 0.2, 0.4])
    runs = rungs[0].comparison.groups[0].runs
    for seed, run in runs.items():
        blocks = run.blocks
        changed = replace(blocks, block_bytes=blocks.block_bytes + 1)
        runs[seed] = run._replace(blocks=changed)  # type: ignore[index]
    with pytest.raises(UsageError, match="make no ladder"):
        find_trends(rungs)
