"""One contradiction in forms that once hid it: sentences, bullets, HTML, columns named by a stage only."""

from __future__ import annotations

from . import clean_forms, clean_more
from .april import april
from .cases import APR, Case, case, cell, row_cell
from .clean_forms import COLUMNS, TRI, bare, bullets
from .folders import Folder, score, seed_table, table
from .model import avg, sd

MEAN = f"{avg(TRI):.4f}"
FORMER = f"{avg(TRI) + 0.0013:.4f}"


# the true folders that are broken here
def called_mean() -> Folder:
    """The title, the headline and the summary call the score the mean of three seeds."""
    text = f"# Gated - {MEAN}\n\n**val_bpb: {MEAN}** (3-seed mean)\n\n"
    return bare(readme=lambda rs: text + seed_table(rs, COLUMNS, mean="")).json(blurb=f"3-seed mean {MEAN}.")


def whole_table() -> Folder:
    text = f"# Gated\n\n**val_bpb: {MEAN}** (3-seed mean, std {sd(TRI):.4f})\n\n"
    return bare(readme=lambda rs: text + seed_table(rs, COLUMNS))


def prose() -> Folder:
    """No table and no list: a sentence has everything."""
    size, params = max(run.total for run in TRI) / 1e6, TRI[0].params / 1e6
    text = f"of {MEAN} bits per byte on the validation set, with {size:.2f} MB at most and {params:.1f}M parameters.\n"
    return bare(readme=lambda rs: "# Gated attention\n\nOver three seeds we reach a mean " + text)


def prose_of_april() -> Folder:
    """The sentence names the stage; the summary gives no seed's score."""
    text = f"# April\n\nPost-quant sliding BPB (3-seed mean): **{avg(APR):.5f}**\n"
    made = april(readme=lambda rs: text, summary=clean_forms.bare_summary)
    return made.json(val_bpb=round(avg(APR), 5), blurb="int6, sliding window")


def april_max() -> Folder:
    return april().json(artifact_bytes_max=max(run.total for run in APR))


def improves_on() -> Folder:
    """A gain over a former record in a sentence."""
    text = f"\nThis improves on the merged SOTA (PR #549, {FORMER} BPB) by {float(FORMER) - avg(TRI):.4f} BPB.\n"
    return bare().add("README.md", text)


def html_table() -> Folder:
    """The seeds in HTML."""
    rows = "".join(f"<tr><td>{r.seed}</td><td>{r.steps:,}</td><td><b>{r.bpb():.4f}</b></td></tr>\n" for r in TRI)
    head = "# Tags\n\n<table>\n<tr><th>seed</th><th>steps</th><th>val_bpb</th></tr>\n"
    return bare(readme=lambda rs: f"{head}{rows}</table>\n\nMean {MEAN}.\n")


def empty_header() -> Folder:
    """One run; names and values under a header without a word."""
    run = TRI[0]
    rows = [
        ["val_bpb (sliding)", f"**{run.bpb():.4f}**"],
        ["artifact", f"{run.total:,} B"],
        ["steps", f"{run.steps:,}"],
    ]
    made = bare(runs=[run], readme=lambda rs: "# Nameless\n\n" + table(["", ""], rows))
    return made.json(val_bpb=run.bpb(), seeds=[run.seed])


def named_by_stage() -> Folder:
    """The columns say the stage and no metric."""
    columns = [score("Quantized", "roundtrip"), score("Sliding", "sliding")]
    return bare(readme=lambda rs: f"# Stages - {MEAN}\n\n" + seed_table(rs, columns))


def seeds_listed() -> Folder:
    """A list of the seeds, no table."""
    listed = ", ".join(str(run.seed) for run in TRI)
    text = f"# Gated attention\n\n- Seeds: {listed}\n- val_bpb: {MEAN} (mean)\n"
    return bare(readme=lambda rs: text)


def average_row() -> Folder:
    """The row of means has another name."""
    return bare(readme=lambda rs: f"# Means - {MEAN}\n\n" + seed_table(rs, COLUMNS, mean="3-seed avg"))


# changes
def best_as_mean(folder: Folder) -> Folder:
    best = min(run.bpb() for run in TRI)
    old, new = (f"# Gated - {x}\n\n**val_bpb: {x}**" for x in (MEAN, f"{best:.4f}"))
    return folder.sub("README.md", old, new).json(val_bpb=round(best, 4), blurb=f"3-seed mean {best:.4f}.")


def stale_table(folder: Folder) -> Folder:
    """Headline and table are of older runs, and agree with each other; logs and summary are of the new ones."""
    old = [clean_forms.shift(r, 0.0018, steps=r.steps - 138 - n, model=r.model + 43_117) for n, r in enumerate(TRI)]
    new = f"# Gated\n\n**val_bpb: {avg(old):.4f}** (3-seed mean, std {sd(old):.4f})\n\n"
    return folder.put("README.md", new + seed_table(old, COLUMNS))


def before_quantisation(folder: Folder) -> Folder:
    ema = avg(APR, stage="ema")
    return folder.sub("README.md", f"{avg(APR):.5f}", f"{ema:.5f}").json(val_bpb=round(ema, 5))


def bytes_swapped(folder: Folder) -> Folder:
    one, two = f"{TRI[0].total:,}", f"{TRI[1].total:,}"
    made = folder.sub("README.md", one, "?").sub("README.md", two, one)
    return made.sub("README.md", "?", two)


def lower(folder: Folder, old: float, new: float) -> Folder:
    return folder.sub("README.md", f"{old:.4f}", f"{new:.4f}")


FORMS: list[Case] = [
    case(
        "best_seed_as_mean",
        called_mean,
        best_as_mean,
        "metrics/major",
        "the best seed is called the mean of three",
        also=("stats",),
    ),
    case(
        "stale_headline_and_table",
        whole_table,
        stale_table,
        "metrics/major",
        "the README is of older runs, headline and whole table",
        also=("stats", "steps", "bytes"),
    ),
    case(
        "prose_headline",
        prose,
        lambda f: lower(f, avg(TRI), avg(TRI) - 0.0029),
        "metrics/major",
        "the score in a sentence, bits per byte written out",
        also=("stats",),
    ),
    case(
        "improvement_in_prose",
        improves_on,
        lambda f: f.sub("README.md", f"by {float(FORMER) - avg(TRI):.4f} BPB", "by 0.0071 BPB"),
        "stats/major",
        "the gain over a former record that is named with its score",
        also=("metrics",),
    ),
    case(
        "max_below_a_total",
        april_max,
        lambda f: f.json(artifact_bytes_max=sorted(r.total for r in APR)[1]),
        "bytes/minor",
        "the largest artifact is said to be the second largest",
    ),
    case(
        "bullet_seed",
        bullets,
        lambda f: lower(f, TRI[1].bpb(), TRI[1].bpb() - 0.0009),
        "metrics/minor",
        "one seed's score in a bullet against its log",
    ),
    case("bullet_bytes_swapped", bullets, bytes_swapped, "bytes/minor", "two seeds' bytes swapped in bullets"),
    case(
        "html_cell",
        html_table,
        lambda f: lower(f, TRI[1].bpb(), TRI[1].bpb() - 0.01),
        "metrics/minor",
        "one seed's score in an HTML table",
    ),
    case(
        "html_steps",
        html_table,
        lambda f: f.sub("README.md", f"{TRI[1].steps:,}", f"{TRI[1].steps + 700:,}"),
        "steps/minor",
        "one seed's steps in an HTML table",
    ),
    case(
        "mean_before_quantisation",
        prose_of_april,
        before_quantisation,
        "metrics/major",
        "the headline is the mean before quantisation",
        also=("stats",),
    ),
    case(
        "nameless_score",
        empty_header,
        lambda f: lower(f, TRI[0].bpb(), TRI[0].bpb() - 0.0099),
        "metrics/major",
        "the score under an empty header",
    ),
    case(
        "nameless_steps",
        empty_header,
        lambda f: f.sub("README.md", f"{TRI[0].steps:,}", f"{TRI[0].steps + 360:,}"),
        "steps/minor",
        "the steps under an empty header",
    ),
    case(
        "stage_cell",
        named_by_stage,
        lambda f: cell(f, TRI[1], f"{TRI[1].bpb('roundtrip'):.4f}", f"{TRI[1].bpb('roundtrip') - 0.0017:.4f}"),
        "metrics/minor",
        "a cell of the column Quantized",
    ),
    case(
        "stage_cell_claimed",
        named_by_stage,
        lambda f: cell(f, TRI[1], f"{TRI[1].bpb():.4f}", f"{TRI[1].bpb() - 0.0017:.4f}"),
        "metrics/minor",
        "a cell of the column Sliding",
    ),
    case(
        "stage_mean",
        named_by_stage,
        lambda f: row_cell(
            f, "**Mean**", f"{avg(TRI, stage='roundtrip'):.4f}", f"{avg(TRI, stage='roundtrip') - 0.0008:.4f}"
        ),
        "stats/minor",
        "the mean of the column Quantized",
        also=("metrics",),
    ),
    case(
        "documents_in_part",
        clean_more.whole_documents,
        lambda f: f.sub("train_seed42.log", "val_doc_fraction: 1.0", "val_doc_fraction: 0.25"),
        "data/major",
        "a quarter of the documents was scored",
    ),
    case(
        "listed_seed_not_run",
        seeds_listed,
        lambda f: f.sub("README.md", "2025", "2024"),
        "seeds/minor",
        "README lists a seed that the summary does not and nobody ran",
    ),
    case(
        "average_row_off",
        average_row,
        lambda f: row_cell(f, "3-seed avg", MEAN, f"{avg(TRI) - 0.0013:.4f}"),
        "stats/minor",
        "a mean row by another name against its own rows",
        also=("metrics",),
    ),
]
