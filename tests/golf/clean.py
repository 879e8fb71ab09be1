"""Folders that are odd but true: whatever they look like, no failure may be reported on any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import mean

from . import logs
from .april import april, april_runs, caseops, phased, phased_runs, reevaluated
from .clean_forms import CLEAN_FORMS
from .clean_more import CLEAN_MORE
from .clean_text import CLEAN_TEXT
from .folders import SIZE, Folder, dump, score, seed_table
from .march import byte, byte_runs, legal, long, plain, plain_runs, staged, staged_runs, ternary, triple, triple_runs
from .model import BYTE260, SP8192, avg, make_runs, sd


def cut(value: float, digits: int) -> str:
    """Cut, not rounded."""
    return f"{int(value * 10**digits) / 10**digits:.{digits}f}"


def truncated_digits() -> Folder:
    """The README cuts the score where others round; the JSON cuts it too."""
    run = next(r for s in range(50) for r in make_runs([s], SP8192, 1.0823) if int(r.bpb() * 1e5) % 10 >= 6)
    made = plain(runs=[run], log=partial(logs.april, style="quantized"), readme=lambda rs: "# Cut digits\n\n")
    return made.add("README.md", f"val_bpb: {cut(run.bpb(), 4)}\n").json(val_bpb=float(cut(run.bpb(), 5)))


def mean_of_rounded_cells() -> Folder:
    """The mean was taken over the four printed digits of each seed, which moves its last digit by one."""
    for n in range(200):
        runs = april_runs((n, n + 1, n + 2))
        rounded = round(mean(round(r.bpb(), 4) for r in runs), 4)
        if rounded != round(avg(runs), 4):
            break
    made = april(runs=runs).json(
        val_bpb=rounded, seed_results={str(r.seed): {"val_bpb": round(r.bpb(), 4)} for r in runs}
    )
    return made.put("README.md", f"# Means of cells\n\nMean of three seeds: {rounded:.4f} val_bpb.\n")


def population_deviation() -> Folder:
    runs = phased_runs()
    return phased().json(val_bpb_std=round(sd(runs, kind="population"), 8))


def best_seed_undisclosed() -> Folder:
    """The JSON holds the best of three seeds and does not say so; the README has all of them."""
    best = min(april_runs(), key=lambda r: r.bpb())
    made = april(summary=lambda rs: {"name": "SP4096", "val_bpb": best.bpb(), "val_loss": best.loss(),
                                     "bytes_total": best.total, "bytes_code": best.code})  # fmt: skip
    return made.put("README.md", "# SP4096\n\n" + seed_table(april_runs(), [score("val_bpb"), SIZE], mean=""))


def best_seed_disclosed() -> Folder:
    best = min(triple_runs(), key=lambda r: r.bpb())
    made = triple().json(val_bpb=best.bpb(), val_loss_sliding=best.loss(), drop=["delta_vs_base_bpb"])
    return made.add("README.md", f"\nsubmission.json carries the best seed ({best.seed}): {best.bpb():.8f}.\n")


def single_seed() -> Folder:
    return staged().json(seeds=[1337], n_seeds=1)


def max_bytes_claimed() -> Folder:
    return april().json(bytes_total=max(r.total for r in april_runs()))


def mean_bytes_claimed() -> Folder:
    return phased().json(bytes_total=round(mean(r.total for r in phased_runs())))


def overshoot() -> Folder:
    """The clock is looked at once a step, so training stops 0.2 s late."""
    return staged(runs=[replace(staged_runs()[0], train_ms=600_204)])


def calibration_after_the_clock() -> Folder:
    log = partial(logs.april, comp="quantized+brotli", style="diagnostic", calibration=3.5)
    return caseops(log=log)


def mebibytes() -> Folder:
    run = staged_runs()[0]
    return staged().sub("README.md", f"{run.total:,} bytes", f"{run.total / 2**20:.2f} MiB")


def mebibytes_called_mb() -> Folder:
    """Only MiB fits what the README calls MB."""
    runs = ternary().runs
    size = max(run.total for run in runs)
    return ternary().sub("README.md", f"{size / 1e6:.2f} MB", f"{size / 2**20:.2f} MB")


def packed_code_counted() -> Folder:
    """The total counts packed code; the raw script is shipped, bytes_code is the packed size, the log prints both."""
    return caseops().json(bytes_code=30_305, bytes_total=max(r.total for r in caseops().runs))


def helper_files_not_counted() -> Folder:
    made = caseops().put("lossless_caps.py", b"#" * 28_917).put("prepare_data.py", b"#" * 9_474)
    return made.put("tokenizers/caseops.model", b"m" * 366_510).put("requirements.txt", "brotli\nsentencepiece\n")


def best_five_of_seven() -> Folder:
    """Seven seeds ran and are all shipped; the README says that the best five make the mean."""
    ran = april_runs((1, 2, 3, 4, 5, 6, 7))
    kept = sorted(ran, key=lambda r: r.bpb())[:5]
    made = april(runs=kept, name="logs/seed_{seed}.log")
    for run in ran:
        made = made.put(f"logs/seed_{run.seed}.log", logs.april(run))
    left = " and ".join(str(r.seed) for r in ran if r not in kept)
    return made.add("README.md", f"\nSeven seeds were run; the mean is over the best five (left out: {left}).\n")


def bytes_in_260_symbols() -> Folder:
    run = replace(byte_runs()[0], tok=BYTE260)
    made = byte(runs=[run]).drop("submission_jepa.json")
    claim = {"best_10min_byte260_val_bpb": run.bpb(), "best_10min_byte260_bytes_total": run.total}
    return made.put("submission.json", dump({"name": "byte260", **claim}))


def older_validation_export() -> Folder:
    """The first export of sp1024 had other documents: more tokens, another ratio."""
    run = plain_runs()[0]
    older = replace(run.tok, val_tokens=63_779_840, plain=1.692876, scored=1.692876)
    return plain(runs=[replace(run, tok=older)])


def extra_seed_logged() -> Folder:
    return april().put("train_seed2718.log", logs.april(april_runs((2718,))[0]))


def identical_log_copy() -> Folder:
    made = april(runs=april_runs((1337, 42, 314)))
    return made.put("train.log", made.files["train_seed1337.log"])


def code_grew_after_the_log() -> Folder:
    """The script that is claimed and shipped is 556 bytes longer than the one that the log counted."""
    run = long().runs[0]
    size = run.code + 556
    return long().put("train_gpt_smooth.py", b"#" * size).json(bytes_code=size, bytes_total=run.model + size)


def code_edited_after_the_run() -> Folder:
    """Two comment bytes were added after the runs; no number of code bytes is claimed."""
    return april().put("train_gpt.py", b"#" * (april_runs()[0].code + 2))


def lora_without_seeds() -> Folder:
    """Four runs with no seed printed, named v0 to v3; mean and deviation in the README only."""
    runs = make_runs((0, 1, 2, 3), april_runs()[0].tok, 1.1929, steps=7_010)
    log = partial(logs.march, says_seed=False, sliding="final_int8_ttt_lora", exact=False)
    listed = ", ".join(f"{r.bpb():.4f}" for r in runs)
    made = plain(runs=runs, log=log, name="train_v{index}.txt", readme=lambda rs: "")
    text = f"# Adapters at test time\n\nFour runs: [{listed}]\n- mean: {avg(runs):.4f}\n- std: {sd(runs):.4f}\n"
    return made.put("README.md", text).json(val_bpb=round(avg(runs), 4), val_loss=round(avg(runs, "loss"), 4))


def three_runs_in_one_log() -> Folder:
    run = staged_runs()[0]
    log = partial(logs.march, tag="int6+zstd", source=logs.SOURCE, roundtrip="final_int6_roundtrip")
    older = [
        replace(run, stages={k: v + d for k, v in run.stages.items()}, model=run.model + m, steps=run.steps - s)
        for d, m, s in ((0.0341, 210_221, 877), (0.0217, -90_412, 411))
    ]
    return staged(log=lambda r: "\n".join(log(x) for x in (*older, r)))


def failed_evaluation_last() -> Folder:
    """One log goes on after the claimed score with an adaptation that went wrong and is not claimed."""
    run = replace(april_runs()[0], eval_ms={**april_runs()[0].eval_ms, "ttt": 405_410})
    wrong = replace(run, stages={**run.stages, "ttt": 1.33603211})
    return april().add("train_seed42.log", logs.ttt_block(wrong, "final_int6_ttt") + "\n")


def over_then_fits() -> Folder:
    """The script first tries int8, prints that it is too big, then packs int6, which fits and is claimed."""
    tried = "candidate int8+zlib: 17204118 bytes exceeds 16000000, trying int6\n  size check: 17.20MB OVER\n"
    made = staged()
    return made.sub("train.log", "Serialized model int6+zstd", tried + "Serialized model int6+zstd")


def quick_checks_limited() -> Folder:
    """Checks while training use 100 batches; the claimed score is over the whole split."""
    run = plain_runs()[0]
    text = logs.march(run).replace(f"step:3000/{run.max_steps} val_loss",
                                   f"  eval: 100 batches (limited)\nstep:3000/{run.max_steps} val_loss")  # fmt: skip
    return plain(log=lambda r: text.replace("Code size:", "final evaluation over all batches of the split\nCode size:"))


def limited_validation_disclosed() -> Folder:
    made = long(log=partial(logs.legendre, limited=500))
    return made.json(partial_validation="500 batches").add(
        "README.md",
        "\nAll scores are over the first 500 batches of the validation split only, not over the full split.\n",
    )


def untagged_total_is_final() -> Folder:
    """The compressed total has no tag: the second untagged line is the one that counts."""
    run = plain_runs()[0]
    return plain(log=lambda r: logs.march(r).replace(f"Total submission size int8+zlib: {run.total}",
                                                     f"Total submission size: {run.total}"))  # fmt: skip


def resumed_run() -> Folder:
    made = long()
    return made.sub("train.log", "warmup done (20 steps)\n",
                    "Resuming from checkpoint: ckpt_step5000.pt\n  Resumed at step 5000, training_time=7381254ms\n"
                    "warmup done (20 steps)\n")  # fmt: skip


def whole_seconds() -> Folder:
    return staged().json(wallclock_seconds=600, eval_time_seconds=round(staged_runs()[0].eval_ms["sliding"] / 1000))


CLEAN: dict[str, Callable[[], Folder]] = {
    build.__name__: build
    for build in (
        truncated_digits,
        mean_of_rounded_cells,
        population_deviation,
        best_seed_undisclosed,
        best_seed_disclosed,
        single_seed,
        max_bytes_claimed,
        mean_bytes_claimed,
        overshoot,
        calibration_after_the_clock,
        mebibytes,
        mebibytes_called_mb,
        packed_code_counted,
        helper_files_not_counted,
        best_five_of_seven,
        bytes_in_260_symbols,
        older_validation_export,
        extra_seed_logged,
        identical_log_copy,
        code_grew_after_the_log,
        code_edited_after_the_run,
        lora_without_seeds,
        three_runs_in_one_log,
        failed_evaluation_last,
        over_then_fits,
        quick_checks_limited,
        limited_validation_disclosed,
        untagged_total_is_final,
        resumed_run,
        whole_seconds,
    )
} | {
    "evaluation_only_reruns": reevaluated,
    "own_tokenizer": ternary,
    "byte_model": byte,
    "legal_adaptation": legal,
    "weeks_on_one_card": long,
    **CLEAN_TEXT,
    **CLEAN_MORE,
    **CLEAN_FORMS,
}
