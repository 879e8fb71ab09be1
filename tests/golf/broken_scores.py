"""Folders with one false score."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from . import logs
from .april import april, caseops, phased, reevaluated
from .cases import APR, BYTE, CASE, LEG, LONG, ONE, PHA, STAGED, TER, TRI, Case, case, cell, row_cell
from .folders import Folder
from .march import (
    byte,
    legal,
    long,
    plain,
    staged,
    ternary,
    triple,
)
from .model import avg


def lowered(folder: Folder, by: float) -> Folder:
    """The same lie in every place where this single run states its result."""
    bpb, loss = round(STAGED.bpb() - by, 8), round(STAGED.loss() - by * STAGED.tok.scored, 8)
    made = folder.json(val_bpb=bpb, int6_zstd_val_bpb=bpb, val_loss=loss, int6_zstd_val_loss=loss)
    return made.sub("README.md", f"{STAGED.bpb():.4f}", f"{bpb:.4f}", times=2)


def older_log(folder: Folder) -> Folder:
    old = replace(STAGED, stages={stage: round(value + 0.0165, 8) for stage, value in STAGED.stages.items()})
    log = partial(logs.march, tag="int6+zstd", source=logs.SOURCE, roundtrip="final_int6_roundtrip")
    return folder.put("train.log", log(old))


def mean_under_loss() -> Folder:
    return triple(summary=lambda runs: {"name": "Wide MLP", "val_bpb": round(avg(runs), 5)})


def readme_mean(folder: Folder, by: float) -> Folder:
    """Headline, title and mean row of the README, all lower than the seeds allow."""
    old, new = f"{avg(APR):.4f}", f"{avg(APR) - by:.4f}"
    text = folder.text("README.md")
    return folder.put("README.md", text.replace(old, new))


METRICS: list[Case] = [
    case("digits_swapped", plain, lambda f: f.json(val_bpb=1.2701), "metrics/major", "two digits of the score swapped"),
    case(
        "one_digit_wrong",
        ternary,
        lambda f: f.json(val_bpb=round(TER[0].bpb() - 0.003, 4)),
        "metrics/major",
        "a four-digit score, one digit off",
    ),
    case(
        "better_than_log",
        staged,
        lambda f: lowered(f, 0.0105),
        "metrics/major",
        "JSON and README agree on a score that the only log does not reach",
    ),
    case("older_log", staged, older_log, "metrics/major", "the log is of an older, worse run", whole=True),
    case(
        "mean_of_nothing",
        april,
        lambda f: f.json(val_bpb=round(avg(APR) - 0.0009, 8)),
        "metrics/major",
        "the claimed mean follows from no choice of the logged seeds",
        also=("stats",),
    ),
    case(
        "mean_fifth_digit",
        caseops,
        lambda f: f.json(val_bpb=round(avg(CASE) - 0.00006, 5)),
        "metrics/major",
        "six units in the last printed digit below the mean",
        also=("stats",),
    ),
    case(
        "mean_in_readme_too",
        phased,
        lambda f: row_cell(f, "**avg**", f"{avg(PHA):.8f}", f"{avg(PHA) - 0.0011:.8f}").json(
            val_bpb=round(avg(PHA) - 0.0011, 8)
        ),
        "metrics/major",
        "JSON and README carry the same false mean over prefixed logs",
        also=("stats",),
    ),
    case(
        "score_before_quantisation",
        plain,
        lambda f: f.json(val_bpb=ONE.bpb("val"), val_loss=ONE.loss("val")),
        "metrics/major",
        "the headline is the score before quantisation",
    ),
    case(
        "readme_headline",
        april,
        lambda f: readme_mean(f, 0.0021),
        "metrics/major",
        "README headline and mean are lower than the JSON and the logs",
        also=("stats",),
    ),
    case(
        "readme_title_single",
        staged,
        lambda f: f.sub("README.md", f"(val_bpb: {STAGED.bpb():.4f})", f"(val_bpb: {STAGED.bpb() - 0.0042:.4f})"),
        "metrics/major",
        "the README's title says another score than its own list and the JSON",
    ),
    case(
        "byte_score",
        byte,
        lambda f: f.json(val_bpb=round(BYTE.bpb() - 0.02, 8), val_loss=round(BYTE.loss() - 0.01386, 8)),
        "metrics/major",
        "score of a byte model below its log and trailer",
    ),
    case(
        "bpb_under_val_loss",
        mean_under_loss,
        lambda f: f.json(val_loss=round(avg(TRI), 5), drop=["val_bpb"]),
        "metrics/major",
        "bits per byte filed under val_loss, no val_bpb",
    ),
    case(
        "impossible_ratio",
        long,
        lambda f: f.json(val_loss=round(LONG.loss() - 0.031, 4)),
        "metrics/major",
        "loss and bpb cannot come from one evaluation with this tokenizer",
    ),
    case(
        "eval_only_mean",
        reevaluated,
        lambda f: f.json(val_bpb=1.06433),
        "metrics/major",
        "the mean fits neither the training logs nor the disclosed reruns",
        also=("stats",),
    ),
    case(
        "loss_of_another_stage",
        staged,
        lambda f: f.json(val_loss=STAGED.loss("roundtrip")),
        "metrics/minor",
        "val_loss is of the roundtrip, val_bpb of the window",
    ),
    case(
        "loss_mean",
        phased,
        lambda f: f.json(val_loss=round(avg(PHA, "loss") + 0.0006, 8)),
        "metrics/minor",
        "mean loss off by 0.0006 nats",
        also=("stats",),
    ),
    case(
        "readme_loss",
        caseops,
        lambda f: f.sub(
            "README.md", f"val_loss: {avg(CASE, 'loss'):.5f}", f"val_loss: {avg(CASE, 'loss') - 0.00143:.5f}"
        ),
        "metrics/minor",
        "README's loss against JSON and logs",
    ),
    case(
        "readme_cell_window",
        april,
        lambda f: cell(f, APR[1], f"{APR[1].bpb():.4f}", f"{APR[1].bpb() - 0.0013:.4f}"),
        "metrics/minor",
        "one seed's score in the README against its log",
    ),
    case(
        "readme_cell_roundtrip",
        triple,
        lambda f: cell(f, TRI[2], f"{TRI[2].bpb('roundtrip'):.8f}", f"{TRI[2].bpb('roundtrip') - 0.00271:.8f}"),
        "metrics/minor",
        "one seed's roundtrip score in the README against its log",
    ),
    case(
        "readme_cell_ema",
        caseops,
        lambda f: cell(f, CASE[1], f"{CASE[1].bpb('ema'):.5f}", f"{CASE[1].bpb('ema') - 0.00111:.5f}"),
        "metrics/minor",
        "one seed's score before quantisation in the README",
    ),
    case(
        "readme_cell_before_ttt",
        legal,
        lambda f: cell(f, LEG[0], f"{LEG[0].bpb('sliding'):.4f}", f"{LEG[0].bpb('sliding') + 0.0031:.4f}"),
        "metrics/minor",
        "one seed's score before adaptation in the README",
    ),
    case(
        "readme_cell_ternary_val",
        ternary,
        lambda f: cell(f, TER[1], f"{TER[1].bpb('val'):.4f}", f"{TER[1].bpb('val') + 0.0027:.4f}"),
        "metrics/minor",
        "one seed's validation column in the README",
    ),
    case(
        "seed_copied",
        phased,
        lambda f: f.json({"seed_results.1.val_bpb": PHA[0].bpb(), "seed_results.1.val_loss": PHA[0].loss()}),
        "metrics/major",
        "a seed's results are those of another seed",
        also=("seeds",),
    ),
    case(
        "seeds_swapped",
        april,
        lambda f: f.json({"seed_results.42.val_bpb": APR[1].bpb(), "seed_results.314.val_bpb": APR[0].bpb()}),
        "metrics/minor",
        "two seeds' scores swapped",
        also=("seeds",),
    ),
    case(
        "seed_score_wrong",
        caseops,
        lambda f: f.json({"seed_results.0.val_bpb": round(CASE[1].bpb() - 0.00047, 5)}),
        "metrics/minor",
        "one seed's score in the JSON against its log",
    ),
    case(
        "listed_seed_wrong",
        legal,
        lambda f: f.json(
            seed_results=[
                {**e, "val_bpb": round(e["val_bpb"] - 0.0012 * (e["seed"] == 42), 5)}
                for e in f.summary()["seed_results"]
            ]
        ),
        "metrics/minor",
        "one entry of a list of seeds against its log",
    ),
    case(
        "pre_quant_wrong",
        staged,
        lambda f: f.json(pre_quant_val_bpb=round(STAGED.bpb("val") - 0.0062, 4)),
        "metrics/minor",
        "score before quantisation in the JSON against the log",
    ),
    case(
        "roundtrip_mean_wrong",
        triple,
        lambda f: f.json(val_bpb_roundtrip=round(avg(TRI, stage="roundtrip") - 0.0021, 8)),
        "metrics/minor",
        "mean roundtrip score in the JSON",
    ),
    case(
        "before_ttt_mean_wrong",
        legal,
        lambda f: f.json(
            pre_ttt_sliding_mean=round(avg(LEG, stage="sliding") + 0.0024, 5),
            ttt_gain_mean_bpb=round(avg(LEG) - avg(LEG, stage="sliding") - 0.0024, 5),
        ),
        "metrics/minor",
        "mean before adaptation, and with it the gain",
        also=("stats",),
    ),
    case(
        "curve_row",
        staged,
        lambda f: row_cell(f, "4,000", f"{STAGED.curve()[4][3]:.4f}", f"{STAGED.curve()[4][3] - 0.021:.4f}"),
        "metrics/minor",
        "README's training curve against the log at that step",
        also=("steps",),
    ),
    case(
        "curve_end",
        long,
        lambda f: row_cell(f, f"{LONG.steps:,}", f"{LONG.bpb('val'):.2f}", f"{LONG.bpb('val') - 0.03:.2f}"),
        "metrics/minor",
        "the last row of the README's curve against the log",
        also=("steps",),
    ),
]
