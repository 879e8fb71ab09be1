"""The record of a run in the making: `record.json` says at every moment how far the run is."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import harness
from harness.errors import UsageError
from harness.record_lock import LOCK_FILE, hold_folder
from harness.records.native import seal_files, write_record
from harness.records.schema import Record, Status


def utc_now() -> str:
    """The time in UTC to the second, as records write it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(kw_only=True, slots=True)
class RunRecord:
    """Fields of the record as far as they are known, written whole each time they change.

    Attributes:
        folder: the record folder.
        fields: content of `record.json` as plain values.
    """

    folder: Path
    fields: dict[str, Any] = field(default_factory=dict)

    def write(self, status: Status = "running", reason: str | None = None) -> Record:
        """Write `record.json` with this status; a finished record also seals the other files by size and hash."""
        self.fields |= {"status": status, "reason": reason}
        if status == "complete":
            self.fields["files"] = {name: part.model_dump() for name, part in seal_files(self.folder).items()}
        record = Record.model_validate(self.fields)
        write_record(self.folder, record)
        return record


def new_record_fields(name: str) -> dict[str, Any]:
    """Fields that every record begins with."""
    return {"name": name, "created_utc": utc_now(), "harness_version": harness.__version__}


def make_folder(out: Path | None, name: str, held: ExitStack) -> Path:
    """Make an empty record folder: `out`, or `records/<name>` with a number appended while it is taken.

    Args:
        out: the folder that the user asked for.
        name: of the record.
        held: takes the lock of the folder.

    Raises:
        UsageError: `out` exists and holds something, or another process writes it.
    """
    if out is not None:
        taken = UsageError(f"--out {out} is not empty; choose another folder, or go on with --resume {out}")
        if out.exists() and not out.is_dir():
            raise taken
        out.mkdir(parents=True, exist_ok=True)
        held.enter_context(hold_folder(out))
        if any(path.name != LOCK_FILE for path in out.iterdir()):
            raise taken
        return out
    for number in range(1, 10_000):
        folder = Path("records") / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        held.enter_context(hold_folder(folder))
        return folder
    raise UsageError(f"records/{name} and its 9,999 followers exist; give --out")


def run_name(method: str, preset: str, data: str, budget: str, seed: int) -> str:
    """Name a run after what it does; safe as a folder name on every system."""
    corpus = data.partition(":")[0]
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", f"{method}-{preset}-{corpus}-{budget}-seed{seed}")
