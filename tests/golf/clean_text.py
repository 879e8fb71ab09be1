"""Odd but true folders whose oddity is in the writing: aliases, layouts, prose, line ends, other people's numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from . import logs
from .april import april, april_runs, caseops, caseops_runs, phased, phased_runs
from .folders import SIZE, STEPS, Folder, score, seed_table, table
from .march import legal, plain, plain_runs, staged, staged_runs, ternary, triple, triple_runs
from .model import Run, avg, sd

ABLATION = table(
    ["Change", "val_bpb", "Delta", "Artifact"],
    [
        ["9L, uniform int6", "1.1612", "baseline", "15.2 MB"],
        ["+ 11 layers", "1.1498", "-0.0114", "16.9 MB (over)"],
        ["+ mixed int5", "1.1467", "-0.0031", "15.7 MB"],
        ["+ averaging every 50 steps", "1.1460", "-0.0007", "15.7 MB"],
    ],
)


def ablations() -> Folder:
    return triple().add("README.md", "\n## Ablations (single short runs, seed 7, 3,000 steps)\n\n" + ABLATION)


def other_peoples_records() -> Folder:
    rows = [
        ["PR #1019", "1.11473", "3", "15,984,112"],
        ["PR #1218", "1.09785", "1", "15,990,006"],
        ["this one", "**1.0910**", "3", "-"],
    ]
    made = april()
    rows[2][1] = f"**{avg(made.runs):.5f}**"
    return made.add("README.md", "\n## Before this\n\n" + table(["Record", "val_bpb", "Seeds", "Bytes"], rows))


def seeds_of_another_pr() -> Folder:
    runs = caseops_runs()
    rows = [[r.seed, f"{r.bpb():.5f}", f"{r.bpb() + d:.5f}", f"{-1000 * d:.2f}"]
            for r, d in zip(runs, (0.0021, 0.0019, 0.00299), strict=True)]  # fmt: skip
    made = caseops().add("README.md", "\n### Seed by seed against PR #1736\n\n")
    made = made.add("README.md", table(["Seed", "This PR", "PR #1736", "delta (mBPB)"], rows))
    return made.add("README.md", "\nPR #1736 ran seeds 42, 0 and 1234; PR #1779 ran 7, 8 and 9 (mean 1.06421).\n")


def four_digit_log() -> Folder:
    """No exact lines in the log, four digits in the JSON."""
    run = plain_runs()[0]
    made = plain(log=partial(logs.march, exact=False)).json(val_bpb=round(run.bpb(), 4), val_loss=round(run.loss(), 4))
    return made.sub("README.md", f"_exact val_bpb:{run.bpb():.8f}", f" val_bpb:{run.bpb():.4f}")


def step_average_in_seconds() -> Folder:
    return staged(log=partial(logs.march, tag="int6+zstd", avg_unit="s"))


def about_values() -> Folder:
    run = staged_runs()[0]
    return staged(readme=lambda rs: (
        f"# About\n\n~{run.bpb():.2f} BPB from ~{run.total / 1e6:.1f}MB, ~{run.params / 1e6:.0f}M parameters and "
        f"~{run.steps / 1000:.0f}k steps at ~{run.step_ms:.0f} ms in ~10 minutes; code is ~{run.code // 1000} KB.\n"
    ))  # fmt: skip


def lookalikes() -> Folder:
    """Dates, pull requests, layer counts, learning rates and versions that look like metrics."""
    return staged().add(
        "README.md",
        "\nFiled 2026-03-20, rebased on PR #1204 (1.2044 there), arXiv:2603.09078, PyTorch 2.9.1+cu128.\n"
        "Layers: 11 (5+6); lr 0.025; momentum 0.99; dropout 1.1e-3; rope base 10000; 524288 tokens a step.\n"
        "Seed phrase for the plots: 31415. Steps 0-20 are warm-up. A 13-layer draft weighed 17,120,004 bytes.\n"
        "At 2.0 nats a token a guess would give 1.1845 BPB; the unigram floor is about 2.5 BPB.\n",
    )


def windows_lines() -> Folder:
    return triple().every(lambda data: data.replace(b"\n", b"\r\n"))


def byte_order_mark() -> Folder:
    return april().every(lambda data: b"\xef\xbb\xbf" + data)


def escaped_pipes() -> Folder:
    made = triple(readme=lambda rs: "# Pipes\n\n" + seed_table(rs, [
        score(r"slide\_bpb \| stride 64", "sliding", 5), score(r"rt\_bpb \| no window", "roundtrip", 5), STEPS, SIZE,
    ]))  # fmt: skip
    return made.add("README.md", "\n| Setting | Value |\n|-|-|\n| norm | \\|w\\| = 1.25 |\n| clip | 0.3 \\| 1.0 |\n")


def launcher_prefix() -> Folder:
    return staged(log=logs.prefixed(partial(logs.march, tag="int6+zstd")))


def wrapped_lines() -> Folder:
    return april(log=logs.wrapped(logs.april, 72))


def source_after_the_block() -> Folder:
    """The hyperparameter block is printed first, then the whole script, then the run."""
    return april(log=partial(logs.april, source=logs.SOURCE))


def seeds_as_dict() -> Folder:
    runs = triple_runs()
    each = {
        str(r.seed): {"val_loss": r.loss(), "val_bpb": r.bpb(), "bytes_total": r.total, "steps": r.steps} for r in runs
    }
    return triple().json(seeds=each, drop=["n_seeds"])


def seed_scores_list() -> Folder:
    runs = april_runs()
    made = april().json(seed_scores=[r.bpb() for r in runs], mean_bpb=round(avg(runs), 8))
    return made.json(drop=["val_bpb", "seed_results"])


def numbers_as_text() -> Folder:
    run = plain_runs()[0]
    return plain().json(val_bpb=f"{run.bpb():.8f}", bytes_total=f"{run.total:,}", bytes_code=f"{run.code:,} bytes")


def headline_in_nats() -> Folder:
    """The headline is the loss; the deviation is of the loss; a Welch test against another PR's seeds is given."""
    runs = april_runs()
    made = april().json(
        mean_val_loss_nats=round(avg(runs, "loss"), 5),
        val_loss_nats_std=round(sd(runs, "loss"), 5),
        delta_vs_pr1179_nats=round(avg(runs, "loss") - 2.52013, 5),
        delta_vs_pr1179_bpb=round(avg(runs) - 1.09525, 5),
        p_value=0.00042,
        welch_df=3.41,
    )
    return made.add("README.md", f"\nMean loss {avg(runs, 'loss'):.4f} nats; PR #1179 had 2.5201 nats, 1.09525 bpb.\n")


def summary_without_bytes() -> Folder:
    return phased(summary=lambda rs: {"name": "Phased", "val_bpb": round(avg(rs), 5), "seeds": [r.seed for r in rs]})


def readme_and_log_only() -> Folder:
    return staged(summary=None)


def only_seed_results() -> Folder:
    """No headline key at all: the seeds speak for themselves."""
    return phased().json(drop=["val_bpb", "val_loss", "val_bpb_std"])


def seed_in_summary_only() -> Folder:
    return plain(log=partial(logs.march, says_seed=False)).json(seed=1337)


def compliance_rerun() -> Folder:
    """A second set of runs, made after a change of rules, is reported beside the first, with its own logs."""
    again = phased_runs((10, 11, 12))
    made = phased().json(
        compliance_rerun={"seed_results": {str(r.seed): {"val_bpb": r.bpb(), "artifact_bytes": r.total} for r in again}}
    )
    log = logs.prefixed(partial(logs.april, comp="quantized+brotli", style="diagnostic"), "{t} ")
    for run in again:
        made = made.put(f"rerun/train_seed{run.seed}.txt", log(run))
    return made.add("README.md", f"\nRerun under the new rules (seeds 10, 11, 12, `rerun/`): {avg(again):.5f} BPB.\n")


def result_files() -> Folder:
    """Beside each log lies a small JSON with its result; they are not summaries."""
    made = caseops()
    for run in made.runs:
        data = {"seed": run.seed, "status": "completed", "post_ttt_val_bpb": run.bpb(), "post_ttt_val_loss": run.loss()}
        made = made.put(f"results/seed_{run.seed}_result.json", json.dumps(data))
    return made.put("tokenizer_specs.json", '{"tokenizers": [{"name": "bpe", "vocab_size": 8192}]}')


def no_mean_row() -> Folder:
    """The table has no mean row and no bold; the sentence gives range and mean."""
    runs = legal().runs
    low, high = min(r.bpb() for r in runs), max(r.bpb() for r in runs)
    text = "# Adapted\n\n" + seed_table(runs, [score("BPB", digits=5), SIZE], mean="")
    return legal().put("README.md", text + f"\nScores from {low:.4f} to {high:.4f}, on average {avg(runs):.4f}.\n")


def blank_names(rs: Sequence[Run]) -> dict[str, Any]:
    blurb = "No. 7 of 9; 11L/512d; see PR #1394 (1.0856 BPB)"
    return {"name": "", "author": None, "blurb": blurb, "val_bpb": rs[0].bpb(), "val_loss": None,
            "bytes_total": rs[0].total, "date": "2026-03-20T20:15:00Z"}  # fmt: skip


def nulls_in_summary() -> Folder:
    return staged(summary=blank_names)


def sweep_document() -> Folder:
    """A long second document lists other experiments of the author, with other scores, steps and sizes."""
    rows = [[f"F{n}", 12 - n % 3, f"{99.4 + n:.1f}", 6_030 - 41 * n, f"{1.1873 + n / 900:.4f}", f"{17.5 - n / 3:.2f}MB"]
            for n in range(9)]  # fmt: skip
    text = "# All experiments\n\n" + table(["Run", "Layers", "ms/step", "Steps", "val_bpb", "Artifact"], rows)
    block = "```\nstep:500/500 val_loss:3.1000 val_bpb:1.2003 train_time:7763s\nbudget:15670651/16000000 FITS\n```\n"
    return ternary().put("RESULTS.md", text + "\nA run of 50,000 steps, for curiosity:\n\n" + block)


CLEAN_TEXT: dict[str, Callable[[], Folder]] = {
    build.__name__: build
    for build in (
        ablations,
        other_peoples_records,
        seeds_of_another_pr,
        four_digit_log,
        step_average_in_seconds,
        about_values,
        lookalikes,
        windows_lines,
        byte_order_mark,
        escaped_pipes,
        launcher_prefix,
        wrapped_lines,
        source_after_the_block,
        seeds_as_dict,
        seed_scores_list,
        numbers_as_text,
        headline_in_nats,
        summary_without_bytes,
        readme_and_log_only,
        only_seed_results,
        seed_in_summary_only,
        compliance_rerun,
        result_files,
        no_mean_row,
        nulls_in_summary,
        sweep_document,
    )
}
