"""An author's reply to what was found of a record or a claim: a plain file beside it, with its hash and its subject.

A reply lies in `responses/<subject>/<hash>/`: the text as it was given, and `response.json`, which says what it is a
reply to, as that stood then. Nothing in a reply is interpreted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.claims.files import find_claim
from harness.claims.sealing import hash_claim
from harness.errors import RecordError, UsageError
from harness.files import write_atomic
from harness.records.discovery import scan_records
from harness.records.native import RECORD_FILE
from harness.records.safeio import read_bounded, read_json

RESPONSES_FOLDER, RESPONSE_FILE, REPLY_FILE = "responses", "response.json", "reply.md"
MAX_REPLY_BYTES = 64 * 2**10
MAX_AUTHOR = 256
MAX_RESPONSES = 10_000
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Label = Annotated[str, Field(min_length=1, max_length=256)]


class ResponsePart(BaseModel):
    """The content of `response.json`.

    Attributes:
        kind: what is replied to.
        subject: name of the record folder, or of the claim.
        subject_sha256: of its `record.json` or of what the claim's verdict hangs on; of the list of names, sizes and
            hashes of the files of a folder without `record.json`.
        author: who replies, as they call themselves.
        reply_sha256: of the text.
        reply_bytes: size of the text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = Field(1, alias="schema")
    kind: Literal["record", "claim"]
    subject: Label
    subject_sha256: Sha256
    author: str = Field("", max_length=MAX_AUTHOR)
    reply_sha256: Sha256
    reply_bytes: int = Field(ge=1, le=MAX_REPLY_BYTES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """A reply as found.

    Attributes:
        folder: where it lies.
        part: what it says of itself.
        text: of the reply; empty where it is not the one that was filed.
        problem: why it is not shown; empty where it is.
    """

    folder: Path
    part: ResponsePart
    text: str
    problem: str = ""


def file_response(subject: str, file: Path, *, author: str = "", out: Path | None = None) -> Path:
    """Store a reply to a record or a claim.

    Args:
        subject: a record folder, the name of a claim, or FILE#ID of a claim file.
        file: the text, UTF-8.
        author: who replies.
        out: folder that takes `responses/`; the one that holds the record, or `records` for a claim, when None.

    Returns:
        The folder of the reply; the same reply of one author to the same subject is stored once.

    Raises:
        UsageError: no such record, claim or file, the file is empty, too large or not UTF-8, or the folder cannot be
            made.
    """
    raw = _read_reply(file)
    if len(author) > MAX_AUTHOR or not _is_utf8(author):
        raise UsageError(f"--author: at most {MAX_AUTHOR} characters of UTF-8; got {len(author)}")
    place, name, kind, subject_sha256 = _find_subject(subject)
    reply_sha256 = hashlib.sha256(raw).hexdigest()
    key = hashlib.sha256(f"{subject_sha256}{reply_sha256}{author}".encode()).hexdigest()
    folder = (out or place) / RESPONSES_FOLDER / name / key[:12]
    part = ResponsePart(
        kind=kind,
        subject=name,
        subject_sha256=subject_sha256,
        author=author,
        reply_sha256=reply_sha256,
        reply_bytes=len(raw),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}; give another folder with --out") from error
    write_atomic(folder / REPLY_FILE, raw)
    write_atomic(folder / RESPONSE_FILE, f"{part.model_dump_json(by_alias=True, indent=2)}\n".encode())
    return folder


def _read_reply(file: Path) -> bytes:
    if not file.is_file():
        raise UsageError(f"--file {file}: no such file; write the reply there first")
    size_bytes = file.stat().st_size
    if not 0 < size_bytes <= MAX_REPLY_BYTES:
        raise UsageError(f"--file {file}: {size_bytes:,} bytes; a reply has 1 to {MAX_REPLY_BYTES:,}")
    raw = file.read_bytes()
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"--file {file}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    return raw


def _find_subject(subject: str) -> tuple[Path, str, Literal["record", "claim"], str]:
    """Return where a reply belongs, the name of what it is to, the kind of that and its hash."""
    path = Path(subject)
    if not subject or not _is_there(path):
        loaded, claim = find_claim(subject)
        return Path("records"), loaded.name_of(claim), "claim", hash_claim(loaded, claim)
    folder = path.parent if path.name == RECORD_FILE else path
    tree = scan_records(folder, with_foreign=True)
    if folder.resolve() not in {
        each.resolve() for each in (*tree.folders, *(each.folder.path for each in tree.foreign))
    }:
        raise UsageError(f"{subject} is no record folder; `harness verify {subject}` says which ones it holds")
    name = folder.resolve().name
    if not _is_utf8(name):
        raise UsageError(f"{subject}: the name of the folder is not UTF-8; rename it")
    return folder.resolve().parent, name, "record", hash_record(folder)


def _is_there(path: Path) -> bool:
    """Whether something is there; nothing is where a text is too long for a path."""
    try:
        return path.exists()
    except OSError:
        return False


def _is_utf8(text: str) -> bool:
    """Whether a text can be written; names that are no UTF-8 come in as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def hash_record(folder: Path) -> str:
    """Return the sha256 of a record folder: of its `record.json`, or of the names and contents of its files."""
    if (folder / RECORD_FILE).is_file():
        return hashlib.sha256((folder / RECORD_FILE).read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for path in sorted(each for each in folder.iterdir() if each.is_file() and not each.is_symlink()):
        digest.update(f"{path.name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def find_responses(paths: Sequence[Path]) -> Iterator[Response]:
    """Yield the replies in the `responses` folders at, below or beside some paths, in sorted order.

    A file that is no `response.json`, or was altered, is yielded with the problem where its subject can be read, and
    passed over where it cannot.
    """
    found = dict.fromkeys(
        place.resolve()
        for path in paths
        for place in sorted(
            {*path.rglob(RESPONSE_FILE), *(path.parent / RESPONSES_FOLDER / path.name).rglob(RESPONSE_FILE)}
        )
    )
    for place in list(found)[:MAX_RESPONSES]:
        try:
            value, _ = read_json(place.parent, RESPONSE_FILE)
            part = ResponsePart.model_validate(value)
        except (RecordError, ValidationError):
            continue
        yield _read_response(place.parent, part)


def _read_response(folder: Path, part: ResponsePart) -> Response:
    try:
        raw = read_bounded(folder, REPLY_FILE, MAX_REPLY_BYTES)
        text = raw.decode("utf-8")
    except (RecordError, UnicodeDecodeError) as error:
        return Response(folder=folder, part=part, text="", problem=f"{REPLY_FILE} cannot be read: {error}")
    if hashlib.sha256(raw).hexdigest() != part.reply_sha256:
        return Response(folder=folder, part=part, text="", problem=f"{REPLY_FILE} was altered after it was filed")
    return Response(folder=folder, part=part, text=text)
