"""Bounded reading of files that strangers wrote: size, depth, encoding and links are checked before use."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TypeAlias

from harness.errors import RecordError

# Any would do as well for mypy; this says what can be inside
JSON: TypeAlias = "None | bool | int | float | str | list[JSON] | dict[str, JSON]"

MAX_JSON_BYTES = 8 * 2**20
MAX_JSON_DEPTH = 64
MAX_INDEXED_CHARACTERS = 2**20
MAX_INDEXED_PATH = 400
# Beyond this an integer has no exact float and no field of a record needs it.
MAX_INTEGER = 2**63 - 1

_CHUNK_BYTES = 2**20
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,\n]')


def is_plain_name(name: str) -> bool:
    """Whether `name` is the name of a file in the folder itself: no path, no `..`, no NUL."""
    return name not in ("", ".", "..") and not any(mark in name for mark in "/\\\0") and len(name) <= 255


def open_regular(folder: Path, name: str) -> IO[bytes]:
    """Open a regular file of a folder for reading, unless it is a link that leaves the folder.

    Args:
        folder: the record folder.
        name: file name inside it.

    Raises:
        RecordError: missing, not a regular file (a pipe would hang), a link to elsewhere, or not readable.
    """
    path = folder / name
    if not is_plain_name(name):
        raise RecordError(f"{name!r} is not the name of a file in the record folder")
    try:
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise RecordError(f"{name} is a link that leaves the record folder; put the file itself there")
        handle = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")
        if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            handle.close()
            raise RecordError(f"{name} is not a regular file")
    except FileNotFoundError as error:
        raise RecordError(f"{name} is missing") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise RecordError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return handle


def file_bytes(folder: Path, name: str) -> int:
    """Return the size of a regular file of a folder in bytes; raises RecordError like `open_regular`."""
    with open_regular(folder, name) as handle:
        return os.fstat(handle.fileno()).st_size


def read_bounded(folder: Path, name: str, max_bytes: int) -> bytes:
    """Read a whole file of a folder, refusing one above `max_bytes` before reading it."""
    with open_regular(folder, name) as handle:
        size_bytes = os.fstat(handle.fileno()).st_size
        if size_bytes > max_bytes:
            raise RecordError(f"{name} has {size_bytes:,} bytes, more than the {max_bytes:,} that are read")
        return _read(handle, name, max_bytes)


def _read(handle: IO[bytes], name: str, max_bytes: int) -> bytes:
    try:
        return handle.read(max_bytes + 1)
    except OSError as error:
        raise RecordError(f"{name} cannot be read: {error.strerror}") from error


def hash_file(folder: Path, name: str) -> tuple[int, str]:
    """Return size in bytes and sha256 of a file of a folder, read in chunks."""
    digest, size_bytes = hashlib.sha256(), 0
    with open_regular(folder, name) as handle:
        while chunk := _read(handle, name, _CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
    return size_bytes, digest.hexdigest()


def parse_json(raw: bytes, name: str) -> JSON:
    """Parse JSON text strictly: UTF-8, no duplicate keys, no NaN or infinity, bounded depth and integers.

    Args:
        raw: the file's bytes.
        name: the file's name, for the error.

    Raises:
        RecordError: anything of this does not hold; says where.
    """
    try:
        text = raw.decode("utf-8")
        value: JSON = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise RecordError(f"{name} is not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise RecordError(f"{name} is nested more than {MAX_JSON_DEPTH} levels deep") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise RecordError(f"{name} is not JSON: {error.msg} at {where}") from error
    except ValueError as error:
        raise RecordError(f"{name} is not acceptable JSON: {error}") from error
    _check_values(value, name)
    return value


def read_json(folder: Path, name: str) -> tuple[JSON, str]:
    """Read and parse a JSON file of a folder; returns the value and the text (for `index_lines`)."""
    raw = read_bounded(folder, name, MAX_JSON_BYTES)
    if not raw.strip():
        raise RecordError(f"{name} is empty")
    return parse_json(raw, name), raw.decode("utf-8")


def _unique_keys(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError(f"the key {find_twice(key for key, _ in pairs)!r:.80} stands twice in one object")
    return table


def find_twice(keys: Iterable[str]) -> str:
    """Return the first key that was there before; there must be one."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    raise AssertionError("no key stands twice")


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")


def _check_values(value: JSON, name: str) -> None:
    pending: list[tuple[JSON, int]] = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        if depth > MAX_JSON_DEPTH:
            raise RecordError(f"{name} is nested more than {MAX_JSON_DEPTH} levels deep")
        if isinstance(item, float) and not math.isfinite(item):
            raise RecordError(f"{name} holds a number beyond the range of float64")
        if isinstance(item, int) and abs(item) > MAX_INTEGER:
            raise RecordError(f"{name} holds an integer beyond 64 bits")
        pending += [(child, depth + 1) for child in _children(item)]


def _children(item: JSON) -> Iterator[JSON]:
    if isinstance(item, dict):
        yield from item.values()
    elif isinstance(item, list):
        yield from item


def index_lines(text: str) -> dict[str, int]:
    """Map each key of a valid JSON text, as a dotted path, to the line it stands on (from 1).

    List items count from 0: `data.test_openings.0.purpose`. A text above 1 MiB and paths that no field has, too deep
    or too long, are not indexed.
    """
    lines: dict[str, int] = {}
    place: list[str | int] = []
    line, latest, latest_line = 1, "", 1
    for match in _TOKEN.finditer(text if len(text) <= MAX_INDEXED_CHARACTERS else ""):
        token = match[0]
        if token == "\n":
            line += 1
        elif token[0] == '"':
            latest, latest_line = token, line
        elif token == ":":
            place[-1] = json.loads(latest) if len(latest) <= MAX_INDEXED_PATH else latest
            if len(place) <= MAX_JSON_DEPTH and sum(len(str(part)) for part in place) < MAX_INDEXED_PATH:
                lines[".".join(map(str, place))] = latest_line
        elif token in "{[":
            place.append("" if token == "{" else 0)
        elif token in "}]":
            place.pop()
        elif isinstance(index := place[-1], int):
            place[-1] = index + 1
    return lines
