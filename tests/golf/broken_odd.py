"""One contradiction in folders that are odd already: the checker has to read past the oddity and still see it."""

from __future__ import annotations

from . import clean, clean_more, clean_text
from .april import reevaluated
from .cases import APR, CASE, LEG, LONG, ONE, PHA, STAGED, TER, TRI, Case, case, cell
from .folders import Folder
from .model import avg


def first_seed_as_dict(folder: Folder) -> Folder:
    return folder.json({"seeds.42.val_bpb": round(TRI[1].bpb() - 0.0017, 8)})


def one_of_scores(folder: Folder) -> Folder:
    return folder.json(seed_scores=[APR[0].bpb(), round(APR[1].bpb() - 0.0015, 8), APR[2].bpb()])


def rerun_cell(folder: Folder) -> Folder:
    run = folder.runs[2]
    return cell(folder, run, f"{run.bpb():.5f}", f"{run.bpb() - 0.00072:.5f}")


def shouting_log(folder: Folder) -> Folder:
    """The last run of three does not fit and says so; the claims are of that run."""
    tail = "WARNING: submission of 16104118 bytes exceeds 16000000\n"
    return folder.add("train.log", tail)


def failed_evaluation_claimed(folder: Folder) -> Folder:
    return folder.json(val_bpb=1.08872, seed_results={**folder.summary()["seed_results"], "42": {"val_bpb": 1.08811}})


def copy_of_other(folder: Folder) -> Folder:
    """train.log, said to be seed 42's extra copy, stays; the log of seed 314 becomes the same run under its name."""
    text = folder.text("train_seed1337.log").replace("  seed: 1337\n", "  seed: 314\n")
    return folder.put("train_seed314.log", text)


def rerun_of_compliance(folder: Folder) -> Folder:
    data = folder.summary()["compliance_rerun"]
    data["seed_results"]["11"]["val_bpb"] = round(data["seed_results"]["11"]["val_bpb"] - 0.0012, 8)
    return folder.json(compliance_rerun=data)


def side_cell(folder: Folder) -> Folder:
    return folder.sub("README.md", f"| {CASE[1].bpb():.5f} |", f"| {CASE[1].bpb() - 0.00081:.5f} |")


def sub_all(folder: Folder, name: str, old: str, new: str) -> Folder:
    return folder.put(name, folder.text(name).replace(old, new))


ODD: list[Case] = [
    case(
        "wrapped_score",
        clean_text.wrapped_lines,
        lambda f: f.json({"seed_results.999.val_bpb": round(APR[2].bpb() - 0.0011, 8)}),
        "metrics/minor",
        "one seed's score; the log is broken at 72 columns",
    ),
    case(
        "wrapped_bytes",
        clean_text.wrapped_lines,
        lambda f: f.json({"seed_results.42.artifact_bytes": APR[0].total - 87_000}),
        "bytes/minor",
        "one seed's bytes; the log is broken at 72 columns",
    ),
    case(
        "prefixed_params",
        clean_text.launcher_prefix,
        lambda f: f.json(model_params=24_140_504),
        "params/major",
        "parameters; the launcher prefixes each line",
    ),
    case(
        "prefixed_seed",
        clean_text.launcher_prefix,
        lambda f: f.json(seed=7),
        "seeds/major",
        "the one seed; the launcher prefixes each line",
    ),
    case(
        "windows_steps",
        clean_text.windows_lines,
        lambda f: f.json(train_steps_mean=10_070),
        "steps/minor",
        "mean steps; Windows line ends",
    ),
    case(
        "marked_total",
        clean_text.byte_order_mark,
        lambda f: sub_all(f, "submission.json", f"{APR[0].total}", "16000101"),
        "bytes/major",
        "a claimed total over the cap behind a byte order mark",
    ),
    case(
        "untagged_total",
        clean.untagged_total_is_final,
        lambda f: f.json(bytes_total=ONE.total - 200_000),
        "bytes/major",
        "the total; the second untagged line is the one that counts",
    ),
    case(
        "block_before_source_seed",
        clean_text.source_after_the_block,
        lambda f: f.sub("train_seed999.log", "  seed: 999\n", "  seed: 1\n"),
        "seeds/major",
        "the seed; the hyperparameters come before the script",
    ),
    case(
        "escaped_cell",
        clean_text.escaped_pipes,
        lambda f: cell(f, TRI[0], f"{TRI[0].bpb('roundtrip'):.5f}", f"{TRI[0].bpb('roundtrip') - 0.0041:.5f}"),
        "metrics/minor",
        "a cell in a table whose header has an escaped pipe",
    ),
    case("sideways_cell", clean_more.table_on_its_side, side_cell, "metrics/minor", "a cell; seeds are columns"),
    case("dict_of_seeds", clean_text.seeds_as_dict, first_seed_as_dict, "metrics/minor", "a score in seeds -> metrics"),
    case("list_of_scores", clean_text.seed_scores_list, one_of_scores, "metrics/minor", "a score in seed_scores"),
    case(
        "number_as_text",
        clean_text.numbers_as_text,
        lambda f: f.json(bytes_total=f"{ONE.total - 130_000:,}"),
        "bytes/major",
        "a total written as text with commas",
    ),
    case(
        "nats_delta",
        clean_text.headline_in_nats,
        lambda f: f.json(delta_vs_pr1179_nats=round(avg(APR) - 1.09525, 5)),
        "stats/minor",
        "a difference in nats that is the one in bits",
        also=("metrics",),
    ),
    case(
        "nats_mean",
        clean_text.headline_in_nats,
        lambda f: f.json(mean_val_loss_nats=round(avg(APR, "loss") - 0.0061, 5)),
        "metrics/major",
        "the headline in nats against the logs",
        also=("stats",),
    ),
    case(
        "last_of_three_runs",
        clean.three_runs_in_one_log,
        lambda f: f.json(bytes_total=STAGED.total + 190_000),
        "bytes/major",
        "the total fits none of the three runs in the log",
    ),
    case("last_run_exceeds", clean.three_runs_in_one_log, shouting_log, "bytes/major", "the log's last line complains"),
    case(
        "score_near_failed_evaluation",
        clean.failed_evaluation_last,
        failed_evaluation_claimed,
        "metrics/major",
        "neither the windowed score nor the failed one",
        also=("stats",),
    ),
    case(
        "copied_log",
        clean.identical_log_copy,
        copy_of_other,
        "seeds/major",
        "a log reused under a third seed",
        also=("metrics",),
        whole=True,
    ),
    case("rerun_cell", reevaluated, rerun_cell, "metrics/minor", "a README cell against its disclosed rerun"),
    case(
        "compliance_seed",
        clean_text.compliance_rerun,
        rerun_of_compliance,
        "metrics/minor",
        "a score of the second set",
    ),
    case(
        "alias_size",
        clean_more.aliases_of_one_run,
        lambda f: f.json(artifact_size_bytes=STAGED.total - 310_000),
        "bytes/major",
        "artifact_size_bytes against the log",
    ),
    case(
        "alias_code",
        clean_more.aliases_of_one_run,
        lambda f: f.json(code_bytes=58_000),
        "bytes/major",
        "code_bytes against file and log",
    ),
    case(
        "alias_steps",
        clean_more.aliases_of_one_run,
        lambda f: f.json(train_steps=STAGED.steps + 512),
        "steps/minor",
        "train_steps against the log",
    ),
    case(
        "alias_standard",
        clean_more.aliases_of_one_run,
        lambda f: f.json(post_quant_standard_val_bpb=round(STAGED.bpb("roundtrip") - 0.009, 8)),
        "metrics/minor",
        "post_quant_standard_val_bpb against the log",
    ),
    case(
        "alias_mean",
        clean_more.aliases_of_three_runs,
        lambda f: f.json(mean_bpb=round(avg(LEG) - 0.0019, 6)),
        "metrics/major",
        "mean_bpb against the logs",
        also=("stats",),
    ),
    case(
        "alias_roundtrip",
        clean_more.aliases_of_three_runs,
        lambda f: f.json(quant_roundtrip_mean_bpb=round(avg(LEG, stage="roundtrip") - 0.0033, 6)),
        "metrics/minor",
        "quant_roundtrip_mean_bpb against the logs",
    ),
    case(
        "alias_train_time",
        clean_more.aliases_of_three_runs,
        lambda f: f.json({"seeds.42.train_time_ms": 571_300}),
        "time/minor",
        "train_time_ms of one seed",
    ),
    case(
        "binary_total",
        clean_more.binary_weights,
        lambda f: f.json(bytes_total=TER[0].total - 92_000),
        "bytes/major",
        "total in submission_binary.json",
    ),
    case(
        "no_summary_readme_score",
        clean_text.readme_and_log_only,
        lambda f: sub_all(f, "README.md", f"{STAGED.bpb():.4f}", f"{STAGED.bpb() - 0.0127:.4f}"),
        "metrics/major",
        "no JSON; the README's headline against the log",
    ),
    case(
        "no_summary_readme_size",
        clean_text.readme_and_log_only,
        lambda f: f.sub("README.md", f"{STAGED.total:,}", f"{STAGED.total - 400_000:,}"),
        "bytes/minor",
        "no JSON; the README's size against the log",
    ),
    case(
        "no_summary_bytes_readme_cell",
        clean_text.summary_without_bytes,
        lambda f: cell(f, PHA[0], f"{PHA[0].total:,} B", f"{PHA[0].total - 61_000:,} B"),
        "bytes/minor",
        "no bytes in the JSON; the README's cell against the log",
    ),
    case(
        "resumed_wallclock",
        clean.resumed_run,
        lambda f: f.json(wallclock_seconds=LONG.train_ms // 1000 - 7_381),
        "time/minor",
        "wall clock without the part before the checkpoint",
    ),
    case(
        "own_clock_fails",
        clean_more.own_clock_passes,
        lambda f: f.sub("train_seed42.log", "588.284s", "618.284s"),
        "time/major",
        "the log's own limit of 600 s is passed",
    ),
    case(
        "limit_switched_on",
        clean_more.limits_switched_off,
        lambda f: f.sub("ternary_log_7.txt", "val_max_tokens=0", "val_max_tokens=2097152"),
        "data/major",
        "one seed was scored on part of the tokens",
    ),
    case(
        "one_seed_fewer_tokens",
        clean_text.source_after_the_block,
        lambda f: f.sub("train_seed314.log", "val_tokens: 45508608", "val_tokens: 11377152"),
        "data/major",
        "one of three seeds was scored on a quarter of the tokens",
    ),
]
