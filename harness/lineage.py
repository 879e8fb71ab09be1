"""Runs that start from another record: its stored network, what it spent, and whether the two fit together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.artifact.container import Artifact
from harness.errors import RecordError, UsageError
from harness.method import Parent
from harness.records.native import ARTIFACT_FILE, read_record
from harness.records.safeio import hash_file
from harness.records.schema import AncestorPart, Record


@dataclass(frozen=True, kw_only=True, slots=True)
class ParentRecord:
    """The record that a run starts from.

    Attributes:
        folder: where it lies.
        record: its content.
        parent: what the method sees of it.
    """

    folder: Path
    record: Record
    parent: Parent

    @property
    def lineage(self) -> list[AncestorPart]:
        """All ancestors of a run that starts here, the parent last, each with what it spent itself."""
        artifact, spent = self.record.artifact, self.record.budget.spent
        assert artifact is not None, "a complete record has an artifact"
        parent = AncestorPart(name=self.record.name, artifact_sha256=artifact.sha256, spent=spent)
        return [*self.record.lineage, parent]


def load_parent(asked: str | Path) -> ParentRecord:
    """Read a complete record and decode its artifact.

    Raises:
        UsageError: no folder is named, or its record is not complete.
        RecordError: there is no record, or its file is not the one that it scored.
    """
    if not str(asked):  # Path would take it for the current folder
        raise UsageError("--from is empty; give the folder of a complete record")
    folder = Path(asked)
    record = read_record(folder)
    if record.status != "complete" or record.artifact is None:
        raise UsageError(f"--from {folder}: the record is {record.status}; finish it with --resume {folder}")
    if hash_file(folder, ARTIFACT_FILE)[1] != record.artifact.sha256:
        raise RecordError(f"--from {folder}: {ARTIFACT_FILE} is not the file that the record scored (sha256 differs)")
    tensors = Artifact.open(folder / ARTIFACT_FILE).decode_tensors()
    parent = Parent(method=record.method.name, settings=record.settings.model, tensors=tensors)
    return ParentRecord(folder=folder, record=record, parent=parent)


def reload_parent(asked: str, begun: Path, lineage: list[AncestorPart]) -> ParentRecord:
    """Find the parent of a run that was begun before: where it was, or beside the record under the same name.

    Raises:
        RecordError: it is not there, or its artifact has changed since.
    """
    places = (Path(asked), begun.parent / Path(asked).name)
    folder = next((place for place in places if (place / ARTIFACT_FILE).exists()), None)
    if folder is None:
        raise RecordError(f"{begun}: its parent record {asked} is neither there nor beside it")
    found = load_parent(folder)
    if not lineage or found.lineage[-1].artifact_sha256 != lineage[-1].artifact_sha256:
        raise RecordError(f"{begun}: {folder} is not the parent that it was begun from (another artifact)")
    return found


def check_parent_data(parent: ParentRecord, manifest: dict[str, Any]) -> None:
    """Refuse a parent of other text or tokens: it may have seen this run's test split.

    Raises:
        UsageError: corpus, splits or tokenizer differ.
    """
    now, before = manifest, parent.record.data.model_dump()
    if now["tokenizer"]["sha256"] != before["tokenizer"]["sha256"]:
        raise UsageError(f"--from {parent.folder}: it has another tokenizer; give the same --data and --tokenizer")
    for split, part in now["splits"].items():
        if part["sha256"] != before["splits"][split]["sha256"]:
            raise UsageError(
                f"--from {parent.folder}: its {split} split is another one, so it may have been trained on this "
                f"run's test text; give the same --data ({before['name']})"
            )
