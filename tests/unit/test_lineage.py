"""Runs that start from another record: what they take over, what the record says, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.artifact.container import Artifact
from harness.cli import run_command
from harness.errors import RecordError, UsageError
from harness.job import RunRequest
from harness.lineage import load_parent, reload_parent
from harness.method import Parent, TrainingRun
from harness.nn.network import Network
from harness.progress import SilentReporter
from harness.records.logs import read_log
from harness.records.native import read_config, read_record
from harness.registry import find_method
from harness.runner import repeat_run, resume_run, start_run
from harness.verify.run import verify_paths

# the widths of both presets are equal, and fp32 stores a parent as it is
STORED = ("matrices=fp32", "embeddings=fp32", "scalars=fp32")


def run(out: Path, method: str = "dense", *, parent: Path | None = None, data: str = "synthetic", **more) -> Path:
    request = RunRequest(
        method=method,
        preset="tiny",
        budget=more.pop("budget", "4steps"),
        data=data,
        overrides=(*STORED, *more.pop("overrides", ())),
        parent=None if parent is None else str(parent),
        **more,
    )
    folder = start_run(request, reporter=SilentReporter(), out=out, device="cpu")
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("lineage") / "parent", budget="12steps")


@pytest.fixture(scope="module")
def child(parent: Path) -> Path:
    return run(parent.parent / "child", "mpo", parent=parent, overrides=("chi=64",))


def test_a_record_states_its_ancestor_and_what_that_spent(parent: Path, child: Path) -> None:
    before, after = read_record(parent), read_record(child)
    (ancestor,) = after.lineage
    assert ancestor.name == before.name == "parent"
    assert before.artifact is not None
    assert ancestor.artifact_sha256 == before.artifact.sha256
    assert ancestor.spent == before.budget.spent
    assert (ancestor.spent.steps, after.budget.spent.steps) == (12, 4)
    assert read_config(child)["parent"] == str(parent)


def test_training_goes_on_where_the_parent_ended(parent: Path, child: Path) -> None:
    fresh, taken = read_log(parent).steps, read_log(child).steps
    # chi = 64 loses nothing of a 64 x 64 matrix in two sites of 8 x 8 each
    assert taken[0].loss_nats < fresh[-1].loss_nats + 0.1 < fresh[0].loss_nats


def test_verify_finds_the_ancestor_and_its_budget(parent: Path, child: Path) -> None:
    report = verify_paths([parent.parent], level="decode")
    assert not [finding for finding in report.findings if finding.status == "fail"]
    (lineage,) = [f for f in report.findings if f.rule == "S5" and f.record.endswith("child")]
    assert (lineage.status, lineage.message.split()[0]) == ("pass", "ancestor")


def test_lineage_adds_up_over_generations(child: Path, tmp_path: Path) -> None:
    grandchild = run(tmp_path / "grandchild", "mpo", parent=child, overrides=("chi=64",))
    assert [ancestor.spent.steps for ancestor in read_record(grandchild).lineage] == [12, 4]


def test_any_method_starts_from_its_own_record(parent: Path, tmp_path: Path) -> None:
    folder = run(tmp_path / "dense", parent=parent)
    assert read_log(folder).steps[0].loss_nats < read_log(parent).steps[0].loss_nats - 0.1
    assert len(read_record(folder).lineage) == 1


def test_same_seed_and_parent_give_the_same_file(parent: Path, child: Path, tmp_path: Path) -> None:
    again = run(tmp_path / "again", "mpo", parent=parent, overrides=("chi=64",))
    assert (again / "artifact.bin").read_bytes() == (child / "artifact.bin").read_bytes()


def test_a_run_is_repeated_from_the_parent_beside_it(child: Path, parent: Path, tmp_path: Path) -> None:
    for folder in (parent, child):
        shutil.copytree(folder, tmp_path / folder.name)
    config = tmp_path / "child" / "config.toml"
    config.write_text(config.read_text().replace(str(parent), "elsewhere/parent"))
    record = repeat_run(tmp_path / "child", seed=0, out=tmp_path / "repeated", reporter=SilentReporter(), device="cpu")
    assert record.artifact is not None
    assert record.artifact.sha256 == read_record(child).artifact.sha256
    assert record.lineage == read_record(child).lineage
    shutil.rmtree(tmp_path / "parent")
    with pytest.raises(RecordError, match="its parent record elsewhere/parent is neither there nor beside it"):
        repeat_run(tmp_path / "child", seed=0, out=tmp_path / "gone", reporter=SilentReporter(), device="cpu")


def test_another_parent_is_not_taken_for_the_first(child: Path, parent: Path, tmp_path: Path) -> None:
    other = run(tmp_path / "other", budget="2steps")
    with pytest.raises(RecordError, match="is not the parent that it was begun from"):
        reload_parent(str(other), child, read_record(child).lineage)
    found = reload_parent(str(parent), child, read_record(child).lineage)
    assert found.parent.method == "dense"
    stored = Artifact.open(parent / "artifact.bin").decode_tensors()
    assert all(np.array_equal(found.parent.tensors[name], stored[name]) for name in stored)


def test_an_interrupted_run_goes_on_from_its_parent(
    parent: Path, child: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.training.loop.CHECKPOINT_SECONDS", 0.0)
    folder = tmp_path / "stopped"

    class Stop(SilentReporter):
        def stepped(self, report) -> None:
            if report.step == 2:
                raise KeyboardInterrupt

    request = RunRequest(
        method="mpo",
        preset="tiny",
        budget="4steps",
        data="synthetic",
        overrides=(*STORED, "chi=64"),
        parent=str(parent),
    )
    with pytest.raises(KeyboardInterrupt):
        start_run(request, reporter=Stop(), out=folder, device="cpu")
    resume_run(folder, reporter=SilentReporter(), device="cpu")
    assert (folder / "artifact.bin").read_bytes() == (child / "artifact.bin").read_bytes()
    assert read_record(folder).lineage == read_record(child).lineage


def test_other_text_is_refused_before_anything_is_written(parent: Path, tmp_path: Path) -> None:
    works = tmp_path / "works"
    works.mkdir()
    for index in range(12):
        (works / f"{index}.txt").write_text(f"work {index} of another text. " * 400)
    with pytest.raises(UsageError, match="--from .*parent"):
        run(tmp_path / "out", parent=parent, data=f"text:{works}")
    assert not (tmp_path / "out").exists()


def test_unfinished_and_altered_parents_are_refused(parent: Path, tmp_path: Path) -> None:
    altered = tmp_path / "altered"
    shutil.copytree(parent, altered)
    artifact = altered / "artifact.bin"
    artifact.write_bytes(artifact.read_bytes()[:-1] + b"\0")
    with pytest.raises(RecordError, match="is not the file that the record scored"):
        load_parent(altered)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(parent, unfinished)
    text = (unfinished / "record.json").read_text().replace('"status": "complete"', '"status": "running"')
    (unfinished / "record.json").write_text(text)
    with pytest.raises(UsageError, match="the record is running; finish it with --resume"):
        load_parent(unfinished)
    with pytest.raises(RecordError, match="nowhere"):
        load_parent(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="--from is empty"):
        run(tmp_path / "empty", parent="")  # as of a script whose variable is not set


def test_a_parent_of_another_shape_is_refused(parent: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--from a record of 'dense': .*"):
        run(tmp_path / "wide", "mpo", parent=parent, overrides=("mlp_width=256",))
    with pytest.raises(UsageError, match="--from a record of 'dense': .*other settings"):
        run(tmp_path / "deep", parent=parent, overrides=("num_layers=6",))


def test_a_method_that_ignores_its_parent_is_refused(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(self: object, run: TrainingRun) -> Network:
        return run.fit(self.build())  # type: ignore[attr-defined]

    monkeypatch.setattr(find_method("dense").load(), "train", train)
    with pytest.raises(UsageError, match="--from: this method does not start from a record"):
        run(tmp_path / "deaf", parent=parent)
    assert not (tmp_path / "deaf").exists()  # the corrected command may take the same name


def test_the_command_line_says_what_it_starts_from(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cli"
    arguments = ["run", "--method", "mpo", "--preset", "tiny", "--data", "synthetic", "--budget", "2steps"]
    assert run_command([*arguments, "--device", "cpu", "--from", str(parent), "--out", str(out)]) == 0
    output = capsys.readouterr()
    assert "starts from" in output.err
    assert "parent, which spent 12 steps; 14 with them" in output.out
    assert run_command([*arguments, "--from", str(tmp_path / "nothing"), "--out", str(tmp_path / "no")]) == 1


def test_the_contract_hands_over_plain_values(parent: Path) -> None:
    seen = load_parent(parent).parent
    assert isinstance(seen, Parent)
    assert seen.settings["width"] == 64
    assert seen.tensors["blocks.0.mlp.up.weight"].dtype == np.float32
