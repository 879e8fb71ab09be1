"""Searches for the expression that generates a transformer's matrices best, at so many times fewer parameters.

    python -m methods.generator_search.search --ratio 10 --preset tiny --budget 2Mtok --out searches/ratio10

Candidates are trained under a fixed total of tokens and scored on the tune split alone; the winners are then trained
again at a fresh seed as `harness run` does, into records whose logs hold the one opening of the test split. The folder
holds `log.jsonl`, one line a trained candidate: a search that was stopped goes on from it when started again.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, UsageError
from harness.record_lock import hold_folder
from harness.tables import Table, fmt
from methods.generator_search.crew import open_crew
from methods.generator_search.formula import formula
from methods.generator_search.halving import Ladder, Search, Standing
from methods.generator_search.method import GeneratorSearchSettings
from methods.generator_search.parsing import parse
from methods.generator_search.resizing import fit
from methods.generator_search.target import Target, find_target
from methods.generator_search.trial import Bench
from methods.generator_search.winners import make_winner

SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """A search whose options are checked.

    Attributes:
        bench: what all trials have in common.
        ladder: how many candidates and steps.
        target: how many numbers an expression may have.
        num_tokens: training tokens of all candidates together.
        asked: what a search that goes on must share, as plain values.
    """

    bench: Bench
    ladder: Ladder
    target: Target
    num_tokens: int
    asked: dict[str, Any]


def plan_course(options: argparse.Namespace) -> Course:
    """Check the options of a search and work out what it will do.

    Raises:
        UsageError: one is wrong.
        DataError: the corpus is not to be had.
    """
    from harness.data.shards import prepare
    from harness.method import Task
    from harness.training.budget import parse_budget

    bench = Bench(
        preset=options.preset,
        overrides=tuple(options.overrides),
        data=options.data,
        tokenizer=options.tokenizer,
        data_dir=options.data_dir,
        seed=options.seed,
        tune_targets=options.tune_targets,
    )
    settings = bench.settings()
    recipe, budget = settings.train, parse_budget(options.budget)
    if budget.kind not in ("steps", "tokens"):
        raise UsageError(f"--budget {options.budget}: give steps or tokens, which do not depend on the machine")
    max_steps = budget.max_steps(recipe.batch_tokens, 1.0)
    assert max_steps is not None, "steps and tokens are counted"
    ladder = Ladder.within(max_steps, options.rung_steps, options.rungs)
    data = prepare(bench.data, tokenizer=bench.tokenizer, data_dir=Path(bench.data_dir) if bench.data_dir else None)
    task = Task(vocab_size=data.tokenizer.vocab_size, context=recipe.context)
    assert isinstance(settings.model, GeneratorSearchSettings)
    shared = {key: value for key, value in asdict(bench).items() if key != "data_dir"}
    names = ("ratio", "part", "budget", "rung_steps", "rungs")
    asked = {
        **shared,
        "overrides": list(bench.overrides),
        **{name: getattr(options, name) for name in names},
        "train_sha256": data.train.sha256,
    }
    return Course(
        bench=bench,
        ladder=ladder,
        target=find_target(settings.model, task, options.ratio, options.part),
        num_tokens=ladder.total * recipe.batch_tokens,
        asked=asked,
    )


def run_search(course: Course, out: Path, *, num_workers: int, num_winners: int) -> dict[str, Any]:
    """Search, make the winners' records, and return what was found as plain values.

    Args:
        course: what to do.
        out: folder of the search; it exists.
        num_workers: candidates at a time.
        num_winners: of the ranking, whose test split is scored.

    Raises:
        HarnessError: the folder holds another search, or a run of a winner ended early.
    """
    target, ladder = course.target, course.ladder
    _say(
        f"{target.dense_params:,} parameters of the dense {target.part}, {target.expression_params:,.0f} for the "
        f"expression; candidates a rung {ladder.num_candidates} from {ladder.first_steps} steps on, "
        f"{course.num_tokens:,} tokens in all"
    )
    layers = target.settings.num_blocks
    with open_crew(out, course.asked, course.bench, num_workers, _say) as crew:
        search = Search(
            ladder,
            resize=lambda form: fit(form, target.expression_params, target.count, layers),
            run=crew.run,
            seed=course.bench.seed,
        )
        outcome = search.run()
    last_steps = ladder.steps(len(ladder.num_candidates) - 1)
    winners = [
        make_winner(course.bench, out, rank, standing.expression, last_steps)
        for rank, standing in enumerate(outcome.ranking[:num_winners], start=1)
    ]
    return {
        **course.asked,
        "dense_params": target.dense_params,
        "expression_params": target.expression_params,
        "num_candidates": list(ladder.num_candidates),
        "tokens": course.num_tokens,
        "num_unsized": outcome.num_unsized,
        "num_failed": outcome.num_failed,
        "ranking": [_describe(standing, course) for standing in outcome.ranking],
        "winners": [asdict(winner) for winner in winners],
    }


def _describe(standing: Standing, course: Course) -> dict[str, Any]:
    tree = parse(standing.expression)
    return {
        **asdict(standing),
        "num_steps": course.ladder.steps(standing.rung),
        "formula": formula(tree),
        "expression_params": course.target.count(tree),
        "factor": course.target.factor(tree),
    }


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def ranking_table(found: dict[str, Any]) -> Table:
    """Lay out the best candidates, with the test scores of the winners."""
    tests = {winner["expression"]: winner["test_bpb"] for winner in found["winners"]}
    rows = [
        (
            str(rank),
            fmt(each["tune_bpb"]),
            str(each["num_steps"]),
            f"{each['expression_params']:,}",
            f"{each['factor']:.2f}",
            fmt(tests.get(each["expression"])),
            each["expression"],
            each["formula"],
        )
        for rank, each in enumerate(found["ranking"][:SHOWN], start=1)
    ]
    tried = sum(found["num_candidates"])
    title = (
        f"{found['ratio']:g} times fewer parameters ({found['part']}): {len(found['ranking'])} expressions in {tried} "
        f"trainings, {found['tokens']:,} tokens; {found['num_failed']} trainings failed, {found['num_unsized']} more "
        "forms had no sizes near the target"
    )
    columns = ("rank", "tune bits/byte", "steps", "numbers", "fewer", "test bits/byte", "expression", "formula")
    return Table(title=title, columns=columns, rows=rows, right=frozenset(range(6)))


def main(arguments: list[str] | None = None) -> int:
    """Search and print a Markdown table; returns the exit code."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m methods.generator_search.search", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--ratio", type=float, required=True, help="times fewer parameters than the dense network")
    parser.add_argument(
        "--of", dest="part", default="blocks", choices=["blocks", "model"], help="parameters of what [default: blocks]"
    )
    parser.add_argument("--preset", default="tiny", help="shape and recipe [default: tiny]")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="as of harness run; repeatable")
    parser.add_argument("--budget", required=True, help="of all candidates together: 2Mtok, 5000steps")
    parser.add_argument(
        "--rung-steps", type=int, default=30, help="steps of a candidate on the first rung [default: 30]"
    )
    parser.add_argument(
        "--rungs", type=int, default=3, help="each trains a third as many three times as long [default: 3]"
    )
    parser.add_argument("--tune-targets", type=int, default=16_384, help="targets of the tune split that are scored")
    parser.add_argument("--winners", type=int, default=1, help="of the ranking, for records with a test score")
    parser.add_argument("--data", default="shakespeare")
    parser.add_argument("--tokenizer")
    parser.add_argument("--data-dir")
    parser.add_argument("--seed", type=int, default=0, help="of proposals, initial numbers and data order")
    parser.add_argument("--workers", type=int, default=1, help="candidates at a time; changes no result")
    parser.add_argument("--out", type=Path, required=True, help="folder of the search; go on by naming it again")
    options = parser.parse_args(arguments)
    try:
        if min(options.workers, options.tune_targets) < 1 or options.winners < 0 or options.seed < 0:
            raise UsageError("--workers and --tune-targets are at least 1, --winners and --seed at least 0")
        options.out.mkdir(parents=True, exist_ok=True)
        with hold_folder(options.out):
            course = plan_course(options)
            found = run_search(course, options.out, num_workers=options.workers, num_winners=options.winners)
            text = json.dumps(found, indent=1)
            (options.out / "ranking.json").write_text(f"{text}\n", encoding="utf-8")
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"interrupted; go on by the same command with --out {options.out}", file=sys.stderr)
        return 130
    print(ranking_table(found).to_markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
