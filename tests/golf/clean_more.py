"""Odd but true folders that come close to one rule each: signs, units, switched-off limits, look-alike curves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from . import logs
from .april import april, april_runs, caseops, phased
from .folders import SIZE, STEPS, Folder, score, seed_table, table
from .march import legal, long, plain, plain_runs, staged, staged_runs, ternary, triple, triple_runs
from .model import Run, avg, sd


def limits_switched_off() -> Folder:
    """Options that could limit the validation are printed, with the value that switches them off."""
    made = ternary().sub("ternary_log_42.txt", " seed=42", " seed=42 val_max_tokens=0")
    return made.sub("ternary_log_7.txt", " seed=7\n", " seed=7 val_max_tokens=0 eval_batches=all\n")


def whole_documents() -> Folder:
    option = "  vocab_size: 8192\n  val_doc_fraction: 1.0\n  ttt_doc_limit: 0\n  ttt_eval_batches: \n"
    return caseops().sub("train_seed42.log", "  vocab_size: 8192\n", option)


def own_clock_passes() -> Folder:
    lines = "artifact_production_wallclock: 588.284s (must be < 600.0)\nsize check: 15.97MB <= 16.00MB OK\n"
    return april().add("train_seed42.log", lines)


def harmless_words() -> Folder:
    """Words that a complaint would use, used otherwise."""
    noise = (
        "overlap: True\nclip: norm exceeds 0.3, scaled\ninvalid utf-8 pieces: 0\nvalid: 782 windows\nover: 3 phases\n"
    )
    return staged().sub("train.log", "warmup_step:20/20\n", "warmup_step:20/20\n" + noise)


def curves_alike() -> Folder:
    """Three seeds whose few validation points agree in all printed digits; losses and exact scores do not."""
    first, *rest = april_runs()
    near = []
    for n, run in enumerate(rest):
        stages = {s: round(v + 1e-6 * (n + 1) * (4 if s == "sliding" else 1), 8) for s, v in first.stages.items()}
        near.append(replace(run, steps=first.steps, train_ms=first.train_ms, stages=stages))
    return april(runs=[first, *near])


def fixed_steps_and_bytes() -> Folder:
    """A fixed number of steps and a padded file: all seeds have the same steps and bytes."""
    runs = [replace(run, steps=9_800, max_steps=9_800, model=15_400_000) for run in triple_runs()]
    return triple(runs=runs)


def runs_numbered() -> Folder:
    """The README counts the runs 1, 2, 3 and names the seeds in a sentence."""
    runs = april_runs()
    rows = [[n + 1, f"{run.bpb():.4f}", f"{run.total:,}"] for n, run in enumerate(runs)]
    text = "# Numbered\n\n" + table(["Run", "BPB", "Bytes"], rows) + "\nRuns 1 to 3 used seeds 42, 314 and 999.\n"
    return april().put("README.md", text)


def table_on_its_side() -> Folder:
    """Seeds are columns, metrics are rows."""
    runs = caseops().runs
    rows = [
        ["Post-TTT BPB", *(f"{r.bpb():.5f}" for r in runs), f"**{avg(runs):.5f}**"],
        ["val_loss", *(f"{r.loss():.5f}" for r in runs), f"{avg(runs, 'loss'):.5f}"],
        ["Steps", *(f"{r.steps:,}" for r in runs), "-"],
        ["Bytes", *(f"{r.total:,}" for r in runs), "-"],
    ]
    return caseops().put(
        "README.md", "# On its side\n\n" + table(["", *(f"seed {r.seed}" for r in runs), "mean"], rows)
    )


def unicode_signs() -> Folder:
    """A typographic minus, a plus-minus, a multiplication sign, thin blanks in numbers."""
    runs = triple_runs()
    gain = 1.2243657 - avg(runs)
    head = f"# Signs\n\n**{avg(runs):.4f} \u00b1 {sd(runs):.4f} BPB** on 8\u00d7H100, \u2212{gain:.4f} BPB "
    rows = seed_table(runs, [score("slide_bpb"), STEPS], mean="").replace(",", "\u202f")
    return triple().put("README.md", head + "against the baseline (1.2244)\n\n" + rows)


def gain_is_positive() -> Folder:
    """The difference is given as an improvement, without the minus sign."""
    return april().json(delta_vs_pr1019_bpb=round(1.11473 - avg(april_runs()), 5))


def three_digits() -> Folder:
    run = plain_runs()[0]
    text = f"# Short\n\nval_bpb {run.bpb():.3f}, {run.total / 1e6:.1f} MB, {run.params / 1e6:.1f}M params\n"
    return plain(readme=lambda rs: text).json(val_bpb=round(run.bpb(), 3), drop=["val_loss"])


def other_stage_named() -> Folder:
    """The table shows all stages with one unclear title each; every cell is in the log of its seed."""
    runs = legal().runs
    columns = [score("bpb (a)", "val"), score("bpb (b)", "roundtrip"), score("bpb (c)", "sliding"), score("bpb", "ttt")]
    return legal().put("README.md", "# Stages\n\n" + seed_table(runs, columns, mean="avg"))


def tables_in_details() -> Folder:
    """The seed table is folded away in HTML; a code block holds an older log excerpt of a tuning run."""
    made = phased()
    step = "step:2000/20000 val_loss:3.1000 val_bpb:1.2003 train_time:9000ms"
    old = f"```\n{step}\nTotal submission size: 17000000 bytes\n```\n"
    body = (
        "<details><summary>Seeds</summary>\n\n"
        + seed_table(made.runs, [score("val_bpb", digits=8), SIZE])
        + "</details>\n"
    )
    return made.put("README.md", "# Folded\n\n" + body + "\nFrom a tuning run, too big, not submitted:\n\n" + old)


def restarted_log() -> Folder:
    """The first start died after a few steps with a traceback; the second ran through."""
    run = staged_runs()[0]
    log = partial(logs.march, tag="int6+zstd", source=logs.SOURCE, roundtrip="final_int6_roundtrip")

    def both(run: Run) -> str:
        dead = log(run).split("step:2000/")[0]
        return (
            dead + "Traceback (most recent call last):\nRuntimeError: NCCL error: unhandled system error\n" + log(run)
        )

    return staged(runs=[run], log=both)


def scores_without_losses() -> Folder:
    """A long run whose JSON gives bits per byte only, and whole seconds."""
    return long().json(drop=["val_loss", "pre_quant_val_loss"])


def three_seeds_in_one_log() -> Folder:
    """All seeds ran one after the other into one file."""
    runs = april_runs()
    made = april().drop(*(f"train_seed{run.seed}.log" for run in runs))
    return made.put("train.log", "\n".join(logs.april(run) for run in runs))


def run_command() -> Folder:
    """The README's command sets limits to zero and a seed that is an example only."""
    command = "SEED=1234 VAL_MAX_TOKENS=0 MAX_WALLCLOCK_SECONDS=600 ITERATIONS=20000 VAL_LOSS_EVERY=4000 NUM_LAYERS=11"
    return april().add("README.md", f"\n```bash\n{command} \\\ntorchrun --nproc_per_node=8 train_gpt.py\n```\n")


def checks_ticked() -> Folder:
    """A list of ticked rules, with limits and the largest values next to each other."""
    runs = caseops().runs
    most, slow = max(run.total for run in runs), max(run.train_ms for run in runs) / 1000
    return caseops().add(
        "README.md",
        f"\n- [x] artifact <= 16,000,000 bytes (max: {most:,})\n- [x] training <= 600s (max: {slow:.1f}s)\n"
        "- [x] evaluation <= 600s\n- [ ] p < 0.01 against the former record (not tested)\n",
    )


def mixed_sizes() -> Folder:
    """The same size in bytes, MB and MiB in one sentence."""
    run = staged_runs()[0]
    total = run.total
    text = (
        f"\nThat is {total:,} B = {total / 1e6:.3f} MB = {total / 2**20:.2f} MiB; {16e6 - total:,.0f} bytes are free.\n"
    )
    return staged().add("README.md", text)


def hardware_numbers() -> Folder:
    return triple().add(
        "README.md",
        "\nPeak memory 11,251 MiB of 81,559 MiB; 524,288 tokens a step, 5.2B tokens; 80 shards of 100,000,000 tokens.\n"
        "Stock settings with seed 1 or 2 give about 1.2244; the paper's 124M model has 124,439,808 parameters.\n",
    )


def aliases_of_one_run() -> Folder:
    """The rarer key names, for one run."""
    run = staged_runs()[0]
    return staged(
        summary=lambda rs: {
            "run_name": "aliases",
            "sliding_val_bpb": run.bpb(),
            "val_loss_nats": run.loss(),
            "post_quant_standard_val_bpb": run.bpb("roundtrip"),
            "post_quant_standard_val_loss": run.loss("roundtrip"),
            "pre_quant_val_bpb": round(run.bpb("val"), 4),
            "artifact_size_bytes": run.total,
            "code_bytes": run.code,
            "bytes_model_int6_zstd": run.model,
            "train_steps": run.steps,
            "train_time_seconds": round(run.train_ms / 1000, 1),
            "step_avg_ms": round(run.step_ms, 2),
            "seed": run.seed,
        }
    )


def aliases_of_three_runs() -> Folder:
    """The rarer key names, for means over seeds; metrics of each seed lie under the key `seeds`."""
    return legal(
        summary=lambda rs: {
            "name": "aliases",
            "mean_bpb": round(avg(rs), 6),
            "sliding_bpb_mean": round(avg(rs, stage="sliding"), 6),
            "quant_roundtrip_mean_bpb": round(avg(rs, stage="roundtrip"), 6),
            "ttt_gain_mean_bpb": round(avg(rs, stage="sliding") - avg(rs), 6),
            "mean_val_loss_nats": round(avg(rs, "loss"), 6),
            "std_val_loss_nats": round(sd(rs, "loss"), 6),
            "artifact_bytes": max(run.total for run in rs),
            "seeds": {str(r.seed): {"val_bpb": r.bpb(), "train_time_ms": r.train_ms, "steps": r.steps} for r in rs},
        }
    )


def binary_weights() -> Folder:
    """The ternary script's sister: other words in the same lines, a summary with its own name."""
    return ternary(log=partial(logs.ternary, kind="binary"), json_name="submission_binary.json")


def stop_without_step() -> Folder:
    """The line on the stop has no step; the last validation has it."""
    run = plain_runs()[0]
    return plain(log=lambda r: logs.march(r).replace(f"ms step:{run.steps}/{run.max_steps}\n", "ms\n"))


CLEAN_MORE: dict[str, Callable[[], Folder]] = {
    build.__name__: build
    for build in (
        limits_switched_off,
        whole_documents,
        own_clock_passes,
        harmless_words,
        curves_alike,
        fixed_steps_and_bytes,
        runs_numbered,
        table_on_its_side,
        unicode_signs,
        gain_is_positive,
        three_digits,
        other_stage_named,
        tables_in_details,
        restarted_log,
        scores_without_losses,
        three_seeds_in_one_log,
        run_command,
        checks_ticked,
        mixed_sizes,
        hardware_numbers,
        aliases_of_one_run,
        aliases_of_three_runs,
        binary_weights,
        stop_without_step,
    )
}
