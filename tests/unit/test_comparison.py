"""What runs say of methods: settled or not, fronts, a winner only beyond chance; what cannot share a table."""

from __future__ import annotations

import pytest
from made_runs import group, make_run

from harness.comparison import Group, compare, match_problem, spent
from harness.errors import UsageError
from harness.records.schema import Record


def test_a_winner_beyond_chance() -> None:
    found = compare([group("worse", [2.1, 2.11, 2.12]), group("better", [2.0, 2.011, 2.019])])
    assert [each.name for each in found.groups] == ["better", "worse"]
    assert found.groups[0].mean_bpb == pytest.approx(2.01)
    assert found.groups[1].sd_bpb == pytest.approx(0.01)
    (relation,) = found.relations
    assert relation.difference == pytest.approx(-0.1)
    assert relation.over_seeds is not None and relation.over_seeds.high < 0 and relation.over_text.high < 0
    assert relation.visible_bpb is not None and 0 < relation.visible_bpb < 0.1
    assert relation.verdict == "better is better"
    assert found.winner == "better"
    assert set(found.matched) >= {"steps", "tokens", "flops", "artifact_bytes", "stored"}


def test_no_winner_where_seeds_disagree() -> None:
    found = compare([group("a", [2.0, 2.1, 2.2]), group("b", [2.1, 2.15, 2.11])])
    assert found.relations[0].verdict == "not settled"
    assert found.winner is None


def test_no_winner_of_one_seed_however_large_the_difference() -> None:
    found = compare([group("a", [1.0]), group("b", [9.0])])
    assert found.relations[0].verdict == "not settled: one seed"
    assert found.relations[0].visible_bpb is None
    assert found.winner is None


def test_no_winner_where_the_text_does_not_show_it() -> None:
    found = compare([group("a", [2.0, 2.0, 2.0]), group("b", [2.0001, 2.0001, 2.0001], text=1)])
    (relation,) = found.relations
    assert relation.over_seeds is not None and relation.over_seeds.standard_error < 1e-9  # the seeds agree
    assert relation.over_text.low < 0 < relation.over_text.high
    assert relation.better is None


def test_a_lucky_seed_of_its_own_makes_no_winner() -> None:
    lucky = Group(
        name="lucky", runs={0: make_run(0, 2.1), 1: make_run(1, 2.11), 2: make_run(2, 2.12), 9: make_run(9, 1)}
    )
    found = compare([lucky, group("better", [2.0, 2.011, 2.019])])
    assert found.groups[0].name == "lucky"
    assert found.relations[0].better == "better"
    assert found.winner is None
    assert any("unlike seeds" in problem for problem in found.problems)


def test_a_contender_that_was_never_met_is_not_beaten() -> None:
    other = Group(name="other", runs={seed: make_run(seed, 2.3) for seed in (3, 4, 5)})
    found = compare([group("a", [2.0, 2.01, 2.02]), group("b", [2.2, 2.21, 2.23]), other])
    assert [each.better for each in found.relations] == ["a"]
    assert found.winner is None


def test_nothing_matched_has_no_winner() -> None:
    fields = [make_run(seed, 2.0 + 0.01 * seed).record.to_json() for seed in range(3)]
    large = {}
    for seed, each in enumerate(fields):
        each["budget"]["spent"] = {key: 3 * value for key, value in each["budget"]["spent"].items()}
        each["artifact"]["artifact_bytes"] *= 2
        each["params"]["stored"] *= 2
        large[seed] = make_run(seed, 2.0 + 0.01 * seed)._replace(record=Record.model_validate(each))
    found = compare([Group(name="large", runs=large), group("small", [2.2, 2.22, 2.21])])
    assert found.relations[0].better == "large"
    assert (found.matched, found.winner) == ((), None)


def test_p_values_are_corrected_for_the_number_of_pairs() -> None:
    two = compare([group("a", [2.0, 2.01, 2.03]), group("b", [2.05, 2.08, 2.07])])
    three = compare([*two.groups, group("c", [2.4, 2.5, 2.7])])
    p_two = two.relations[0].p_holm
    p_three = next(each.p_holm for each in three.relations if (each.first, each.second) == ("a", "b"))
    assert p_two is not None and p_three is not None
    assert p_three > p_two


def test_only_seeds_that_both_have_are_paired() -> None:
    found = compare([group("a", [2.0, 2.1, 9.0]), group("b", [2.2, 2.3])])
    assert found.relations[0].num_seeds == 2
    assert abs(found.relations[0].difference) == pytest.approx(0.2)


def test_fronts() -> None:
    small, good, bad = group("small", [2.2], 50), group("good", [2.0], 90), group("bad", [2.1], 95)
    found = compare([small, good, bad])
    assert set(found.fronts["artifact_bytes"]) == {"small", "good"}
    assert found.fronts["stored"] == ("good",)  # all have the same number of parameters


def test_unlike_eval_modes_share_no_table() -> None:
    other = make_run(0, 2.0)
    metrics = other.record.metrics.model_dump()
    metrics["test"]["eval_mode"]["stride"] = 8
    wrong = Group(name="b", runs={0: make_run(0, 2.0, metrics=metrics)})
    with pytest.raises(UsageError, match="cannot share a table"):
        compare([group("a", [2.0]), wrong])


def test_what_ancestors_spent_counts() -> None:
    own = make_run(0, 2.0).record.budget.spent.model_dump()
    lineage = [{"name": "parent", "artifact_sha256": "0" * 64, "spent": {**own, "steps": 7}}]
    record = make_run(0, 2.0, lineage=lineage).record
    assert spent("steps")(record) == record.budget.spent.steps + 7


@pytest.mark.parametrize(
    ("amount", "seconds", "step_seconds", "said"),
    [
        (100.0, 100.2, 0.2, None),
        (100.0, 99.6, 0.2, None),
        (100.0, 103.0, 0.2, "103.0 s of 100.0 s were spent"),
        (100.0, 99.0, 0.6, "a step takes 0.6 s, more than 0.5% of the budget"),
    ],
)
def test_a_time_budget_is_matched_within_half_a_percent(
    amount: float, seconds: float, step_seconds: float, said: str | None
) -> None:
    fields = make_run(0, 2.0).record.to_json()
    fields["budget"] |= {"kind": "seconds", "amount": amount, "text": f"{amount}s", "stopped_by": "seconds"}
    fields["budget"]["spent"]["seconds"] = seconds
    fields["progress"]["median_step_seconds"] = step_seconds
    problem = match_problem(Record.model_validate(fields))
    assert problem is None if said is None else said in problem


@pytest.mark.parametrize(
    ("target", "said"), [(0, None), (100, None), (102, None), (103, "2.9% below 103"), (99, "-1.0%")]
)
def test_a_size_is_matched_within_two_per_cent_below(target: int, said: str | None) -> None:
    fields = make_run(0, 2.0, num_bytes=100).record.to_json()
    fields["settings"]["export"] = {"target_bytes": target}
    problem = match_problem(Record.model_validate(fields))
    assert problem is None if said is None else said in problem
