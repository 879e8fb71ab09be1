"""Folders with one false statistic: mean, deviation, difference, test."""

from __future__ import annotations

from .april import april, caseops, phased
from .cases import APR, CASE, PHA, TRI, Case, case, row_cell
from .clean import lora_without_seeds
from .folders import Folder, seed_table
from .march import (
    BASELINE_BPB,
    BASELINE_LOSS,
    legal,
    triple,
)
from .model import avg, sd


def weak_test() -> Folder:
    """A gain so small that three seeds cannot show it; t and p say so."""
    gain = 0.0003
    t = gain / (sd(TRI, "loss") / 3**0.5)
    p = 0.5 - t / (2 * (2 + t * t) ** 0.5)
    base = {"base_val_bpb": round(avg(TRI) + gain / 1.68845, 6), "base_val_loss": round(avg(TRI, "loss") + gain, 6)}
    made = triple().json(**base, delta_vs_base_bpb=round(-gain / 1.68845, 5), delta_vs_base_loss_nats=-gain)
    made = made.json(t_statistic=round(t, 2), p_value=round(p, 3))
    text = (
        "# A small step\n\n" + seed_table(TRI, [], mean="") + f"\nOne-sided t-test, t = {t:.2f}, p = {p:.3f} (df=2).\n"
    )
    return made.put("README.md", text)


def small_gain() -> Folder:
    """As in the plain one, but the former record is closer: less than 0.005 nats."""
    made = caseops().sub("README.md", f"{avg(CASE) - 1.06766:+.5f} BPB", f"{avg(CASE) - 1.06731:+.5f} BPB")
    old, new = avg(CASE, "loss") - 2.33641, avg(CASE, "loss") - 2.33566
    return made.sub("README.md", f"{old:+.5f} nats; theirs: 1.06766 bpb, 2.33641 nats",
                    f"{new:+.5f} nats; theirs: 1.06731 bpb, 2.33566 nats")  # fmt: skip


LISTED = f"- mean: {avg(lora_without_seeds().runs):.4f}"
STATS: list[Case] = [
    case(
        "deviation",
        phased,
        lambda f: f.json(val_bpb_std=round(sd(PHA) * 2.31, 8)),
        "stats/minor",
        "neither sample nor population deviation",
    ),
    case(
        "deviation_of_loss",
        caseops,
        lambda f: f.json(val_loss_std=round(sd(CASE, "loss") * 1.9, 5)),
        "stats/minor",
        "deviation of the loss not derivable",
    ),
    case(
        "deviation_too_small",
        triple,
        lambda f: f.json(val_bpb_std=0.00004),
        "stats/minor",
        "a spread four times smaller than the seeds have",
    ),
    case(
        "readme_deviation_cell",
        triple,
        lambda f: row_cell(f, "**Std**", f"{sd(TRI, stage='sliding'):.8f}", "0.00051234"),
        "stats/minor",
        "the README's deviation row",
    ),
    case(
        "readme_deviation_headline",
        caseops,
        lambda f: f.sub("README.md", f"(3-seed mean, std={sd(CASE):.5f})", "(3-seed mean, std=0.00061)"),
        "stats/minor",
        "the deviation in the README's headline",
    ),
    case(
        "delta_to_former",
        april,
        lambda f: f.json(delta_vs_pr1019_bpb=round(avg(APR) - 1.11473 - 0.01, 5)),
        "stats/minor",
        "difference to the former record against both scores",
    ),
    case(
        "delta_of_loss",
        triple,
        lambda f: f.json(delta_vs_base_loss_nats=round(avg(TRI) - BASELINE_BPB, 5)),
        "stats/minor",
        "a difference in nats that is the one in bits per byte",
    ),
    case(
        "delta_crosses_the_bar",
        small_gain,
        lambda f: f.sub("README.md", f"{avg(CASE, 'loss') - 2.33566:+.5f} nats", "-0.00533 nats"),
        "stats/major",
        "the gain in nats is said to pass 0.005; both scores and the gain in bits say that it does not",
    ),
    case(
        "readme_delta",
        april,
        lambda f: f.sub("README.md", f"{avg(APR) - 1.11473:+.4f} BPB", "-0.0335 BPB"),
        "stats/minor",
        "README's difference to the former record",
    ),
    case(
        "readme_delta_table",
        phased,
        lambda f: f.sub("README.md", f"{round(avg(PHA), 8) - 1.07536388:.8f}", "-0.00255760"),
        "stats/minor",
        "README's table of differences",
    ),
    case(
        "readme_gain_nats",
        triple,
        lambda f: f.sub("README.md", f"{BASELINE_LOSS - avg(TRI, 'loss'):.4f} nats", "0.1740 nats"),
        "stats/minor",
        "README's gain in nats over the baseline",
    ),
    case(
        "t_statistic",
        triple,
        lambda f: f.json(t_statistic=313.20),
        "stats/minor",
        "t against the mean, deviation and baseline given",
    ),
    case(
        "p_value",
        weak_test,
        lambda f: f.json(p_value="<0.001"),
        "stats/major",
        "p-value against the t and n given; it decides whether the gain counts",
    ),
    case(
        "gain_of_ttt",
        legal,
        lambda f: f.json(ttt_gain_mean_bpb=-0.0061),
        "stats/minor",
        "the gain is not the difference of the two means given",
        also=("metrics",),
    ),
    case(
        "mean_row",
        april,
        lambda f: row_cell(f, "**Mean**", f"{avg(APR):.4f}", f"{avg(APR) - 0.0014:.4f}"),
        "stats/minor",
        "the README's mean row against its own rows",
        also=("metrics",),
    ),
    case(
        "mean_of_list",
        lora_without_seeds,
        lambda f: f.sub("README.md", LISTED, "- mean: 1.1918"),
        "stats/minor",
        "the README's mean against its own list",
        also=("metrics",),
    ),
]
