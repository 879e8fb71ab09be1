"""One candidate of a search: trained for a number of steps and scored on the tune split, in one call.

Nothing here opens the test split.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import RunError
from harness.settings import RunSettings

if TYPE_CHECKING:
    from harness.data.shards import TokenData

# A checkpoint that is not there is not read, and without a log none is written.
_NO_FILE = Path("no-checkpoint-of-a-trial")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What all trials of a search have in common.

    Attributes:
        preset: of `generator_search`.
        overrides: `--set` values on top of it.
        data: corpus.
        tokenizer: None for the corpus's own.
        data_dir: folder of local corpora.
        seed: of initial numbers and data order, the same for every candidate.
        tune_targets: targets of the tune split, from its head, that are scored.
    """

    preset: str
    overrides: tuple[str, ...]
    data: str
    tokenizer: str | None
    data_dir: str | None
    seed: int
    tune_targets: int

    def settings(self, extra: Sequence[str] = ()) -> RunSettings:
        """Return the checked settings, with more `--set` values.

        Raises:
            UsageError: a value is refused.
        """
        from harness.registry import find_method
        from harness.settings import resolve_settings

        return resolve_settings(find_method("generator_search"), self.preset, (*self.overrides, *extra))


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A candidate at a number of steps."""

    expression: str
    num_steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What came of a trial.

    Attributes:
        tune_bpb: bits per byte of the scored part of the tune split; None where the training failed.
        seconds: wall-clock time of training and scoring.
        failure: why there is no score, in one line.
    """

    tune_bpb: float | None
    seconds: float
    failure: str = ""


def run_trial(bench: Bench, trial: Trial) -> Result:
    """Train a candidate on one thread and score it; a training that ends early is a result, too."""
    import torch

    torch.set_num_threads(1)  # bits of sums depend on it, and workers would wait for each other
    started = time.monotonic()
    try:
        tune_bpb, failure = _train_and_score(bench, trial), ""
    except RunError as error:
        tune_bpb, failure = None, str(error)
    return Result(tune_bpb=tune_bpb, seconds=time.monotonic() - started, failure=failure)


def _train_and_score(bench: Bench, trial: Trial) -> float:
    import torch

    from harness.evaluate import score_network
    from harness.method import Task
    from harness.plan import make_plan
    from harness.scoring import EvalMode
    from harness.training.budget import parse_budget
    from harness.training.clock import Clock
    from harness.training.loop import Trainer
    from harness.training.ranks import Ranks, resolve_precision
    from methods.generator_search.method import GeneratorSearch

    settings, data = bench.settings([f"expression={trial.expression}"]), _prepared(bench)
    recipe = settings.train.model_copy(update={"precision": resolve_precision(settings.train.precision, "cpu")})
    task = Task(vocab_size=data.tokenizer.vocab_size, context=recipe.context, pass_tokens=recipe.micro_batch_tokens)
    method = GeneratorSearch(settings.model, task)
    budget = parse_budget(f"{trial.num_steps}steps")
    torch.manual_seed(bench.seed)
    trainer = Trainer(
        method=method,
        recipe=recipe,
        clock=Clock(budget),
        data=data,
        seed=bench.seed,
        ranks=Ranks(device="cpu"),
        log=None,
        checkpoint_path=_NO_FILE,
        flops_per_step=make_plan(method, settings, budget, data).flops_per_step,
        probe_export=lambda network: 0.0,
        validate=lambda network, step: None,
        num_validations=0,
        export=settings.export,
    )
    network = method.train(trainer)
    mode = EvalMode(mode="sliding", context=recipe.context, stride=max(1, recipe.context // 2))
    scores = score_network(network, data, data.tune, mode, max_targets=bench.tune_targets)
    return float(scores.metrics()["val_bpb"])


@lru_cache(maxsize=1)
def _prepared(bench: Bench) -> TokenData:
    from harness.data.shards import prepare

    data_dir = Path(bench.data_dir) if bench.data_dir else None
    return prepare(bench.data, tokenizer=bench.tokenizer, data_dir=data_dir)
