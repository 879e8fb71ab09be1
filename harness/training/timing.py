"""The seconds of an optimiser step on this machine: the run's own first few steps, on random tokens, then undone."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, median

import numpy as np

from harness.data.shards import TokenData
from harness.data.splits import SPLITS
from harness.data.streams import SplitFacts, TokenStream
from harness.data.tokenizer_base import token_dtype
from harness.data.tokenizers import ByteTokenizer
from harness.method import Method
from harness.settings import RunSettings
from harness.training.budget import Budget
from harness.training.clock import Clock
from harness.training.loop import Trainer
from harness.training.ranks import Ranks

MIN_STEPS, ENOUGH_SECONDS = 3, 5.0
# No phase that begins at a share of the run, or so many steps before its end, begins among the steps that are timed.
_MANY_STEPS = 10**9
# A checkpoint that is not there is not read, and without a log none is written.
_NO_FILE = Path("no-checkpoint-of-a-plan")


def time_steps(method: Method, settings: RunSettings, device: str, flops_per_step: float) -> float:
    """Train a fresh network for a few steps and return the seconds of one: the median, or the mean of whole periods.

    After the warm-up (which compiles where the recipe says so) steps are taken until 5 seconds are over and 3 are done;
    where the warm step alone took 5 seconds, one more is enough. Nothing is written.

    Args:
        method: at its settings; where its steps are of unlike cost, whole periods of them are timed.
        settings: of the run, their precision resolved.
        device: torch device.
        flops_per_step: of the plan.
    """
    clock = Clock(Budget(kind="steps", amount=float(_MANY_STEPS), text=f"{_MANY_STEPS}steps"))
    period, warm_seconds = method.cost_period, list[float]()
    trainer = Trainer(
        method=method,
        recipe=settings.train.model_copy(update={"warmup_steps": 0}),
        clock=clock,
        data=_random_tokens(method.task.vocab_size, settings.train.batch_tokens + settings.train.context + 1),
        seed=0,
        ranks=Ranks(device=device),
        log=None,
        checkpoint_path=_NO_FILE,
        flops_per_step=flops_per_step,
        probe_export=lambda network: 0.0,
        validate=lambda network, step: None,
        num_validations=0,
        on_ready=warm_seconds.append,
        export=settings.export,
    )

    def stop_if_last(_: float) -> None:
        if not warm_seconds:
            return  # a step of the warm-up
        with_this = len(trainer.step_seconds) + 1
        is_long = warm_seconds[0] >= ENOUGH_SECONDS and with_this >= period
        is_enough = sum(trainer.step_seconds) + warm_seconds[0] >= ENOUGH_SECONDS and with_this >= MIN_STEPS
        if (is_long or is_enough) and with_this % period == 0:
            clock.stop("timed")

    trainer.fit(method.build(), before_step=stop_if_last)
    return median(trainer.step_seconds) if period == 1 else fmean(trainer.step_seconds)


def _random_tokens(vocab_size: int, num_tokens: int) -> TokenData:
    """Return data whose splits are the same random tokens; what they are makes no step faster or slower."""
    tokens = np.random.default_rng(0).integers(vocab_size, size=num_tokens).astype(token_dtype(vocab_size))
    facts = SplitFacts(sha256="", num_tokens=num_tokens, num_bytes=num_tokens)
    return TokenData(
        name="random tokens",
        tokenizer=ByteTokenizer(),
        streams=lambda split: TokenStream(split, [tokens], facts),
        facts=dict.fromkeys(SPLITS, facts),
        count_bytes=lambda previous, targets: np.ones(len(targets), dtype=np.int32),
        provenance={},
    )
