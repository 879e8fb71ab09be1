"""Folders whose claims may be true but whose evidence was not shipped: nothing fails, something stays unverifiable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from . import logs
from .april import april, april_runs, caseops, caseops_runs, phased
from .folders import Folder
from .march import legal, long, plain, staged, ternary, triple


def no_logs() -> Folder:
    return april().drop("train_seed42.log", "train_seed314.log", "train_seed999.log")


def one_log_of_three() -> Folder:
    return triple().drop("train_seed42.log", "train_seed2025.log")


def logs_elsewhere() -> Folder:
    made = ternary().drop("ternary_log_42.txt", "ternary_log_1337.txt", "ternary_log_7.txt")
    return made.add("README.md", "\nLogs: https://example.org/ada/golf/tree/main/logs (too large for this folder).\n")


def headline_from_another_evaluation() -> Folder:
    """The score and the size are of a second packing made after the run, as the README says; the log has the first."""
    made = long()
    run = made.runs[0]
    bpb, model = round(run.bpb() - 0.0081, 4), run.model + 244_100
    loss = round(bpb * run.tok.plain, 4)
    made = made.json(val_bpb=bpb, val_loss=loss, bytes_model_compressed=model, bytes_total=model + run.code)
    return made.add(
        "README.md",
        f"\nsubmission.json carries {bpb:.4f} from a separate LZMA packing, done after the run and not in train.log "
        f"({(model + run.code) / 1e6:.2f} MB); the script's own roundtrip is the table's {run.bpb():.4f}.\n",
    )


def reruns_not_shipped() -> Folder:
    """The README says that the scores come from evaluation-only reruns; their logs are missing."""
    runs = caseops_runs()
    made = caseops()
    for run in runs:
        part = replace(run, stages={**run.stages, "ttt": round(run.bpb() + 0.00044, 8)})
        log = logs.april(part, comp="quantized+brotli", style="diagnostic", calibration=0.4)
        made = made.put(f"train_seed{run.seed}.log", log)
    return made.add("README.md", "\nScores are from evaluation-only reruns with a later `train_gpt.py`; "
                                 "train_seed*.log show the runs with the earlier evaluation.\n")  # fmt: skip


def log_stops_before_the_end() -> Folder:
    text = staged().text("train.log")
    return staged().put("train.log", text.split("stopping_early")[0])


def training_losses_only() -> Folder:
    lines = [line for line in plain().text("train.log").splitlines() if "val_" not in line and "submission" not in line]
    return plain().put("train.log", "\n".join(lines) + "\n")


def summary_and_code_only() -> Folder:
    return legal().drop("train_seed1337.log", "train_seed42.log", "train_seed2025.log").put("README.md", "# Adapted\n")


def log_of_another_seed() -> Folder:
    """The claimed seeds' logs were lost; the log shipped is of a fourth seed, and the README says so."""
    made = no_logs().put("train_seed7.log", logs.april(april_runs((7,))[0]))
    return made.add(
        "README.md",
        "\nThe logs of seeds 42, 314 and 999 were lost with the machine; train_seed7.log is a fourth run.\n",
    )


def logs_without_sizes() -> Folder:
    """Scores are logged; bytes of model and total are claimed by the JSON alone, for three seeds."""
    made = phased()
    for n in range(3):
        kept = [ln for ln in made.text(f"logs/train{n}.txt").splitlines() if " bytes" not in ln]
        made = made.put(f"logs/train{n}.txt", "\n".join(kept) + "\n")
    return made


UNVERIFIABLE: dict[str, Callable[[], Folder]] = {
    build.__name__: build
    for build in (
        no_logs,
        one_log_of_three,
        logs_elsewhere,
        headline_from_another_evaluation,
        reruns_not_shipped,
        log_stops_before_the_end,
        training_losses_only,
        summary_and_code_only,
        log_of_another_seed,
        logs_without_sizes,
    )
}
