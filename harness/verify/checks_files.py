"""Static checks of the folder: is the record readable, are its files those that it lists, are they whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice, pairwise

from harness.errors import RecordError
from harness.records.logs import LOG_FILE
from harness.records.native import CONFIG_FILE, EVIDENCE_FILES, RECORD_FILE
from harness.records.safeio import file_bytes, hash_file
from harness.records.scores import SCORES_FILE
from harness.records.values import Value
from harness.verify.agreement import show
from harness.verify.case import NativeCase, UnavailableError
from harness.verify.findings import Finding
from harness.verify.rules import Rule

MAX_LISTED_ENTRIES = 1000


def record_is_readable(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """F1: fails when record.json is missing, no strict JSON, or beyond the bounds of reading."""
    try:
        _, text = case.document
    except RecordError as error:
        yield rule.finding(case.name, "fail", str(error), path=RECORD_FILE)
    else:
        yield rule.finding(case.name, "pass", f"{len(text):,} characters read", path=RECORD_FILE)


def record_fits_schema(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """F2: fails when a field is missing, of another type, or the version is unknown."""
    case.require(RECORD_FILE)
    try:
        record, _ = case.parsed
    except RecordError as error:
        message = str(error).removeprefix(f"{RECORD_FILE}: ")
        line = case.lines.get(message.partition(":")[0])
        yield rule.finding(case.name, "fail", message, path=RECORD_FILE, line=line)
    else:
        yield rule.finding(case.name, "pass", f"schema {record.schema_version}", path=RECORD_FILE)


def run_is_complete(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """F3: an unfinished run is unverifiable, with its reason; nothing else is then checked."""
    record = case.record
    if record.status == "complete":
        yield rule.finding(case.name, "pass", "complete", path=RECORD_FILE)
        return
    reason = f": {record.reason}" if record.reason else ""
    message = f"the run is {record.status}{reason}; nothing else of it was checked"
    line = case.lines.get("status")
    yield rule.finding(case.name, "unverifiable", message, path=RECORD_FILE, line=line)


def files_are_present(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """F4: fails for each file that is missing, empty, not listed though required, or not a regular file."""
    listed = case.record.files
    names = dict.fromkeys([*EVIDENCE_FILES, *listed])
    num_odd = 0
    for name in names:
        if problem := _presence_problem(case, name, name in listed):
            num_odd += 1
            yield rule.finding(case.name, "fail", problem, path=name)
    if not num_odd:
        yield rule.finding(case.name, "pass", f"{len(names)} files are there")


def _presence_problem(case: NativeCase, name: str, is_listed: bool) -> str | None:
    try:
        if file_bytes(case.folder, name) == 0:
            return f"{name} is empty"
    except RecordError as error:
        return str(error)
    return None if is_listed else f"{name} is not listed under files in {RECORD_FILE}"


def file_hashes_match(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """F5: fails for each listed file whose size or sha256 is not the listed one."""
    for name, listed in case.record.files.items():
        try:
            case.require(name)
            size_bytes = file_bytes(case.folder, name)
            if size_bytes > rule.limits["hashed_bytes"]:
                raise UnavailableError(f"{name} has {size_bytes:,} bytes, too many to hash")
            sha256 = hash_file(case.folder, name)[1] if size_bytes == listed.bytes else None
        except (UnavailableError, RecordError) as gap:
            yield rule.gap(case.name, str(gap), path=name)
            continue
        yield _compare_file(case, rule, name, (size_bytes, sha256))


def _compare_file(case: NativeCase, rule: Rule, name: str, found: tuple[int, str | None]) -> Finding:
    listed, (size_bytes, sha256) = case.record.files[name], found
    is_size = size_bytes != listed.bytes
    key = f"files.{name}.{'bytes' if is_size else 'sha256'}"
    claim = Value(
        origin="claimed",
        value=listed.bytes if is_size else listed.sha256,
        path=RECORD_FILE,
        line=case.lines.get(key),
        label=key,
    )
    fact = Value(origin="measured", value=size_bytes if is_size else str(sha256), path=name)
    if claim.value == fact.value:
        return rule.finding(case.name, "pass", f"{name}: size and sha256 match", values=[claim, fact])
    what = "bytes" if is_size else "sha256"
    message = f"{name}: {claim.place} says {show(claim.value)}, the file has {what} {show(fact.value)}"
    return rule.finding(case.name, "fail", message, values=[claim, fact])


def evidence_is_readable(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """F6: fails for each of log, scores and config that cannot be read as what it is."""
    readers: dict[str, Callable[[], object]] = {
        LOG_FILE: lambda: _log_steps_are_in_order(case),
        SCORES_FILE: lambda: case.scores,
        CONFIG_FILE: lambda: case.config,
    }
    for name, read in readers.items():
        try:
            case.require(name)
        except UnavailableError as gap:
            yield rule.gap(case.name, str(gap), path=name)
            continue
        try:
            read()
        except UnavailableError as problem:
            yield rule.finding(case.name, "fail", str(problem), path=name)
        else:
            yield rule.finding(case.name, "pass", f"{name} was read", path=name)


def _log_steps_are_in_order(case: NativeCase) -> None:
    for before, after in pairwise(case.log.steps):
        if after.step <= before.step:
            raise UnavailableError(
                f"{LOG_FILE} line {after.line}: step {after.step:,} stands after step {before.step:,}"
            )


def content_is_known(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """F7: notes files that record.json does not list and keys that its schema does not have."""
    case.require(RECORD_FILE)
    _, unknown_keys = case.parsed
    known = {RECORD_FILE, *EVIDENCE_FILES, *case.record.files}
    with os.scandir(case.folder) as entries:
        names = sorted(entry.name for entry in islice(entries, MAX_LISTED_ENTRIES) if entry.name not in known)
    if names:
        yield rule.finding(case.name, "note", f"not listed in {RECORD_FILE}: {_enumerate(names)}")
    if unknown_keys:
        message = f"unknown keys in {RECORD_FILE}: {_enumerate(unknown_keys)}"
        line = case.lines.get(unknown_keys[0])
        yield rule.finding(case.name, "note", message, path=RECORD_FILE, line=line)
    if not names and not unknown_keys:
        yield rule.finding(case.name, "pass", "nothing unknown")


def _enumerate(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"{name:.80}" for name in names[:5]) + more
