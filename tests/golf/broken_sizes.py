"""Folders with one false count of bytes or parameters, or one file that is not what it must be."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from statistics import mean

from . import logs
from .april import april, caseops, phased
from .cases import APR, BYTE, CASE, LONG, ONE, PHA, STAGED, TER, TRI, Case, case, cell
from .clean import max_bytes_claimed
from .folders import Folder
from .march import byte, long, plain, staged, ternary, triple
from .model import CAP


def sizes_not_logged() -> Folder:
    """A log that prints no sizes: only the arithmetic of the summary can be checked."""
    lines = staged().text("train.log").splitlines()
    kept = [line for line in lines if not line.startswith(("Serialized", "Code size", "Total submission"))]
    return staged().put("train.log", "\n".join(kept) + "\n")


def heavy(seeds: tuple[int, ...]) -> Folder:
    """April, with a model that does not fit for the given seeds; every number says so."""
    return april(runs=[replace(run, model=CAP - run.code + 313) if run.seed in seeds else run for run in APR])


def total_is_model(folder: Folder) -> Folder:
    """Log, JSON and README give the compressed model as the total."""
    run = APR[1]
    made = folder.sub("train_seed314.log", f"size int6+brotli: {run.total}", f"size int6+brotli: {run.model}")
    made = made.json({"seed_results.314.artifact_bytes": run.model})
    return cell(made, run, f"{run.total:,}", f"{run.model:,}")


def swapped_bytes(folder: Folder) -> Folder:
    return folder.json({"seed_results.0.artifact_bytes": PHA[1].total, "seed_results.1.artifact_bytes": PHA[0].total})


def over_budget(folder: Folder) -> Folder:
    run = TER[0]
    old = f"budget:{run.total}/{CAP} ({run.total / 1e6:.2f}/16.00MB) FITS"
    return folder.sub("ternary_log_42.txt", old, f"budget:16012345/{CAP} (16.01/16.00MB) OVER")


BYTES = [
    case(
        "total_against_log",
        plain,
        lambda f: f.json(bytes_total=ONE.total - 110_357),
        "bytes/major",
        "claimed total against the logged total",
    ),
    case(
        "total_placeholder",
        max_bytes_claimed,
        lambda f: f.json(bytes_total=15_900_000),
        "bytes/major",
        "a round number that fits no seed",
    ),
    case(
        "total_without_code",
        plain,
        lambda f: f.json(bytes_total=ONE.model),
        "bytes/major",
        "the total is the compressed model alone",
    ),
    case(
        "log_total_without_code",
        april,
        total_is_model,
        "bytes/major",
        "in one seed log, JSON and README leave the code out of the total",
    ),
    case(
        "total_of_ternary",
        ternary,
        lambda f: f.json(bytes_total=TER[0].total - 54_020),
        "bytes/major",
        "claimed total against the budget lines",
    ),
    case(
        "total_of_byte_model",
        byte,
        lambda f: f.json(bytes_total=BYTE.total - 250_000),
        "bytes/major",
        "claimed total against the trailer",
    ),
    case(
        "over_the_cap",
        april,
        lambda f: heavy((42, 314, 999)),
        "bytes/major",
        "all three seeds 313 bytes over the cap",
        whole=True,
    ),
    case("one_seed_over_the_cap", april, lambda f: heavy((314,)), "bytes/major", "one seed over the cap", whole=True),
    case(
        "parts_do_not_add_up",
        sizes_not_logged,
        lambda f: f.json(bytes_total=STAGED.total - 47_000),
        "bytes/major",
        "total is not model plus code, and no log prints sizes",
    ),
    case(
        "code_placeholder",
        staged,
        lambda f: f.json(bytes_code=65_000),
        "bytes/major",
        "a round number for the code, against file and log",
    ),
    case(
        "shipped_code_longer",
        plain,
        lambda f: f.put("train_gpt.py", b"#" * (ONE.code + 1_055)),
        "bytes/major",
        "the shipped script is longer than claimed and logged",
    ),
    case(
        "shipped_code_other",
        triple,
        lambda f: f.put("train_gpt.py", b"#" * 41_007),
        "bytes/major",
        "the shipped script is not the one that was counted",
    ),
    case("self_over", ternary, over_budget, "bytes/major", "the log itself says OVER"),
    case(
        "self_exceeds",
        april,
        lambda f: f.add("train_seed999.log", "ERROR: artifact 16004211 bytes exceeds the limit of 16000000 bytes\n"),
        "bytes/major",
        "the log ends with its own complaint about the size",
    ),
    case(
        "self_no",
        long,
        lambda f: f.sub("train.log", f"budget: YES ({LONG.total / 1e6:.2f} MB)", "budget: NO (16.44 MB)"),
        "bytes/major",
        "the log says that the budget is not kept",
    ),
    case(
        "code_in_readme",
        plain,
        lambda f: f.sub("README.md", f"Code size: `{ONE.code} bytes`", "Code size: `45876 bytes`"),
        "bytes/minor",
        "README's code bytes against JSON, file and log",
    ),
    case(
        "model_against_log",
        staged,
        lambda f: f.json(bytes_model_int6_zstd=STAGED.model + 1_402),
        "bytes/minor",
        "compressed model in the JSON against the log",
    ),
    case(
        "model_of_long",
        long,
        lambda f: f.json(bytes_model_compressed=LONG.model - 91_220),
        "bytes/minor",
        "compressed model in the JSON against the one-line sizes",
    ),
    case(
        "seed_bytes",
        april,
        lambda f: f.json({"seed_results.314.artifact_bytes": APR[1].total - 54_321}),
        "bytes/minor",
        "one seed's bytes in the JSON against its log",
    ),
    case("seed_bytes_swapped", phased, swapped_bytes, "bytes/minor", "two seeds' bytes swapped"),
    case(
        "readme_cell_bytes",
        triple,
        lambda f: cell(f, TRI[1], f"{TRI[1].total:,}", f"{TRI[1].total - 120_000:,}"),
        "bytes/minor",
        "one seed's bytes in the README against its log",
    ),
    case(
        "readme_cell_about",
        caseops,
        lambda f: cell(f, CASE[2], f"{CASE[2].total:,}", "~15.7M"),
        "bytes/minor",
        "an approximate cell that is off by more than its digits",
    ),
    case(
        "readme_megabytes",
        ternary,
        lambda f: f.sub("README.md", f"{max(r.total for r in TER) / 1e6:.2f} MB", "15.49 MB"),
        "bytes/minor",
        "README's MB fit neither 10^6 nor 2^20",
    ),
    case(
        "bytes_mean",
        triple,
        lambda f: f.json(artifact_bytes_mean=round(mean(r.total for r in TRI)) - 61_000),
        "bytes/minor",
        "mean bytes over the seeds",
    ),
    case(
        "bytes_max",
        caseops,
        lambda f: f.json(artifact_bytes_max=max(r.total for r in CASE) - 9_771),
        "bytes/minor",
        "largest bytes over the seeds",
    ),
    case(
        "readme_total",
        plain,
        lambda f: f.sub(
            "README.md", f"size int8+zlib: `{ONE.total} bytes`", f"size int8+zlib: `{ONE.total - 70_000} bytes`"
        ),
        "bytes/minor",
        "README's total against JSON and log",
    ),
]

PARAMS = [
    case(
        "params_of_another_model",
        staged,
        lambda f: f.json(model_params=21_778_504),
        "params/major",
        "parameters in the JSON against the log",
    ),
    case(
        "params_of_triple",
        triple,
        lambda f: f.json(model_params=29_761_112),
        "params/major",
        "parameters in the JSON against three logs",
    ),
    case(
        "params_in_readme",
        plain,
        lambda f: f.sub("README.md", f"{ONE.params:,}", "18,900,120"),
        "params/major",
        "parameters in the README against the log",
    ),
    case(
        "params_in_millions",
        ternary,
        lambda f: f.sub("README.md", "73.7M parameters", "64.5M parameters"),
        "params/major",
        "README's millions against the log",
    ),
]


def other_params_log(folder: Folder) -> Folder:
    log = partial(logs.march, tag="int6+zstd", total_tag="int8+zlib", source=logs.SOURCE, stride_first=True)
    text = log(TRI[1]).replace(f"model_params:{TRI[1].params}", "model_params:24140504")
    return folder.put("train_seed42.log", text)


FILES = [
    case(
        "script_empty",
        plain,
        lambda f: f.put("train_gpt.py", b""),
        "files/major",
        "a script of 0 bytes",
        also=("bytes",),
    ),
    case(
        "script_empty_no_claim",
        april,
        lambda f: f.put("train_gpt.py", b""),
        "files/major",
        "a script of 0 bytes where no code bytes are claimed",
        also=("bytes",),
    ),
    case(
        "summary_cut",
        phased,
        lambda f: f.put("submission.json", f.files["submission.json"][:-40]),
        "files/major",
        "a summary that ends in the middle",
    ),
    case("summary_empty", april, lambda f: f.put("submission.json", b""), "files/major", "a summary of 0 bytes"),
    case(
        "summary_is_a_list", plain, lambda f: f.put("submission.json", "[]\n"), "files/major", "a summary with no keys"
    ),
    case("readme_empty", staged, lambda f: f.put("README.md", b""), "files/minor", "a README of 0 bytes"),
    case(
        "log_empty",
        triple,
        lambda f: f.put("train_seed42.log", b""),
        "files/minor",
        "a claimed seed's log has 0 bytes",
        also=("seeds",),
    ),
]

PARAMS.append(
    case("one_log_of_another_model", triple, other_params_log, "params/major", "one of three logs is of another model")
)
SIZES: list[Case] = BYTES + PARAMS + FILES
