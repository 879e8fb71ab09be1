"""Plain true folders in the dialects of March, one of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import mean
from typing import Any

from . import logs
from .folders import NON_RECORD, SIZE, STEP_MS, STEPS, Column, Folder, folder, headline, score, seed_table, table
from .model import BYTES, LEGAL, OWN8192, ROUNDTRIP, SLIDING, SP1024, Run, avg, make_runs, sd

BASELINE_BPB, BASELINE_LOSS = 1.2243657, 2.07269931


def who(name: str, **more: Any) -> dict[str, Any]:
    return {"author": "Ada Example", "github_id": "ada-example", "name": name, "date": "2026-04-01", **more}


# one run, March: bullets in the README, four numbers in the JSON
def plain_runs() -> list[Run]:
    return make_runs([1337], SP1024, 1.2071, gaps=ROUNDTRIP, steps=13_104, code=47_911, model=15_801_300,
                     params=17_059_912)  # fmt: skip


def plain_summary(runs: Sequence[Run]) -> dict[str, Any]:
    run = runs[0]
    return who("Narrow keys", val_loss=run.loss(), val_bpb=run.bpb(), bytes_total=run.total, bytes_code=run.code)


def plain_readme(runs: Sequence[Run]) -> str:
    run = runs[0]
    return f"""# Narrow keys, wide values

Keys use half the width of values; the freed bytes pay for one more block.

Key metrics (from `train.log`):
- Stopped by the clock at `{run.steps}/{run.max_steps}` steps
- Before quantisation: `val_loss:{run.loss("val"):.4f}`, `val_bpb:{run.bpb("val"):.4f}`
- After the int8+zlib roundtrip: `val_loss:{run.loss():.4f}`, `val_bpb:{run.bpb():.4f}`
- Exact line: `final_int8_zlib_roundtrip_exact val_bpb:{run.bpb():.8f}`
- Train time: `{run.train_ms}ms` (`step_avg:{run.step_ms:.2f}ms`)
- Model parameters: {run.params:,}
- Serialized model int8+zlib: `{run.model} bytes`
- Code size: `{run.code} bytes`
- Total submission size int8+zlib: `{run.total} bytes`
"""


def plain(**change: Any) -> Folder:
    given: dict[str, Any] = {"log": logs.march, "summary": plain_summary, "readme": plain_readme, "name": "train.log"}
    return folder(change.pop("runs", plain_runs()), **{**given, **change})


# one run with every stage in the JSON
def staged_runs() -> list[Run]:
    return make_runs([1337], SP1024, 1.1289, code=66_402, model=15_801_300)


def staged_summary(runs: Sequence[Run]) -> dict[str, Any]:
    run = runs[0]
    return who(
        "Eleven layers, late averaging",
        val_loss=run.loss(),
        val_bpb=run.bpb(),
        pre_quant_val_loss=round(run.loss("val"), 4),
        pre_quant_val_bpb=round(run.bpb("val"), 4),
        int6_zstd_val_loss=run.loss(),
        int6_zstd_val_bpb=run.bpb(),
        bytes_total=run.total,
        bytes_model_int6_zstd=run.model,
        bytes_code=run.code,
        model_params=run.params,
        step_stop=run.steps,
        wallclock_seconds=round(run.train_ms / 1000, 3),
        eval_time_seconds=round(run.eval_ms["sliding"] / 1000, 1),
        seed=run.seed,
    )


def staged_readme(runs: Sequence[Run]) -> str:
    run = runs[0]
    curve = [[f"{s:,}", f"{b:.4f}"] for s, _, _, b in run.curve()[1:]]
    return f"""# Eleven layers, late averaging (val_bpb: {run.bpb():.4f})

## Results
- **val_bpb: {run.bpb():.4f}** (sliding window, stride=64)
- Pre-quantization BPB: {run.bpb("val"):.4f}
- Model parameters: {run.params:,}
- Artifact size: {run.total:,} bytes (under the 16MB limit)
- Training: {run.steps:,} steps in 600 seconds (~{run.step_ms:.0f}ms/step)

## Training curve

{table(["Step", "val_bpb"], curve)}
"""


def staged(**change: Any) -> Folder:
    given: dict[str, Any] = {
        "log": partial(logs.march, tag="int6+zstd", source=logs.SOURCE, roundtrip="final_int6_roundtrip"),
        "summary": staged_summary,
        "readme": staged_readme,
        "name": "train.log",
    }
    return folder(change.pop("runs", staged_runs()), **{**given, **change})


# three seeds, March, with a test against the baseline
def triple_runs(seeds: Sequence[int] = (1337, 42, 2025)) -> list[Run]:
    return make_runs(seeds, SP1024, 1.1421, code=60_118, model=15_402_300, params=26_501_720, steps=9_871)


def triple_summary(runs: Sequence[Run]) -> dict[str, Any]:
    gain = BASELINE_LOSS - avg(runs, "loss")
    return who(
        "Wide MLP, int6",
        val_bpb=round(avg(runs), 8),
        val_bpb_roundtrip=round(avg(runs, stage="roundtrip"), 8),
        val_loss_sliding=round(avg(runs, "loss"), 8),
        val_loss_roundtrip=round(avg(runs, "loss", "roundtrip"), 8),
        val_bpb_std=round(sd(runs), 5),
        val_loss_std=round(sd(runs, "loss"), 5),
        n_seeds=len(runs),
        seeds=[run.seed for run in runs],
        t_statistic=round(gain / (sd(runs, "loss") / len(runs) ** 0.5), 2),
        p_value="<0.001",
        delta_vs_base_bpb=round(avg(runs) - BASELINE_BPB, 5),
        delta_vs_base_loss_nats=round(-gain, 5),
        base_val_bpb=BASELINE_BPB,
        base_val_loss=BASELINE_LOSS,
        artifact_bytes_mean=round(mean(run.total for run in runs)),
        artifact_bytes_max=max(run.total for run in runs),
        bytes_code=runs[0].code,
        model_params=runs[0].params,
        train_steps_mean=round(mean(run.steps for run in runs)),
        train_time_seconds=600,
        step_avg_ms=round(mean(run.step_ms for run in runs), 1),
    )


def triple_readme(runs: Sequence[Run]) -> str:
    columns = [
        score("slide_loss (nats)", "sliding", 8, "loss"),
        score("slide_bpb", "sliding", 8),
        score("rt_bpb", "roundtrip", 8),
        STEPS,
        SIZE,
    ]
    gain = BASELINE_LOSS - avg(runs, "loss")
    return f"""# Wide MLP with int6 weights

{headline(runs)}
## Seeds

{seed_table(runs, columns, std="**Std**")}
- **Mean improvement: {gain:.4f} nats** over the baseline ({BASELINE_LOSS:.4f})
- {runs[0].params / 1e6:.1f}M parameters, int6 with zstd-22
"""


def triple(**change: Any) -> Folder:
    log = partial(logs.march, tag="int6+zstd", total_tag="int8+zlib", source=logs.SOURCE, stride_first=True)
    given: dict[str, Any] = {"log": log, "summary": triple_summary, "readme": triple_readme}
    return folder(change.pop("runs", triple_runs()), **{**given, **change})


# three seeds, ternary weights: few lines, four digits, sizes in MB
def ternary_runs() -> list[Run]:
    return make_runs([42, 1337, 7], OWN8192, 1.1561, gaps={**SLIDING, "val": 0.0251, "roundtrip": 0.0272},
                     steps=6_530, train_ms=599_640, code=70_902, model=15_910_300, params=73_685_840,
                     max_steps=10_000)  # fmt: skip


def ternary_summary(runs: Sequence[Run]) -> dict[str, Any]:
    run = runs[0]
    return who("Ternary U-Net", val_loss=round(run.loss(), 4), val_bpb=round(run.bpb(), 4), bytes_total=run.total,
               bytes_code=run.code, blurb=f"Seed 42 of three; the mean is {avg(runs):.4f}.")  # fmt: skip


def ternary_readme(runs: Sequence[Run]) -> str:
    columns = [
        STEPS,
        STEP_MS,
        score("Sliding BPB (s16)"),
        score("val_bpb", "val"),
        score("RT bpb", "roundtrip"),
        Column("Artifact", SIZE.value, "{:,} bytes"),
    ]
    return f"# Ternary U-Net\n\n{headline(runs)}\n{seed_table(runs, columns)}\n73.7M parameters, 10 layers.\n"


def ternary(**change: Any) -> Folder:
    given: dict[str, Any] = {
        "log": logs.ternary,
        "summary": ternary_summary,
        "readme": ternary_readme,
        "name": "ternary_log_{seed}.txt",
        "code": "train_gpt_cuda_ternary.py",
    }
    made = folder(change.pop("runs", ternary_runs()), **{**given, **change})
    return made.put("own_8192.model", b"m" * 370_900)


# three seeds, legal adaptation: score before and after
def legal_runs(seeds: Sequence[int] = (1337, 42, 2025)) -> list[Run]:
    return make_runs(seeds, SP1024, 1.1203, gaps=LEGAL, steps=7_180, code=89_459, model=15_841_300, params=26_993_756)


def legal_summary(runs: Sequence[Run]) -> dict[str, Any]:
    gain = avg(runs, stage="ttt") - avg(runs, stage="sliding")
    each = [{"seed": r.seed, "val_bpb": round(r.bpb(), 5), "pre_ttt_val_bpb": round(r.bpb("sliding"), 5),
             "bytes_total": r.total, "steps": r.steps} for r in runs]  # fmt: skip
    return who(
        "Legal adaptation",
        mean_val_bpb=round(avg(runs), 5),
        std_bpb=round(sd(runs), 5),
        mean_val_loss=round(avg(runs, "loss"), 5),
        pre_ttt_sliding_mean=round(avg(runs, stage="sliding"), 5),
        ttt_gain_mean_bpb=round(gain, 5),
        seed_results=each,
        bytes_total=max(run.total for run in runs),
        hardware="8xH100 SXM",
    )


def legal_readme(runs: Sequence[Run]) -> str:
    columns = [
        STEP_MS,
        STEPS,
        score("Pre-TTT bpb", "sliding"),
        score("**Post-TTT bpb**", "ttt"),
        Column("TTT time", lambda r: r.eval_ms["ttt"] / 1000, "{:.0f}s"),
        SIZE,
    ]
    return f"# Legal adaptation\n\n{headline(runs)}\n{seed_table(runs, columns)}\n"


def legal(**change: Any) -> Folder:
    log = partial(logs.march, tag="int6+lzma", roundtrip="final_int6_roundtrip", sliding="final_int6_sliding_window")
    given: dict[str, Any] = {"log": log, "summary": legal_summary, "readme": legal_readme}
    return folder(change.pop("runs", legal_runs()), **{**given, **change})


# not for the main track: one card, days of training
def long_runs() -> list[Run]:
    return make_runs([7], SP1024, 1.2311, gaps={"val": -0.0263, "roundtrip": 0.0}, steps=59_990, train_ms=88_562_100,
                     code=71_525, model=15_371_300, params=23_839_044, max_steps=60_000, curve_every=10_000,
                     wall=0.0)  # fmt: skip


def long_summary(runs: Sequence[Run]) -> dict[str, Any]:
    run = runs[0]
    return who(
        "Smooth depth",
        track="non_record_16mb",
        val_loss=round(run.loss(), 4),
        val_bpb=round(run.bpb(), 4),
        pre_quant_val_loss=round(run.loss("val"), 4),
        pre_quant_val_bpb=round(run.bpb("val"), 4),
        step_stop=run.steps,
        wallclock_seconds=run.train_ms // 1000,
        bytes_total=run.total,
        bytes_model_compressed=run.model,
        bytes_code=run.code,
        gpu="1xRTX5090",
    )


def long_readme(runs: Sequence[Run]) -> str:
    run = runs[0]
    curve = [[f"{s:,}", f"{b:.2f}"] for s, _, _, b in run.curve()[1:]]
    return f"""# Smooth depth

| Metric | Value |
|---|---|
| Pre-quantization val_bpb | {run.bpb("val"):.4f} |
| Post-quantization val_bpb (INT7+zlib) | {run.bpb():.4f} |
| Compressed size with code | {run.total / 1e6:.2f} MB |
| Training | {run.steps / 1000:.0f}k steps, 1x RTX 5090 (~{run.train_ms / 3.6e6:.0f}h) |

## Training curve

{table(["Step", "val_bpb"], curve)}
## Experiments

| Config | Steps | val_bpb | Takeaway |
|---|---|---|---|
| dim=256, 8L | 3,000 | 1.67 | works |
| dim=640, 24L | 30,000 | 1.214 | 18.4 MB, too big |
"""


def long(**change: Any) -> Folder:
    given: dict[str, Any] = {
        "log": logs.legendre,
        "summary": long_summary,
        "readme": long_readme,
        "name": "train.log",
        "code": "train_gpt_smooth.py",
        "track": NON_RECORD,
    }
    return folder(change.pop("runs", long_runs()), **{**given, **change})


# a model over bytes
def byte_runs() -> list[Run]:
    return make_runs([42], BYTES, 1.1893, steps=6_010, train_ms=599_010, code=77_120, model=15_671_300,
                     params=42_909_288)  # fmt: skip


def byte_readme(runs: Sequence[Run]) -> str:
    run = runs[0]
    return (
        f"# Bytes only\n\nval_bpb **{run.bpb():.4f}**, {run.total:,} bytes in all, "
        f"{run.params / 1e6:.1f}M parameters, {run.steps:,} steps.\n"
    )


def byte(**change: Any) -> Folder:
    given: dict[str, Any] = {
        "log": logs.trailer,
        "summary": plain_summary,
        "readme": byte_readme,
        "name": "train.log",
        "json_name": "submission_jepa.json",
    }
    return folder(change.pop("runs", byte_runs()), **{**given, **change})
