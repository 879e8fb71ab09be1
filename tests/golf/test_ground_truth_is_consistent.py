"""The folders are the measure of a checker, so they are checked themselves, by a parser that shares nothing with it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from difflib import unified_diff
from pathlib import Path
from statistics import mean, pstdev, stdev

import pytest

from .bases import PLAIN
from .broken import BASES, BROKEN, FAMILIES, Case
from .clean import CLEAN
from .folders import Folder, write_all
from .model import CAP
from .unverifiable import UNVERIFIABLE

TRUE = {**PLAIN, **CLEAN, **BASES}
FINAL = re.compile(r"^(?:\[default0\]:|\d{10}\.\d{3} )?(\S*(?:sliding|ttt|roundtrip|quantized)\S*) .*?"
                   r"val_loss:([\d.]+)\s+val_bpb:([\d.]+)", re.M)  # fmt: skip
SIZES = re.compile(r"Total submission(?: size)?(?: \S+)?: (\d+)|budget:(\d+)/|artifact_bytes: (\d+)")
# folders whose headline is, on purpose and as the README says, not the mean (or the one score) of all logs
OTHER_HEADLINE = {
    "best_five_of_seven",
    "best_seed_undisclosed",
    "best_seed_disclosed",
    "bytes_in_260_symbols",
    "evaluation_only_reruns",
    "extra_seed_logged",
    "failed_evaluation_last",
    "identical_log_copy",
    "compliance_rerun",
    "reevaluated",
    "ternary",
    "own_tokenizer",
    "limits_switched_off",
    "sweep_document",
    "mebibytes_called_mb",
    "three_seeds_in_one_log",
    "binary_weights",
    "ablation_log_beside",
    "rerun_of_one_seed",
    "rerun_of_every_seed",
    "training_and_evaluation_logs",
    "earlier_run_of_a_sweep",
    "more_strides",
    "slow_evaluation_beside",
    "two_hours_beside",
    "aborted_before",
    "log_cut",
}


def logged(folder: Folder) -> dict[str, tuple[float, float, int]]:
    """The last score and the last total of each log: (loss, bpb, bytes)."""
    found = {}
    for name, data in folder.files.items():
        if not name.endswith((".log", ".txt")) or name == "requirements.txt":
            continue
        text = data.decode("utf-8-sig").replace("\r", "")
        finals = FINAL.findall(re.sub(r"\n(?=(eval_time|val_bpb))", " ", text))
        sizes = [int(next(filter(None, groups))) for groups in SIZES.findall(text)]
        if finals:
            found[name] = (float(finals[-1][1]), float(finals[-1][2]), sizes[-1] if sizes else 0)
    return found


def claimed_score(summary: dict[str, object]) -> float | None:
    for key in ("val_bpb", "mean_val_bpb", "mean_bpb"):
        if key in summary:
            return float(str(summary[key]))
    return None


def digits(value: float) -> int:
    return len(str(value).partition(".")[2])


def difference(one: Folder, other: Folder) -> Counter[str]:
    """Changed lines for each file that is not the same in both."""
    changed: Counter[str] = Counter()
    for name in {*one.files, *other.files}:
        old, new = (f.files.get(name, b"").decode().splitlines() for f in (one, other))
        if one.files.get(name) != other.files.get(name):
            lines = [ln for ln in unified_diff(old, new, lineterm="", n=0) if ln[:3] not in ("+++", "---")]
            changed[name] = max(1, sum(ln[0] in "+-" for ln in lines))
    return changed


@pytest.mark.parametrize("name", sorted(TRUE))
def test_the_headline_of_a_true_folder_follows_from_its_logs(name: str) -> None:
    folder = TRUE[name]()
    if name in OTHER_HEADLINE or not any(n.startswith("submission") for n in folder.files):
        return
    score = claimed_score(
        json.loads(folder.files[next(n for n in folder.files if n.startswith("submission"))].decode("utf-8-sig"))
    )
    finals = [bpb for _, bpb, _ in logged(folder).values()]
    assert finals
    if score is not None:
        assert abs(score - mean(finals)) <= 1.01 * 10 ** -min(digits(score), 8)


@pytest.mark.parametrize("name", sorted(TRUE))
def test_a_true_folder_keeps_the_cap_and_its_tokenizer(name: str) -> None:
    folder = TRUE[name]()
    assert all(run.total <= CAP for run in folder.runs)
    for loss, bpb, size in logged(folder).values():
        assert size <= CAP
        ratios = {r for run in folder.runs for r in (run.tok.plain, run.tok.scored)}
        assert min(abs(loss / bpb / ratio - 1) for ratio in ratios) < 1.5e-4


@pytest.mark.parametrize("name", sorted(TRUE))
def test_seed_results_and_deviation_of_a_true_folder_are_those_of_the_runs(name: str) -> None:
    folder = TRUE[name]()
    if "submission.json" not in folder.files:
        return
    summary = json.loads(folder.files["submission.json"].decode("utf-8-sig"))
    runs = {str(run.seed): run for run in folder.runs}
    results = summary.get("seed_results", {})
    for seed, result in results.items() if isinstance(results, dict) else ():
        assert abs(result["val_bpb"] - runs[seed].bpb()) <= 0.51 * 10 ** -digits(result["val_bpb"])
        assert result.get("artifact_bytes", runs[seed].total) == runs[seed].total
    if "val_bpb_std" in summary:
        scores = [run.bpb() for run in folder.runs]
        assert min(abs(summary["val_bpb_std"] - f(scores)) for f in (stdev, pstdev)) < 1e-5


@pytest.mark.parametrize("build", [*TRUE.values(), *UNVERIFIABLE.values(), *(case.build for case in BROKEN)])
def test_building_twice_gives_the_same_bytes(build: Callable[[], Folder]) -> None:
    assert build().files == build().files


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_a_broken_folder_is_its_true_base_with_one_small_change(case: Case) -> None:
    changed = difference(case.base(), case.build())
    assert changed, "nothing was changed"
    if not case.whole and case.family != "files":
        assert len(changed) <= 3 and sum(changed.values()) <= 12, changed


def test_cases_are_described() -> None:
    assert len({case.name for case in BROKEN}) == len(BROKEN) >= 60
    assert {case.family for case in BROKEN} == set(FAMILIES)
    assert {case.severity for case in BROKEN} == {"major", "minor"}
    assert all(case.about and set(case.also) <= set(FAMILIES) for case in BROKEN)
    assert len(CLEAN) >= 30 and len(UNVERIFIABLE) >= 10


def test_no_two_true_folders_are_the_same() -> None:
    seen: dict[bytes, str] = {}
    for name, build in CLEAN.items():
        key = b"".join(n.encode() + d for n, d in sorted(build().files.items()))
        assert key not in seen, (name, seen[key])
        seen[key] = name


def test_folders_are_written_as_they_are(tmp_path: Path) -> None:
    made = write_all({"plain": PLAIN["plain"], "long": PLAIN["long"]}, tmp_path)
    assert {p.relative_to(tmp_path).parts[0] for p in made.values()} == {"track_10min_16mb", "track_non_record_16mb"}
    script = made["plain"] / "train_gpt.py"
    assert script.stat().st_size == PLAIN["plain"]().summary()["bytes_code"]
