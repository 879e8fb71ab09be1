"""Speed-run folders: the list of results against its logs, and what is computed from the list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev, stdev

import pytest
from scipy import stats

from harness.records.discovery import scan_records
from harness.records.submission import Submission
from harness.verify.findings import Finding, FindingStatus
from harness.verify.run import verify_paths

LOSSES = (3.2781, 3.2792, 3.2786, 3.2790, 3.2786)
SECONDS = (171.204, 171.310, 171.188, 171.255, 171.297)
SOURCE = """import torch
def train():
    print0(f"step:{step}/{args.num_iterations} val_loss:{val_loss:.4f} train_time:{t:.0f}ms step_avg:{t/step:.2f}ms")
    # step:1/1 val_loss:1.0000 train_time:1ms
"""


def make_log(number: int, loss: float, seconds: float, *, is_cut: bool = False) -> str:
    lines = ["=" * 100, SOURCE + "=" * 100, "Running Python 3.12", "=" * 100]
    for step in range(0, 1501, 500):
        lines.append(
            f"step:{step}/1700 val_loss:{10.8 - step / 205 + number / 1e4:.4f} train_time:{step * 100}ms step_avg:100.00ms"
        )
        lines += [f"step:{step + 1}/1700 train_time:{step * 100 + 99}ms step_avg:99.00ms"]
    if not is_cut:
        lines.append(
            f"step:1700/1700 val_loss:{loss:.4f} train_time:{seconds * 1000:.0f}ms step_avg:{seconds / 1.7:.2f}ms"
        )
    return "\n".join([*lines, "peak memory allocated: 31000 MiB reserved: 44000 MiB", ""])


@dataclass(frozen=True)
class Record:
    """A speed-run record: what it lists and states, and how many of its logs it ships."""

    losses: tuple[float, ...] = LOSSES
    times: tuple[float, ...] = SECONDS
    mean: float = fmean(LOSSES)
    std: float = stdev(LOSSES)
    mean_time: float = fmean(SECONDS)
    std_time: float = stdev(SECONDS)
    p_value: float = float(stats.ttest_1samp(LOSSES, 3.28, alternative="less").pvalue)
    minutes: float = 2.85
    num_logs: int = len(LOSSES)
    edit: Callable[[str], str] = str

    def readme(self) -> str:
        return self.edit(f"""# New record 2025-10-01

A run reaches 3.28 FineWeb val loss in {self.minutes:.2f} minutes on 8xH100. Previous record: in 2.90 minutes on 8xH100.

```python
losses = {[round(loss, 4) for loss in self.losses]}
times = {list(self.times)}

# p={self.p_value:.4f}

# losses: (std={self.std:.7f}, mean={self.mean:.7f})

# time: (std={self.std_time:.7f}, mean={self.mean_time:.7f})
```

The former record, timed on the same machine:

```python
losses = [3.2700, 3.2900]
times = [174.1, 174.9, 174.3]
# time: (std=9.0, mean=999.9)
```
""")

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        (folder / "README.md").write_text(self.readme())
        for i in range(self.num_logs):
            (folder / f"{i}e3f0af5-ad08-47a6-813d-0c709b50d42{i}.txt").write_text(make_log(i, LOSSES[i], SECONDS[i]))
        return folder


def judge(record: Record, tmp_path: Path) -> list[Finding]:
    return list(verify_paths([record.write(tmp_path / "record")]).findings)


def rules(findings: list[Finding], status: FindingStatus) -> set[str]:
    return {finding.rule for finding in findings if finding.status == status}


def read(record: Record, tmp_path: Path) -> Submission:
    (found,) = scan_records(record.write(tmp_path / "record"), with_foreign=True).foreign
    assert found.format.name == "speed-run"
    return found.format.read(found.folder)


def test_what_is_read(tmp_path: Path) -> None:
    submission = read(Record(), tmp_path)
    assert [claim.value for claim in submission.listed("loss")] == list(LOSSES)
    assert [claim.value for claim in submission.listed("train_seconds")] == list(SECONDS)
    assert [claim.line for claim in submission.listed("loss")] == [6] * 5
    assert [run.finals[-1].value for run in submission.runs] == list(LOSSES)
    assert [run.of("train_seconds")[-1].value for run in submission.runs] == pytest.approx(SECONDS)
    own = {(c.quantity, c.statistic): c for c in submission.claims if c.seed is None}
    assert own[("train_seconds", "value")].value == pytest.approx(171)
    assert own[("loss", "mean")].is_headline
    assert own[("loss", "value")].bound == "<"
    assert own[("train_seconds", "std")].value == pytest.approx(stdev(SECONDS), abs=1e-7)


def test_a_true_record_passes(tmp_path: Path) -> None:
    findings = judge(Record(), tmp_path)
    assert {finding.status for finding in findings} == {"pass"}
    assert {"XM1", "XM8", "XT1", "XT6", "XV1", "XV2", "XV3"} <= rules(findings, "pass")


BROKEN = {
    "a loss that no log has": (Record(losses=(3.2781, 3.2792, 3.2776, 3.2790, 3.2786)), "XM8"),
    "a time that no log has": (Record(times=(171.204, 171.310, 170.188, 171.255, 171.297)), "XT6"),
    "mean": (Record(mean=fmean(LOSSES) - 0.0008), "XM1"),
    "deviation": (Record(std=2 * stdev(LOSSES)), "XV2"),
    "mean time": (Record(mean_time=fmean(SECONDS) - 0.4), "XV1"),
    "deviation of the time": (Record(std_time=stdev(SECONDS) / 3), "XV2"),
    "p-value": (Record(p_value=0.0001), "XV3"),
    "minutes": (Record(minutes=2.75), "XT1"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_contradiction_fails(name: str, tmp_path: Path) -> None:
    record, rule = BROKEN[name]
    findings = judge(record, tmp_path)
    assert rule in rules(findings, "fail")
    found = next(finding for finding in findings if finding.rule == rule and finding.status == "fail")
    assert (found.severity == "major") == (name == "mean")
    assert found.line is not None


def test_a_wrong_value_is_shown_with_the_one_that_is_not_listed(tmp_path: Path) -> None:
    findings = judge(BROKEN["a loss that no log has"][0], tmp_path)
    (found,) = [finding for finding in findings if finding.rule == "XM8"]
    assert "3.2776" in found.message
    assert "3.2786" in found.message
    assert (found.claimed, found.logged) == (3.2776, 3.2786)


NEAR = {
    "population deviation": (Record(std_time=pstdev(SECONDS)), "note", "XV2"),
    "two-sided p-value": (Record(p_value=2 * Record.p_value), "note", "XV3"),
    "order": (Record(losses=LOSSES[::-1], times=SECONDS[::-1]), "pass", "XM8"),
    "last digit": (Record(losses=(3.2782, *LOSSES[1:])), "pass", "XM8"),
    "fewer digits": (Record(times=tuple(round(s, 1) for s in SECONDS)), "pass", "XT6"),
    "milliseconds": (Record(times=tuple(1000 * s for s in SECONDS), edit=lambda t: t.replace("# time", "# ms")), "pass", "XT6"),
    "minutes cut off": (Record(minutes=2.86), "pass", "XT1"),
    "no list": (Record(edit=lambda t: t[: t.index("```")]), "pass", "XM1"),
    "no statistics": (Record(edit=lambda t: t[: t.index("# losses")] + t[t.index("```\n\nThe") :]), "pass", "XM8"),
    "comments in the list": (Record(edit=lambda t: t.replace("3.2792,", "3.2792,  # the worst, 9.9\n ")), "pass", "XM8"),
}  # fmt: skip


@pytest.mark.parametrize("name", NEAR)
def test_a_near_miss_does_not_fail(name: str, tmp_path: Path) -> None:
    record, status, rule = NEAR[name]
    findings = judge(record, tmp_path)
    assert not rules(findings, "fail")
    assert rule in rules(findings, status)  # type: ignore[arg-type]


def test_few_logs_convict_nobody(tmp_path: Path) -> None:
    findings = judge(Record(num_logs=1), tmp_path)
    assert not rules(findings, "fail")
    assert {"XM1", "XM8", "XT6"} <= rules(findings, "unverifiable")
    assert {"XV1", "XV2", "XV3"} <= rules(findings, "pass")


@pytest.mark.parametrize("name", ["deviation", "mean time", "p-value", "minutes"])
def test_what_the_list_itself_contradicts_fails_with_few_logs_too(name: str, tmp_path: Path) -> None:
    record, rule = BROKEN[name]
    assert rule in rules(judge(replace(record, num_logs=2), tmp_path), "fail")


def test_a_logged_loss_outside_the_list_is_a_note_with_few_logs(tmp_path: Path) -> None:
    losses = (3.2771, 3.2782, 3.2776, 3.2780, 3.2776)
    findings = judge(Record(losses=losses, mean=fmean(losses), std=stdev(losses), num_logs=2, p_value=0.0002), tmp_path)
    assert "XM8" in rules(findings, "note")
    assert not rules(findings, "fail") & {"XM8", "XM1", "XV1"}


def test_a_log_that_stops_before_the_end_has_no_result(tmp_path: Path) -> None:
    record = Record(num_logs=1).write(tmp_path / "record")
    log = next(record.glob("*.txt"))
    log.write_text(make_log(0, 0.0, 0.0, is_cut=True))
    findings = list(verify_paths([record]).findings)
    assert not rules(findings, "fail")
    assert {"XM8", "XT6"} <= rules(findings, "unverifiable")


def test_values_printed_by_the_tensor_library(tmp_path: Path) -> None:
    def edit(text: str) -> str:
        start = text.index("# losses")
        return (
            text[:start].replace("losses", "accs").replace("times", "sizes")
            + f"# (tensor({stdev(LOSSES):.4f}), tensor({fmean(LOSSES):.4f}))\n```\n"
        )

    findings = judge(Record(edit=edit), tmp_path)
    assert {finding.status for finding in findings} == {"pass"}
    assert {"XM1", "XM8", "XV1", "XV2", "XV3"} <= rules(findings, "pass")


@pytest.mark.parametrize(
    "words",
    ["losses = [a, b]", "losses = []", "baseline_losses = [3.1, 3.2]", "losses = [3.27, ...]", "lr = [0.1, 0.2]"],
)
def test_what_is_no_list_of_results(words: str, tmp_path: Path) -> None:
    assert read(Record(edit=lambda text: f"{words}\n"), tmp_path).claims == []


@pytest.mark.parametrize(
    ("line", "claimed"),
    [
        ("New record: 3.28 FineWeb val loss in 10.8 minutes on 8xH100", [("loss", 3.28), ("train_seconds", 648)]),
        ("3.28 validation loss in ~10.8 minutes.", [("loss", 3.28), ("train_seconds", 648)]),
        ("A new speed record, in 90.5 seconds", [("train_seconds", 90.5)]),
        ("Trains in 2.5 mins on 8xH100", [("train_seconds", 150)]),
        ("Previous record: 3.28 val loss in 12.0 minutes on 8xH100", []),
        ("Without the trick: 3.28 val loss in 12.0 minutes", []),
        ("I wrote this in 10 minutes", []),
        ("It saves 3 seconds", []),
    ],
)
def test_a_sentence_that_states_loss_and_time(line: str, claimed: list[tuple[str, float]], tmp_path: Path) -> None:
    submission = read(Record(edit=lambda text: f"# Title\n\n{line}\n"), tmp_path)
    assert [(claim.quantity, claim.value) for claim in submission.claims] == claimed


def test_a_folder_that_also_scores_bits_a_byte_is_another_dialect(tmp_path: Path) -> None:
    folder = Record(num_logs=1).write(tmp_path / "record")
    log = next(folder.glob("*.txt"))
    log.write_text(log.read_text() + "final_roundtrip val_loss:1.9 val_bpb:1.14\n")
    assert [found.format.name for found in scan_records(folder, with_foreign=True).foreign] != ["speed-run"]
