"""Summaries in every nesting: which number belongs to which seed, with its line and its print."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import RecordError
from harness.records.submission import Reading
from harness.records.summary_json import Summary, read_summary


def summary(value: Any = None, *, text: str = "") -> Summary:
    return read_summary((text or json.dumps(value, indent=1)).encode(), "submission.json")


def claims(value: Any = None, *, text: str = "") -> dict[str, Reading]:
    return {claim.label: claim for claim in summary(value, text=text).claims}


def seeds(value: Any) -> list[str]:
    return [seed.text for seed in summary(value).seeds]


SCORES = {"7": 1.25, "42": 1.27}
NESTINGS = {
    "results by seed": {"seed_results": {s: {"val_bpb": v} for s, v in SCORES.items()}},
    "seeds by seed": {"seeds": {s: {"val_bpb": v} for s, v in SCORES.items()}},
    "named keys": {"seed_results": {f"seed_{s}": {"val_bpb": v} for s, v in SCORES.items()}},
    "scalars by seed": {"val_bpb": 1.26, "seed_results": dict(SCORES)},
    "scores by seed": {"seed_scores": dict(SCORES)},
    "list of objects": {"seed_results": [{"seed": int(s), "val_bpb": v} for s, v in SCORES.items()]},
    "runs": {"runs": [{"val_bpb": v, "seed": int(s)} for s, v in SCORES.items()]},
    "aligned list": {"seeds": [7, 42], "seed_scores": list(SCORES.values())},
    "aligned list, keyed": {"seeds": [7, 42], "val_bpb": 1.26, "seed_results": {"val_bpb": list(SCORES.values())}},
    "nested deeper": {"results": {"per_seed": {s: {"metrics": {"val_bpb": v}} for s, v in SCORES.items()}}},
    "strings": {"seed_results": {s: {"val_bpb": str(v)} for s, v in SCORES.items()}},
}


@pytest.mark.parametrize("name", NESTINGS)
def test_scores_of_seeds_are_found_in_every_nesting(name: str) -> None:
    found = summary(NESTINGS[name])
    own = {c.seed: c.value for c in found.claims if c.seed is not None and c.quantity == "bpb"}
    assert own == SCORES
    assert [seed.text for seed in found.seeds] == list(SCORES)


def test_seeds_without_scores() -> None:
    assert seeds({"seeds": [1337, 42, 0]}) == ["1337", "42", "0"]
    assert seeds({"seeds": ["1337", "seed_42"]}) == ["1337", "42"]
    assert seeds({"seed": 1337}) == ["1337"]
    assert seeds({"seed": "1337", "n_seeds": 3}) in ([], ["1337"])
    assert seeds({"seeds": [42, 42]}) == ["42", "42"]
    assert seeds({"seeds": [42], "seed_results": {"42": {"val_bpb": 1.2}}}) == ["42"]
    assert seeds({"seeds": [True, None, 1.5]}) == []


def test_a_year_or_a_count_is_no_seed() -> None:
    assert seeds({"date": "2026-04-01", "2026": 3, "hardware": {"gpus": 8}}) == []


def test_numbers_as_people_write_them() -> None:
    found = claims({"bytes_total": "15.15 MB", "bytes_code": "47,642", "val_bpb": "~1.2", "p_value": "<0.001"})
    assert (found["bytes_total"].value, found["bytes_total"].last_place) == (15_150_000, 10_000)
    assert found["bytes_total"].other_value == pytest.approx(15.15 * 2**20)
    assert (found["bytes_code"].value, found["bytes_code"].text) == (47642, "47,642")
    assert found["val_bpb"].value == 1.2
    assert (found["p_value"].bound, found["p_value"].value) == ("<", 0.001)


def test_units_come_from_the_key() -> None:
    found = claims({"train_time_ms": 600040, "train_time_s": 600.04, "train_minutes": 10, "artifact_size_mb": 15.15,
                    "eval_time_seconds": 83, "step_avg_ms": 48.7})  # fmt: skip
    assert found["train_time_ms"].value == pytest.approx(600.04)
    assert found["train_time_s"].value == 600.04
    assert found["train_minutes"].value == 600
    assert found["artifact_size_mb"].value == pytest.approx(15_150_000)
    assert (found["eval_time_seconds"].value, found["step_avg_ms"].value) == (83, 48.7)


def test_precision_is_that_of_the_print() -> None:
    found = claims(text='{"val_bpb": 1.0890, "val_loss": 2.5000000, "bytes_total": 15999533, "val_bpb_std": 1.6e-4}')
    assert (found["val_bpb"].text, found["val_bpb"].last_place) == ("1.0890", pytest.approx(1e-4))
    assert found["val_loss"].last_place == pytest.approx(1e-7)
    assert found["bytes_total"].last_place == 0
    assert found["val_bpb_std"].last_place == pytest.approx(1e-5)


def test_lines_are_those_of_the_keys() -> None:
    text = '{\n"name": "x",\n"val_bpb":\n 1.1,\n"seed_results": {\n "42": {"val_bpb": 1.1,\n  "steps": 5}}}'
    found = claims(text=text)
    assert (found["val_bpb"].line, found["seed_results.42.val_bpb"].line, found["seed_results.42.steps"].line) == (
        3,
        6,
        7,
    )
    (seed,) = summary(text=text).seeds
    assert (seed.line, seed.path) == (6, "submission.json")


@pytest.mark.parametrize(
    "value",
    [
        {"base_val_bpb": 1.1147},
        {"comparison_baseline_bpb": 1.1147},
        {"baseline": {"val_bpb": 1.1147}},
        {"comparison": {"previous": {"val_bpb": 1.1147}}},
        {"compliance_rerun": {"seed_results": {"42": {"val_bpb": 1.1147}}}},
        {"seed_results_all_runs_disclosure": {"42": {"val_bpb": 1.1147}}},
        {"ablations": [{"val_bpb": 1.1147}]},
        {"hardware": {"wallclock_seconds": 600}},
    ],
)
def test_numbers_of_other_runs_are_references(value: Any) -> None:
    found = summary({"val_bpb": 1.08, **value})
    own = [claim.label for claim in found.claims if not claim.is_reference]
    assert own == ["val_bpb"]
    assert len(found.claims) == 2
    assert not found.seeds


def test_differences_are_no_references() -> None:
    found = claims({"delta_vs_base_bpb": -0.0021, "ttt_gain_mean_bpb": 0.002})
    assert {claim.statistic for claim in found.values()} == {"delta"}
    assert not any(claim.is_reference for claim in found.values())


def test_stages_and_statistics_come_from_the_keys_around() -> None:
    found = claims({"sliding": {"val_bpb": 1.08}, "pre_quant": {"val_bpb": 1.09}, "val_bpb_std": 0.001})
    assert found["sliding.val_bpb"].stage == "sliding"
    assert found["pre_quant.val_bpb"].stage == "pre_quant"
    assert found["val_bpb_std"].statistic == "std"


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ({"pre_quant_val_bpb": 1.1, "val_bpb": 1.08}, "val_bpb"),
        ({"val_bpb_std": 0.1, "mean_val_bpb": 1.08}, "mean_val_bpb"),
        ({"pre_quant_val_bpb": 1.1, "int6_zstd_val_bpb": 1.08}, "int6_zstd_val_bpb"),
        ({"base_val_bpb": 1.1, "best_10min_sp1024_val_bpb": 1.08}, "best_10min_sp1024_val_bpb"),
        ({"val_loss": 1.1}, None),
    ],
)
def test_the_headline_is_the_own_score(value: Any, label: str | None) -> None:
    chosen = [claim.label for claim in summary(value).claims if claim.is_headline]
    assert chosen == ([label] if label else [])


def test_title_track_and_words() -> None:
    found = summary({"name": "A record", "track": "10min_16mb", "notes": ["scores are from a re-evaluation"]})
    assert (found.title, found.track) == ("A record", "10min_16mb")
    assert "re-evaluation" in found.words


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999", "true", "null", '"soon"', '""', "[]", "{}"])
def test_what_is_no_number_is_no_claim(word: str) -> None:
    assert not summary(text=f'{{"val_bpb": {word}}}').claims


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (b"\xef\xbb\xbf{}", ""),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a": NaN}', "NaN"),
        (b'{"val_bpb": 1, "val_bpb": 2}', "twice"),
    ],
)
def test_lenient_reading_says_what_is_odd(raw: bytes, part: str) -> None:
    problems = [problem.message for problem in read_summary(raw, "s.json").problems]
    assert len(problems) == bool(part)
    assert all(part in problem for problem in problems)


@pytest.mark.parametrize("raw", [b"", b" \n", b"[1]", b"3", b"{", b'{"a": 1,}', b"[" * 100_000, b'{"a":' * 200 + b"1" + b"}" * 200,
                                 b'{"a": ' + b"1" * 5000 + b"}"])  # fmt: skip
def test_what_cannot_be_read_is_an_error_that_names_the_file(raw: bytes) -> None:
    with pytest.raises(RecordError, match=r"s\.json"):
        read_summary(raw, "s.json")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["val_bpb", "seeds", "seed", "42", "seed_7", "bytes_total", "runs", "0", "x.y", ""]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["val_bpb", "seeds", "seed_results", "7"]), JSON_VALUES, max_size=4))
def test_any_object_is_read(value: Any) -> None:
    for claim in summary(value).claims:
        assert claim.line is not None
        assert claim.value == claim.value
        assert claim.shown == claim.shown
