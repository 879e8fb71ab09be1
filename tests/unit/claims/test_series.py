"""How an effect goes with size: the slope by hand, sizes that disagree, what the words may say, and where it shows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import tomli_w
from record_factory import make_record

from harness.claims.estimates import Estimate, slope_over_size
from harness.claims.evidence import Evidence
from harness.claims.reproduction import Runs
from harness.claims.schema import read_claims
from harness.claims.sealing import hash_claim
from harness.claims.series import Series, SizeEffect
from harness.claims.verdict import Judgement, judge
from harness.claims.views import judgement_data
from harness.cli import run_command
from harness.errors import UsageError
from harness.stats import holm, holm_levels
from reports.ledger import Ledger
from reports.view_claims import claim_cards

SHORTER = 'difference("dense/{0}", "mpo/{0}", "seconds") < 0'
AS_FAST = 'ratio("dense/{0}", "mpo/{0}", "seconds") < 0.98'


def put_runs(folder: Path, method: str, preset: str, stored: int, seconds: Sequence[float]) -> None:
    for seed, value in enumerate(seconds):
        place = folder / f"{method}-{preset}-{seed}"
        make_record(place, seed)
        path = place / "record.json"
        record = json.loads(path.read_text())
        record["budget"]["spent"]["seconds"] = value
        record["method"]["name"] = method
        record["params"] = {"stored": stored, "effective": stored, "active": stored, "parts": {"all": stored}}
        path.write_text(json.dumps({**record, "preset": preset, "lineage": []}))


def put_sizes(folder: Path, dense: Mapping[str, Sequence[float]], params: Mapping[str, int]) -> Path:
    """At each size dense runs of these seconds beside mpo runs of 10 each."""
    for preset, seconds in dense.items():
        put_runs(folder, "dense", preset, params[preset], seconds)
        put_runs(folder, "mpo", preset, params[preset], [10.0] * len(seconds))
    return folder


def write(path: Path, *texts: str, series: str = "speed", **changes: object) -> Path:
    predicates = [{"says": text, "holds_if": text, "is_reduced": True, "series": series} for text in texts]
    claim = {"id": "C1", "statement": "s", "scale": "big", "decide": "d", "predicates": predicates, **changes}
    source = {"id": "them", "title": "T", "url": "https://example.org", "date": "2026-01-01"}
    path.write_text(tomli_w.dumps({"schema": 1, "source": source, "claims": [claim]}))
    return path


def judged(path: Path, runs: Path) -> Judgement:
    (found,) = judge(read_claims(path), Evidence(Runs([runs]), None))
    return found


# two more doublings, and 4 seconds more of an effect
GROWING = {"tiny": [8.0, 9.0, 7.0], "small": [4.0, 3.0, 5.0]}
SIZES = {"tiny": 100, "small": 400}


def test_the_slope_of_two_sizes_by_hand(tmp_path: Path) -> None:
    runs = put_sizes(tmp_path / "runs", GROWING, SIZES)
    found = judged(write(tmp_path / "claims.toml", SHORTER.format("small"), SHORTER.format("tiny")), runs)
    (series,) = found.series
    assert [(size.num_params, size.estimate.value) for size in series.sizes] == [
        (100, -2.0),
        (400, -6.0),
    ]
    # each size: deviation 1 over 3 seeds, error 1 / sqrt(3), 2 degrees; log2(400 / 100) = 2 doublings
    assert series.slope is not None and series.per_doubling is not None and series.p_value is not None
    assert series.slope.value == pytest.approx((-6 + 2) / 2)
    assert series.slope.error == pytest.approx(math.sqrt(1 / 3 + 1 / 3) / 2)
    assert series.slope.degrees == pytest.approx(4)  # Welch-Satterthwaite of two equal errors: 2 + 2
    # t(0.975, 4 degrees) = 2.776, of printed tables
    assert series.per_doubling.low == pytest.approx(-2 - 2.776 * 0.40825, abs=1e-3)
    assert series.per_doubling.high == pytest.approx(-2 + 2.776 * 0.40825, abs=1e-3)
    assert series.p_value == pytest.approx(0.00805, abs=1e-4)
    assert series.trend == "grows with size, toward the claim"
    assert (found.verdict, found.why) == ("undecided", "not run at its scale, only smaller")


def test_a_ratio_is_fitted_by_its_logarithm(tmp_path: Path) -> None:
    dense = {"tiny": [10.0, 10.0], "small": [20.0, 20.0], "medium": [40.0, 40.0]}
    params = {"tiny": 100, "small": 200, "medium": 400}
    runs = put_sizes(tmp_path / "runs", dense, params)
    found = judged(write(tmp_path / "claims.toml", *map(AS_FAST.format, dense)), runs)
    (series,) = found.series
    assert series.asks == "ratio of seconds < 0.98"
    assert [size.effect.value for size in series.sizes] == pytest.approx([1, 2, 4])
    assert series.per_doubling is not None
    assert series.per_doubling.value == pytest.approx(2)  # exact runs have no interval
    assert series.trend == "grows with size, away from the claim"
    assert found.reduced == "opposes"


def test_one_size_against_the_claim_opposes_it_and_a_series_changes_no_signal(tmp_path: Path) -> None:
    runs = put_sizes(tmp_path / "runs", {"tiny": [8.0, 8.1, 7.9], "small": [12.0, 12.1, 11.9]}, SIZES)
    texts = [SHORTER.format("tiny"), SHORTER.format("small")]
    found = judged(write(tmp_path / "claims.toml", *texts), runs)
    assert [answer.truth for answer in found.answers] == [True, False]
    assert found.reduced == "opposes"
    assert found.series[0].trend == "turns round with size, away from the claim"
    assert judged(write(tmp_path / "claims.toml", *texts, series=""), runs).reduced == "opposes"


def test_one_size_or_none_has_no_trend(tmp_path: Path) -> None:
    runs = put_sizes(tmp_path / "runs", {"tiny": GROWING["tiny"]}, SIZES)
    (series,) = judged(write(tmp_path / "claims.toml", SHORTER.format("tiny"), SHORTER.format("small")), runs).series
    assert (len(series.sizes), series.slope, series.trend) == (1, None, "no trend: one size")
    (empty,) = judged(write(tmp_path / "claims.toml", SHORTER.format("medium")), runs).series
    assert (empty.sizes, empty.trend) == ((), "not run")
    again = put_sizes(tmp_path / "again", GROWING, {"tiny": 100, "small": 100})
    (series,) = judged(write(tmp_path / "claims.toml", SHORTER.format("tiny"), SHORTER.format("small")), again).series
    assert (len(series.sizes), series.slope) == (2, None)  # two presets of one size make no line
    near = put_sizes(tmp_path / "near", GROWING, {"tiny": 100, "small": 110})
    (series,) = judged(write(tmp_path / "claims.toml", SHORTER.format("tiny"), SHORTER.format("small")), near).series
    assert (len(series.sizes), series.slope) == (2, None)  # a doubling would be a multiple of their noise


def test_sizes_scored_in_unlike_modes_make_no_line(tmp_path: Path) -> None:
    runs = put_sizes(tmp_path / "runs", GROWING, SIZES)
    for path in runs.glob("**/record.json"):
        record = json.loads(path.read_text())
        if record["preset"] != "small":
            continue
        record["metrics"]["test"]["eval_mode"]["stride"] //= 2
        path.write_text(json.dumps(record))
    found = judged(write(tmp_path / "claims.toml", SHORTER.format("tiny"), SHORTER.format("small")), runs)
    assert (len(found.series[0].sizes), found.series[0].trend) == (2, "no trend: sizes scored in unlike modes")


@pytest.mark.parametrize(
    ("smallest", "largest", "is_above", "said"),
    [
        (-2.0, -6.0, False, "grows with size, toward the claim"),
        (-6.0, -2.0, False, "shrinks with size, away from the claim"),
        (2.0, 6.0, False, "grows with size, away from the claim"),
        (2.0, 6.0, True, "grows with size, toward the claim"),
        (-2.0, 2.0, True, "turns round with size, toward the claim"),
        (-0.5, 0.5, True, "rises with size, toward the claim"),
        (0.5, -0.5, True, "falls with size, away from the claim"),
        (2.0, 2.1, True, "no trend beyond chance"),
    ],
)
def test_the_words_of_a_trend(smallest: float, largest: float, is_above: bool, said: str) -> None:
    # an effect of 0.5 is not beyond chance: t(0.975, 30 degrees) = 2.042 errors of 0.3 are 0.61
    estimates = [Estimate(value=value, error=0.3, degrees=30) for value in (smallest, largest)]
    sizes = [SizeEffect(num_params=2.0**at, estimate=each, alpha=0.05, truth=None) for at, each in enumerate(estimates)]
    slope = slope_over_size([size.num_params for size in sizes], estimates)
    series = Series(name="n", asks="a", is_above=is_above, sizes=tuple(sizes), slope=slope)
    assert series.trend == said


def test_a_larger_error_at_one_size_widens_the_slope_and_nothing_else_does() -> None:
    exact, rough = (Estimate(value=1.0, error=error, degrees=5) for error in (0.0, 1.0))
    slope = slope_over_size([100, 1600], [exact, rough])  # four doublings
    assert (slope.value, slope.error, slope.degrees) == pytest.approx((0.0, 0.25, 5.0))
    assert slope_over_size([3, 48], [exact, rough]).value == 0


def test_levels_are_those_at_which_corrected_p_values_are_below_alpha() -> None:
    for p_values in ([0.01, 0.04, 0.03], [0.001, 0.02, 0.5, 0.012], [0.2], []):
        levels = holm_levels(p_values, 0.05)
        assert [p <= level for p, level in zip(p_values, levels, strict=True)] == [p <= 0.05 for p in holm(p_values)]
    assert holm_levels([0.01, 0.04, 0.03], 0.06) == pytest.approx([0.02, 0.06, 0.03])


def test_the_name_of_a_series_is_in_no_seal(tmp_path: Path) -> None:
    def hashed(series: str) -> str:
        loaded = read_claims(write(tmp_path / "claims.toml", SHORTER.format("tiny"), series=series))
        return hash_claim(loaded, loaded.content.claims[0])

    assert hashed("speed") == hashed("") == hashed("other")


@pytest.mark.parametrize(
    ("predicates", "said"),
    [
        ([{"holds_if": SHORTER.format("tiny"), "is_reduced": False}], "is for predicates at reduced scale"),
        ([{"holds_if": 'mean("dense/tiny", "seconds") < 1'}], "has another form than difference"),
        ([{"holds_if": f"not {SHORTER.format('tiny')}"}], "has another form than difference"),
        ([{"holds_if": SHORTER.format("tiny").replace("< 0", "== 0")}], "has another form than difference"),
        (
            [{"holds_if": SHORTER.format("tiny")}, {"holds_if": SHORTER.format("small").replace("<", ">")}],
            "predicate 2, series 'speed': asks difference of seconds > 0, but predicate 1 difference of seconds < 0",
        ),
        ([{"holds_if": SHORTER.format("tiny")}, {"holds_if": AS_FAST.format("small")}], "name another series"),
        ([{"holds_if": SHORTER.format("tiny")}] * 2, "asks of the same runs as predicate 1"),
    ],
)
def test_a_series_asks_one_thing(predicates: list[dict[str, object]], said: str, tmp_path: Path) -> None:
    listed = [{"says": "p", "is_reduced": True, "series": "speed", **each} for each in predicates]
    with pytest.raises(UsageError, match=said):
        read_claims(write(tmp_path / "claims.toml", predicates=listed))


def test_runs_without_stored_parameters_have_no_size_and_still_their_say(tmp_path: Path) -> None:
    runs = put_sizes(tmp_path / "runs", GROWING, {"tiny": 0, "small": 400})
    found = judged(write(tmp_path / "claims.toml", SHORTER.format("tiny"), SHORTER.format("small")), runs)
    assert found.series[0].trend == "no trend: one size"
    assert [answer.truth for answer in found.answers] == [None, True]
    assert found.reduced == "no signal"


def test_the_command_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = put_sizes(tmp_path / "runs", GROWING, SIZES)
    path = write(tmp_path / "claims.toml", SHORTER.format("tiny"), SHORTER.format("small"))
    show = ["claims", "check", str(path), "--records", str(runs)]
    assert run_command([*show, "--format", "json"]) == 0
    (series,) = json.loads(capsys.readouterr().out)["claims"][0]["series"]
    assert (series["name"], series["asks"]) == ("speed", "difference of seconds < 0")
    assert [size["value"] for size in series["sizes"]] == [-2.0, -6.0]
    assert series["per_doubling"]["value"] == pytest.approx(-2)
    assert series["trend"] == "grows with size, toward the claim"
    assert run_command(["claims", "show", f"{path}#C1", "--records", str(runs), "--format", "markdown"]) == 0
    shown = capsys.readouterr().out
    assert "trends over size" in shown
    assert "grows with size, toward the claim" in shown
    assert "-2 (-3.13" in shown


def test_the_report_has_a_row_a_size_and_one_of_the_slope(tmp_path: Path) -> None:
    runs = put_sizes(tmp_path / "runs", GROWING, SIZES)
    loaded = read_claims(write(tmp_path / "claims.toml", SHORTER.format("tiny"), SHORTER.format("small")))
    (judgement,) = judge(loaded, Evidence(Runs([runs]), None))
    claim = {**judgement_data(loaded, judgement), "file": "claims.toml", "facts": [], "margins": []}
    (card,) = claim_cards(Ledger(document={"claims": [claim], "responses": [], "files": {"claims.toml": {}}}))
    (sheet,) = (each for each in card.sheets if each.title == "Effects over size")
    rows = [[cell.text for cell in row[1:3]] for row in sheet.rows]
    assert rows == [["100", "-2.0000"], ["400", "-6.0000"], ["–", "-2.0000"]]
    assert sheet.rows[0][2].source == "report.json#claims.0.series.0.sizes.0.value"
    assert [row[-1].text for row in sheet.rows][-1] == "grows with size, toward the claim"
