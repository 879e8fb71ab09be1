"""Folders in which steps, time, seeds or the data that was scored are not what is said."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from statistics import mean

from . import logs
from .april import april, caseops, phased
from .cases import APR, CASE, LEG, LONG, ONE, PHA, STAGED, TER, TRI, Case, case, cell
from .folders import Folder
from .march import byte, legal, long, plain, staged, ternary, triple
from .model import SP1024, SP8192, Run

DIAGNOSTIC = partial(logs.april, comp="quantized+brotli", style="diagnostic", calibration=0.4)

STEPS = [
    case(
        "steps_of_another_run", staged, lambda f: f.json(step_stop=12_329), "steps/major", "steps of quite another run"
    ),
    case(
        "steps_mean",
        triple,
        lambda f: f.json(train_steps_mean=round(mean(r.steps for r in TRI)) + 205),
        "steps/minor",
        "mean steps over the seeds",
    ),
    case(
        "seed_steps",
        caseops,
        lambda f: f.json({"seed_results.0.steps": CASE[1].steps + 6}),
        "steps/minor",
        "one seed's steps in the JSON",
    ),
    case(
        "listed_seed_steps",
        legal,
        lambda f: f.json(
            seed_results=[{**e, "steps": e["steps"] + 31 * (e["seed"] == 2025)} for e in f.summary()["seed_results"]]
        ),
        "steps/minor",
        "steps in a list of seeds",
    ),
    case(
        "readme_cell_steps",
        ternary,
        lambda f: cell(f, TER[2], f"{TER[2].steps:,}", f"{TER[2].steps + 44:,}"),
        "steps/minor",
        "one seed's steps in the README",
    ),
    case(
        "readme_steps",
        plain,
        lambda f: f.sub("README.md", f"`{ONE.steps}/20000`", "`13780/20000`"),
        "steps/minor",
        "README's steps at the stop",
    ),
    case(
        "readme_steps_sentence",
        byte,
        lambda f: f.sub("README.md", f"{f.runs[0].steps:,} steps", "6,500 steps"),
        "steps/minor",
        "README's sentence on steps",
    ),
]


def too_long(folder: Folder) -> Folder:
    return staged(runs=[replace(STAGED, train_ms=5_412_700)])


def one_seed_too_long(folder: Folder) -> Folder:
    return folder.put("train_seed0.log", DIAGNOSTIC(replace(CASE[1], train_ms=731_204)))


def slow_evaluation(folder: Folder) -> Folder:
    """The summary ticks `eval_under_600s`."""
    return phased(runs=[replace(r, eval_ms={**r.eval_ms, "ttt": r.eval_ms["ttt"] + 407_000}) for r in PHA])


TIME = [
    case("training_far_too_long", staged, too_long, "time/major", "ninety minutes in the ten-minute track", whole=True),
    case(
        "one_seed_too_long",
        caseops,
        one_seed_too_long,
        "time/major",
        "one seed trained 731 s by its log, 599 s by the JSON",
        whole=True,
    ),
    case(
        "evaluation_too_long",
        phased,
        slow_evaluation,
        "time/major",
        "eval_under_600s is ticked; the logs and the JSON say 812 s",
        whole=True,
    ),
    case(
        "self_clock",
        april,
        lambda f: f.add("train_seed42.log", "artifact_production_wallclock: 641.284s (must be < 600.0)\n"),
        "time/major",
        "the log measures itself and fails",
    ),
    case("wallclock", staged, lambda f: f.json(wallclock_seconds=412.3), "time/minor", "wall clock against the log"),
    case(
        "wallclock_of_long",
        long,
        lambda f: f.json(wallclock_seconds=LONG.train_ms // 1000 - 40_000),
        "time/minor",
        "wall clock of a long run",
    ),
    case("step_average", triple, lambda f: f.json(step_avg_ms=51.2), "time/minor", "time per step"),
    case(
        "seed_train_time",
        caseops,
        lambda f: f.json({"seed_results.42.train_time_s": 588.13}),
        "time/minor",
        "one seed's training time in the JSON",
    ),
    case(
        "seed_eval_time",
        phased,
        lambda f: f.json({"seed_results.2.eval_time_ms": 388_101}),
        "time/minor",
        "one seed's evaluation time in the JSON",
    ),
    case(
        "readme_cell_eval_time",
        phased,
        lambda f: cell(f, PHA[1], f"{PHA[1].eval_ms['ttt'] / 1000:.3f} s", "377.812 s"),
        "time/minor",
        "one seed's evaluation time in the README",
    ),
    case(
        "readme_cell_train_time",
        caseops,
        lambda f: cell(f, CASE[2], f"{CASE[2].train_ms / 1000:.2f}s", "596.10s"),
        "time/minor",
        "one seed's training time in the README",
    ),
    case(
        "readme_train_time",
        plain,
        lambda f: f.sub("README.md", f"`{ONE.train_ms}ms`", "`571204ms`"),
        "time/minor",
        "README's training time",
    ),
    case("train_time_mean", caseops, lambda f: f.json(train_time_s_mean=591.02), "time/minor", "mean training time"),
]


def same_run(folder: Folder) -> Folder:
    """Two seeds show one curve, one score, one size; JSON and README repeat it."""
    return phased(
        runs=[PHA[0], replace(PHA[0], seed=1), PHA[2]],
        log=logs.prefixed(lambda run: shared_noise(run, PHA[0].seed), "{t} "),
    )


def shared_noise(run: Run, seed: int) -> str:
    log = partial(logs.april, comp="quantized+brotli", style="diagnostic")
    copied = {0: seed, 1: seed}.get(run.seed, run.seed)
    text = log(replace(run, seed=copied))
    return text.replace(f"  seed: {copied}\n", f"  seed: {run.seed}\n")


def all_one_run(folder: Folder) -> Folder:
    first = APR[0]
    text = logs.april(first)
    return april(runs=[replace(first, seed=run.seed) for run in APR],
                 log=lambda run: text.replace("  seed: 42\n", f"  seed: {run.seed}\n"))  # fmt: skip


def relabelled(folder: Folder) -> Folder:
    """JSON and README call the seed 998; its log says 999."""
    made = folder.put("submission.json", folder.text("submission.json").replace("999", "998"))
    return made.sub("README.md", "| 999 |", "| 998 |")


def ternary_seed(folder: Folder) -> Folder:
    made = folder.sub("ternary_log_7.txt", " s:7\n", " s:1234\n")
    return made.sub("ternary_log_7.txt", " seed=7\n", " seed=1234\n")


SEEDS = [
    case(
        "seed_not_as_logged",
        caseops,
        lambda f: f.sub("train_seed0.log", "  seed: 0\n", "  seed: 1337\n"),
        "seeds/major",
        "the log of seed 0 ran with another seed",
    ),
    case(
        "seed_not_as_logged_march",
        triple,
        lambda f: f.sub("train_seed42.log", "\nseed:42\n", "\nseed:7\n"),
        "seeds/major",
        "the log of seed 42 ran with another seed",
    ),
    case("seed_not_as_logged_ternary", ternary, ternary_seed, "seeds/major", "the short line names another seed"),
    case("seed_relabelled", april, relabelled, "seeds/major", "JSON and README name a seed that no log has"),
    case("scalar_seed", staged, lambda f: f.json(seed=42), "seeds/major", "the one seed claimed is not the one logged"),
    case("same_run_twice", phased, same_run, "seeds/major", "two seeds' logs are one run", whole=True),
    case("all_one_run", april, all_one_run, "seeds/major", "three seeds' logs are one run", whole=True),
    case(
        "logs_swapped_names",
        april,
        lambda f: f.swap_files("train_seed42.log", "train_seed314.log"),
        "seeds/minor",
        "two logs carry each other's name",
        also=("metrics", "files"),
        whole=True,
    ),
    case("seed_listed_twice", april, lambda f: f.json(seeds=[42, 314, 314]), "seeds/major", "a seed is claimed twice"),
    case(
        "seeds_against_results",
        phased,
        lambda f: f.json(seeds=[0, 1, 5]),
        "seeds/minor",
        "the list of seeds names one that has no results",
    ),
    case("count_of_seeds", triple, lambda f: f.json(n_seeds=5), "seeds/minor", "n_seeds against the list"),
    case(
        "readme_count",
        april,
        lambda f: f.sub("README.md", "3-seed mean", "5-seed mean", times=2),
        "seeds/minor",
        "README's number of seeds against JSON and logs",
        also=("stats",),
    ),
    case(
        "readme_seed_cell",
        triple,
        lambda f: f.sub("README.md", "| 2025 |", "| 2024 |"),
        "seeds/minor",
        "README's table names a seed that nobody ran",
    ),
]


def other_constant(folder: Folder) -> Folder:
    """Everything agrees, but the bytes per token were counted wrongly: the score is a sixth too low."""
    wrong = replace(SP8192, plain=SP8192.plain * 1.17, scored=SP8192.scored * 1.17)
    return phased(runs=[replace(run, tok=wrong) for run in PHA])


def slightly_other_constant(folder: Folder) -> Folder:
    wrong = replace(SP1024, plain=SP1024.plain * 1.0062, scored=SP1024.scored * 1.0062)
    return legal(runs=[replace(run, tok=wrong) for run in LEG])


def one_constant_off(folder: Folder) -> Folder:
    wrong = replace(SP8192, plain=SP8192.plain * 1.031, scored=SP8192.scored * 1.031)
    runs = [PHA[0], PHA[1], replace(PHA[2], tok=wrong)]
    return phased(runs=runs)


def fewer_tokens(folder: Folder) -> Folder:
    part = replace(SP8192, val_tokens=9_662_464)
    return phased(runs=[replace(run, tok=part) for run in PHA])


DATA = [
    case(
        "limited_batches",
        long,
        lambda f: long(log=partial(logs.legendre, limited=500)),
        "data/major",
        "every evaluation says (limited); nobody else does",
    ),
    case(
        "max_tokens",
        ternary,
        lambda f: f.sub("ternary_log_42.txt", " seed=42", " seed=42 val_max_tokens=1048576"),
        "data/major",
        "val_max_tokens is set in the log",
    ),
    case(
        "max_tokens_variable",
        plain,
        lambda f: f.sub("train.log", "world_size:8", "VAL_MAX_TOKENS=5000000\nworld_size:8"),
        "data/major",
        "VAL_MAX_TOKENS is set in the log",
    ),
    case(
        "part_of_documents",
        april,
        lambda f: f.sub("train_seed42.log", "  vocab_size: 4096\n", "  val_doc_fraction: 0.2\n  vocab_size: 4096\n"),
        "data/major",
        "a fifth of the documents was scored",
    ),
    case("fewer_tokens", phased, fewer_tokens, "data/major", "a quarter of the validation tokens", whole=True),
    case(
        "wrong_constant",
        phased,
        other_constant,
        "data/major",
        "bytes per token 17% too high",
        also=("metrics",),
        whole=True,
    ),
    case(
        "slightly_wrong_constant",
        legal,
        slightly_other_constant,
        "data/major",
        "bytes per token 0.6% too high",
        also=("metrics",),
        whole=True,
    ),
    case(
        "one_seed_other_constant",
        phased,
        one_constant_off,
        "data/major",
        "one seed was scored with other bytes per token",
        also=("metrics",),
        whole=True,
    ),
    case(
        "self_invalid",
        byte,
        lambda f: f.sub("train.log", "valid: true", "valid: false"),
        "data/major",
        "the log's trailer says that it is not valid",
        also=("files", "bytes", "metrics"),
    ),
]

RUNS: list[Case] = STEPS + TIME + SEEDS + DATA
