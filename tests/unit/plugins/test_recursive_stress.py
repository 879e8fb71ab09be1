"""The stress command of `recursive`: trains, quantises and tabulates; wrong numbers of loops."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.progress import TerminalReporter
from harness.records.native import read_record
from harness.training.loop import StepReport
from methods.recursive.stress import Row, main, parse_loops, stress_table


def test_trains_and_quantises(small_text: str, tmp_path: Path, capsys) -> None:
    small = ["--preset", "tiny", "--budget", "2steps", "--calibration-tokens", "300", "--device", "cpu"]
    arguments = [*small, "--data", small_text, "--loops", "3", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "**bits/byte of the tune split**"
    assert lines[-1].startswith("|       3 | frugendorff-int6 |")
    assert "1.3766 to 5.7160" in lines[-1]
    made = (tmp_path / "out" / "loops3" / "artifact.bin").stat().st_mtime_ns
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--scheme", "int9"])
    assert (tmp_path / "out" / "loops3" / "artifact.bin").stat().st_mtime_ns == made
    capsys.readouterr()
    assert main([*arguments, "--seed", "1"]) == 2
    assert "loops3 was made with seed = 0, not 1; choose another --out" in capsys.readouterr().err


def test_an_interrupted_training_goes_on(small_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["--preset", "tiny", "--budget", "4steps", "--calibration-tokens", "300", "--device", "cpu"]
    arguments = [*small, "--data", small_text, "--loops", "2", "--out", str(tmp_path)]

    def interrupt(self: TerminalReporter, report: StepReport) -> None:
        if report.step == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr(TerminalReporter, "stepped", interrupt)
        main(arguments)
    assert read_record(tmp_path / "loops2").status == "interrupted"
    assert main(arguments) == 0
    assert read_record(tmp_path / "loops2").progress.steps == 4


def test_numbers_of_loops(capsys) -> None:
    assert parse_loops("1-3,5, 2") == [1, 2, 3, 5]
    for wrong in ("", "0", "3-1", "a", "1-99", "-1"):
        with pytest.raises(UsageError, match="--loops"):
            parse_loops(wrong)
    assert main(["--budget", "2steps", "--loops", "none"]) == 2
    assert capsys.readouterr().err.startswith("error: --loops none")


def test_table_shows_differences() -> None:
    after = {"rounding": 2.5, "GPTQ, first passes": 2.25, "GPTQ, all passes": 1.75}
    table = stress_table([Row(loops=1, scheme="int6-row", before_bpb=2.0, after_bpb=after)])
    assert table.rows == [("1", "int6-row", "2.0000", "2.5000 (+0.5000)", "2.2500 (+0.2500)", "1.7500 (-0.2500)", "-")]
