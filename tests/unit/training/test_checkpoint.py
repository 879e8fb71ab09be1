from __future__ import annotations

import errno
import io
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from harness.errors import RunError
from harness.training import checkpoint
from harness.training.checkpoint import load_checkpoint, restore_rng, rng_state, save_checkpoint


def make_state(value: float = 1.0) -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "network": nn.Linear(3, 2).state_dict(),
        "numbers": [1, 2.5, None, True, "text", b"bytes", (1, (2,)), 2**80],
        "weights": torch.full((64,), value),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "clock": {"stage_seconds": {"train": value}, 3: "int key"},
        "rng": rng_state(),
    }


def test_round_trip(tmp_path: Path) -> None:
    state = make_state()
    save_checkpoint(tmp_path / "c.pt", state)
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert loaded["numbers"] == state["numbers"]
    assert loaded["clock"] == state["clock"]
    assert torch.equal(loaded["weights"], state["weights"])
    assert torch.equal(loaded["half"], state["half"])
    assert all(torch.equal(loaded["network"][k], v) for k, v in state["network"].items())
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_a_new_checkpoint_replaces_the_one_before(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        save_checkpoint(tmp_path / "c.pt", make_state(value))
    assert load_checkpoint(tmp_path / "c.pt")["weights"][0] == 2.0


def fail_on(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(checkpoint.os, name, fail)


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "No space left on device"), (errno.EIO, "Input/output error")]
)
def test_a_failing_disk_is_one_error_and_the_one_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, words: str
) -> None:
    save_checkpoint(tmp_path / "c.pt", make_state(1.0))
    with monkeypatch.context() as patch:
        fail_on(patch, call, OSError(number, os.strerror(number)))
        with pytest.raises(RunError, match=f"cannot write the checkpoint .*: {words}"):
            save_checkpoint(tmp_path / "c.pt", make_state(2.0))
    assert load_checkpoint(tmp_path / "c.pt")["weights"][0] in ((1.0, 2.0) if call == "open" else (1.0,))
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


class FullDisk(io.BytesIO):
    def __init__(self, room_bytes: int) -> None:
        super().__init__()
        self.room_bytes = room_bytes

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.room_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.mark.parametrize("room_bytes", [0, 100, 3000])
def test_a_disk_that_fills_up_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room_bytes: int) -> None:
    save_checkpoint(tmp_path / "c.pt", make_state(1.0))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode: FullDisk(room_bytes))
        with pytest.raises(RunError, match="No space left on device. The one before is kept"):
            save_checkpoint(tmp_path / "c.pt", make_state(2.0))
    assert load_checkpoint(tmp_path / "c.pt")["weights"][0] == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_a_first_checkpoint_that_fails_keeps_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", lambda path, mode: FullDisk(100))
    with pytest.raises(RunError, match="No space left on device. Make room"):
        save_checkpoint(tmp_path / "c.pt", make_state(1.0))


def test_an_interrupt_while_writing_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "c.pt", make_state(1.0))
    with monkeypatch.context() as patch:
        fail_on(patch, "fsync", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path / "c.pt", make_state(2.0))
    assert load_checkpoint(tmp_path / "c.pt")["weights"][0] == 1.0


KILLED_PROGRAM = """
import os, signal, sys, torch
from pathlib import Path
from harness.training import checkpoint
def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)
path = Path(sys.argv[1])
checkpoint.save_checkpoint(path, {"weights": torch.ones(1000)})
setattr(os, sys.argv[2], die)
checkpoint.save_checkpoint(path, {"weights": torch.zeros(1000)})
"""


def test_kill_minus_nine_while_writing_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    killed = subprocess.run([sys.executable, "-c", KILLED_PROGRAM, str(path), "fsync"], check=False)
    assert killed.returncode == -9
    assert load_checkpoint(path)["weights"].sum() == 1000
    assert len(list(tmp_path.iterdir())) == 2  # what was half written has another name
    save_checkpoint(path, {"weights": torch.zeros(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_an_unwritable_folder_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot write the checkpoint .*No such file or directory"):
        save_checkpoint(tmp_path / "absent" / "c.pt", make_state())
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write the checkpoint .*Not a directory"):
        save_checkpoint(tmp_path / "file" / "c.pt", make_state())


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "c.pt"
    save_checkpoint(path, {"weights": torch.arange(50.0)})
    return path.read_bytes()


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_found(tmp_path: Path, good: bytes, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(good) - 1))
    bit = data.draw(st.integers(0, 7))
    altered = bytearray(good)
    altered[index] ^= 1 << bit
    refused(tmp_path / "c.pt", bytes(altered))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_cut_is_found(tmp_path: Path, good: bytes, data: st.DataObject) -> None:
    refused(tmp_path / "c.pt", good[: data.draw(st.integers(0, len(good) - 1))])


def test_each_fault_has_its_words(tmp_path: Path, good: bytes) -> None:
    path = tmp_path / "c.pt"
    assert f"has {len(good) - 1:,} of {len(good):,} bytes" in refused(path, good[:-1])
    assert f"has {len(good) + 1:,} of {len(good):,} bytes" in refused(path, good + b"x")
    assert "was altered" in refused(path, good[:-1] + bytes([good[-1] ^ 1]))
    assert "is not a checkpoint" in refused(path, b"")
    assert "is not a checkpoint" in refused(path, b"PK\x03\x04 some zip file")
    path.unlink()
    with pytest.raises(RunError, match="no checkpoint at .*start the run again without --resume"):
        load_checkpoint(path)
    with pytest.raises(RunError, match="cannot read the checkpoint"):
        load_checkpoint(tmp_path)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "_check_plain", lambda value, where: None)
    save_checkpoint(tmp_path / "c.pt", {"x": Harmful()})
    with pytest.raises(RunError, match="cannot read"):
        load_checkpoint(tmp_path / "c.pt")
    assert not Path("harm").exists()


@pytest.mark.parametrize("value", [np.ones(2), np.float64(1.0), {1, 2}, Path("x"), torch.float32])
def test_what_could_not_be_loaded_again_is_refused_when_saving(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a "):
        save_checkpoint(tmp_path / "c.pt", {"a": [0, value]})
    assert not list(tmp_path.iterdir())


def test_random_generators_go_on_where_they_were(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.gauss(0, 1), float(np.random.standard_normal()), float(torch.randn(()))]

    before = rng_state()
    try:
        draw()  # both gauss caches are now filled
        save_checkpoint(tmp_path / "c.pt", {"rng": rng_state()})
        expected = [draw() for _ in range(3)]
        restore_rng(load_checkpoint(tmp_path / "c.pt")["rng"])
        assert [draw() for _ in range(3)] == expected
    finally:
        restore_rng(before)
