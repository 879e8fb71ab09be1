"""Record folders of this program: writing them whole or not at all, reading them back."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from harness.errors import RecordError
from harness.files import write_atomic
from harness.records.logs import LOG_FILE
from harness.records.safeio import JSON, hash_file, read_bounded, read_json
from harness.records.schema import FilePart, Record
from harness.records.scores import SCORES_FILE
from harness.records.versions import parse_record

RECORD_FILE = "record.json"
ARTIFACT_FILE = "artifact.bin"
CONFIG_FILE = "config.toml"
CHECKPOINT_FILE = "checkpoint.pt"
EVIDENCE_FILES = (ARTIFACT_FILE, SCORES_FILE, LOG_FILE, CONFIG_FILE)

MAX_CONFIG_BYTES = 2**20


def write_record(folder: Path, record: Record) -> None:
    """Write `record.json` atomically, with sorted keys: the same record gives the same bytes."""
    text = json.dumps(record.to_json(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomic(folder / RECORD_FILE, f"{text}\n".encode())


def read_record(folder: Path) -> Record:
    """Read the `record.json` of a record folder.

    Raises:
        RecordError: missing, not JSON, not a record or of an unknown version; names folder and field.
    """
    try:
        value, _ = read_json(folder, RECORD_FILE)
        return parse_record(value)[0]
    except RecordError as error:
        raise RecordError(f"{folder}: {error}") from error


def seal_files(folder: Path) -> dict[str, FilePart]:
    """Measure size and sha256 of the evidence files that the folder holds, for `Record.files`."""
    files: dict[str, FilePart] = {}
    for name in EVIDENCE_FILES:
        if (folder / name).exists():
            size_bytes, sha256 = hash_file(folder, name)
            files[name] = FilePart(bytes=size_bytes, sha256=sha256)
    return files


def read_config(folder: Path) -> dict[str, JSON]:
    """Read the `config.toml` of a record folder.

    Raises:
        RecordError: missing, too large, or not TOML.
    """
    raw = read_bounded(folder, CONFIG_FILE, MAX_CONFIG_BYTES)
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise RecordError(f"{CONFIG_FILE} is not TOML ({error!s:.80})") from error
