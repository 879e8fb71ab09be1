"""What the levels evaluate and retrain need is looked for once, before the first record, and only for them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from record_factory import make_record
from rich.console import Console

from harness.errors import MissingExtraError, UsageError
from harness.verify import rerun
from harness.verify.command import VerifyOptions, run_verify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_record(tmp_path / "record")


def verify(folder: Path, level: str, device: str = "auto") -> int:
    return run_verify([folder], VerifyOptions(level=level, device=device), Console(file=StringIO()))


@pytest.mark.parametrize("level", ["evaluate", "retrain"])
def test_an_unknown_device_is_a_wrong_option(level: str, folder: Path) -> None:
    with pytest.raises(UsageError, match="--device tpu: choose"):
        verify(folder, level, "tpu")


@pytest.mark.parametrize("level", ["evaluate", "retrain"])
def test_a_missing_gpu_is_a_wrong_option(level: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError, match="no CUDA device"):
        verify(folder, level, "cuda")


@pytest.mark.parametrize("level", ["evaluate", "retrain"])
def test_without_torch_the_extra_is_named(level: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerun, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"claims-harness\[train\]") as caught:
        verify(folder, level)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("level", ["static", "decode"])
def test_lower_levels_never_import_torch(level: str, folder: Path) -> None:
    assert importlib.util.find_spec("torch") is not None
    code = (
        "import sys; from io import StringIO; from pathlib import Path; from rich.console import Console\n"
        "from harness.verify.command import VerifyOptions, run_verify\n"
        f"options = VerifyOptions(level={level!r}, device='tpu')\n"
        f"run_verify([Path({str(folder)!r})], options, Console(file=StringIO()))\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
