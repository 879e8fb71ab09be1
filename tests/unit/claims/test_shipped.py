"""The claim files of the methods here, judged by the records here; README says the same."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from harness.claims.command import Judged, judge_plugins
from harness.claims.evidence import Evidence
from harness.claims.expressions import Names, evaluate, names_in, parse_expression
from harness.claims.fetches import FETCHES
from harness.claims.reproduction import MissingEvidenceError, Runs
from harness.claims.reproduction import _plain as plain
from harness.claims.views import VERDICTS, judgement_data
from harness.registry import find_method
from harness.settings import resolve_settings

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def judged() -> Judged:
    return judge_plugins([ROOT / "records", ROOT / "comparisons"])


def test_the_readme_counts_the_verdicts(judged: Judged) -> None:
    readme = (ROOT / "README.md").read_text()
    for loaded, judgements in judged:
        counts = Counter(each.verdict for each in judgements)
        row = " | ".join(str(counts[verdict]) for verdict in VERDICTS)
        assert f"| {loaded.content.source.id} | {row} |" in readme
    total = sum(len(judgements) for _, judgements in judged)
    assert re.search(rf"judges {total} claims", readme)


def test_what_is_contradicted_says_how_to_see_it_and_what_is_undecided_how_to_decide_it(judged: Judged) -> None:
    for _, judgements in judged:
        for each in judgements:
            if each.verdict == "contradicted":
                assert each.claim.counter, each.name
            if each.verdict == "undecided":
                is_named = any("missing(" in answer.predicate.holds_if for answer in each.answers)
                assert is_named or (each.claim.decide and each.claim.cost), each.name


def test_the_commands_of_the_counter_evidence_run(judged: Judged, capsys: pytest.CaptureFixture[str]) -> None:
    counters = {each.name: each.claim.counter for _, judgements in judged for each in judgements}
    found = {name: shlex.split(counter) for name, counter in counters.items() if counter}
    for name, words in found.items():
        if words[:2] == ["python", "-c"]:
            exec(words[2], {})
            assert capsys.readouterr().out.strip(), name
        else:
            assert words[0] in ("harness", "python"), name
    assert sum(words[:2] == ["python", "-c"] for words in found.values()) >= 8


def test_what_is_contradicted_quotes_both_sides(judged: Judged) -> None:
    for loaded, judgements in judged:
        for each in judgements:
            quoted = judgement_data(loaded, each)["counter_evidence"]
            assert bool(quoted) == (each.verdict == "contradicted"), each.name


# What the arithmetic of the published tables gives, worked out by hand.
@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("legendre.A3", "confirmed"),  # 15,630,808 + 71,525 = 15,702,333
        ("legendre.A6", "confirmed"),
        ("legendre.A16", "contradicted"),  # 15,630,808 > 15,370,972
        ("recursive.B4", "confirmed"),
        ("mpo.C6", "contradicted"),  # 0.468 / 110,592 < 0.368 / 78,336
        ("mpo.C11", "confirmed"),
    ],
)
def test_verdicts_by_hand(judged: Judged, name: str, verdict: str) -> None:
    found = {each.name: each for _, judgements in judged for each in judgements}
    assert found[name].verdict == verdict


def test_the_readings_of_accuracy_per_parameter(judged: Judged) -> None:
    (found,) = (each for _, judgements in judged for each in judgements if each.name == "mpo.C6")
    # over the root chi 8 leads, 1.407e-3 against 1.315e-3 of chi 4: 2.69 times dense
    assert found.readings["accuracy over the root of the parameters"] == "confirmed"
    assert found.readings["accuracy over parameters"] == "contradicted"


def test_no_shipped_predicate_is_wrong_and_no_published_number_is_unused(judged: Judged) -> None:
    for loaded, judgements in judged:
        answers = [answer for each in judgements for answer in each.answers]
        assert not [answer.missing for answer in answers if answer.is_wrong]
        used = set[str]().union(*(names_in(answer.predicate.tree) for answer in answers))
        assert set(loaded.content.facts) - used == set(), loaded.path
        assert set(loaded.content.margins) - used == set(), loaded.path


@pytest.mark.parametrize("name", FETCHES)
def test_the_examples_of_the_language_can_be_asked(name: str) -> None:
    tree = parse_expression(FETCHES[name].call)
    evidence = Evidence(Runs([ROOT / "records"]), ROOT / "records")
    try:
        evaluate(tree, Names(facts={}, fetches=evidence.fetches(0.05, {})))
    except MissingEvidenceError as error:
        assert name in ("field", "stated", "missing"), error


def _runs_of(line: str, claim: str) -> dict[str, str]:
    """What the runs of a plan's line can be chosen by."""
    words = shlex.split(line)
    options = dict(zip(words[::2], words[1::2], strict=True))
    overrides = [value for option, value in zip(words[::2], words[1::2], strict=True) if option == "--set"]
    info, model = find_method(options["--method"]), options.get("--model", "")
    settings = resolve_settings(info, options["--preset"], overrides, pretrained=bool(model)).as_dict()
    known = {f"{section}.{key}": plain(value) for section, part in settings.items() for key, value in part.items()}
    name = f"{options['--method']}/{options['--preset']}"
    parent = Path(model).name.removesuffix("-seed{seed}")
    return {**known, "name": name, "budget": options.get("--budget", ""), "claim": claim, "from": parent}


def test_every_text_that_chooses_runs_of_a_plan_chooses_one_line_of_it(judged: Judged) -> None:
    num_texts = 0
    for _, judgements in judged:
        for each in (each for each in judgements if each.claim.plan):
            lines = [_runs_of(line, each.name) for line in each.claim.plan.arguments]
            texts = re.findall(
                rf'"([^"]*claim={each.name}\b[^"]*)"', "".join(p.holds_if for p in each.claim.predicates)
            )
            for text in texts:
                name, *filters = (part.strip() for part in text.split(","))
                wanted = {"name": name, **dict(part.partition("=")[::2] for part in filters)}
                chosen = [line for line in lines if wanted.items() <= line.items()]
                assert len(chosen) == 1, (each.name, text)
                num_texts += 1
    assert num_texts > 80
