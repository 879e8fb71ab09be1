"""The `--data` sources that hold text: how each is read and by which rule it is split."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.data import fetch
from harness.data.splits import (
    SPLITS,
    Split,
    SplitRule,
    Work,
    cut_tiny_shakespeare,
    split_by_content,
    split_by_name,
)
from harness.data.synthetic import MarkovSource
from harness.data.wikitext import read_wikitext2
from harness.errors import DataError, UsageError, suggest

FINEWEB_DOCUMENTS = 5_000
SYNTHETIC_BYTES: Mapping[Split, int] = {"train": 1_000_000, "tune": 50_000, "test": 50_000}
# A comedy and a history, a tragedy and a romance, sharing no person with other works; 5.0% of the bytes each.
SHAKESPEARE_TUNE = ("alls_well_that_ends_well", "john")
SHAKESPEARE_TEST = ("othello", "tempest")
KNOWN_SPECS = ("shakespeare", "tinyshakespeare", "fineweb", "wikitext2", "text:PATH", "shards:DIR", "synthetic")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a source is asked for.

    Attributes:
        argument: the part of --data after the colon; empty for the default.
        data_dir: folder of local copies and downloads, if given.
        offline: download nothing.
    """

    argument: str
    data_dir: Path | None
    offline: bool

    def count(self, default: int) -> int:
        """Read the argument as a whole number, `default` where it is absent."""
        if not self.argument:
            return default
        if not (self.argument.isascii() and self.argument.isdigit() and len(self.argument) < 19):
            raise UsageError(f"--data: expected a whole number after the colon, got '{self.argument}'")
        return int(self.argument)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """How one kind of text is read and split.

    Attributes:
        read: gives all works, in a fixed order, empty ones included.
        split: divides the works that are not empty.
        argument: whether a colon and an argument follow the name.
        default_argument: what an optional argument is where it is not given.
        default_tokenizer: what fits the text where nothing was asked for.
    """

    read: Callable[[Request], list[Work]]
    split: SplitRule
    argument: Literal["none", "optional", "required"] = "none"
    default_argument: str = ""
    default_tokenizer: str = "sp1024"


def _read_shakespeare(request: Request) -> list[Work]:
    data_dir, offline = request.data_dir, request.offline
    data = fetch.obtain(fetch.SHAKESPEARE, fetch.fetch_shakespeare, data_dir=data_dir, offline=offline)
    return fetch.read_shakespeare(data)


def _read_tiny_shakespeare(request: Request) -> list[Work]:
    data_dir, offline = request.data_dir, request.offline
    data = fetch.obtain(fetch.TINY_SHAKESPEARE, fetch.fetch_tiny_shakespeare, data_dir=data_dir, offline=offline)
    return [Work(name="tinyshakespeare", data=data)]


def _read_fineweb(request: Request) -> list[Work]:
    num_documents = request.count(FINEWEB_DOCUMENTS)
    if num_documents < 3:
        raise UsageError(f"--data fineweb:NUM_DOCUMENTS needs at least 3 documents, got {num_documents}")
    texts = fetch.obtain_fineweb(num_documents, data_dir=request.data_dir, offline=request.offline)
    return [Work(name=f"document {index}", data=text.encode()) for index, text in enumerate(texts)]


def _read_wikitext2(request: Request) -> list[Work]:
    return read_wikitext2(request.argument, data_dir=request.data_dir, offline=request.offline)


def _exists(path: str | Path) -> bool:
    # Path.exists raises where a name is too long or holds a NUL.
    return os.path.exists(path)  # noqa: PTH110


def _read_file(path: Path, name: str) -> Work:
    try:
        data = path.read_bytes()
        return Work(name=name, data=gzip.decompress(data) if path.suffix == ".gz" else data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _read_text(request: Request) -> list[Work]:
    path = Path(request.argument).expanduser()
    if not _exists(path):
        raise UsageError(f"--data text:{request.argument}: no such file or folder")
    if not path.is_dir() and not path.is_file():
        raise UsageError(f"--data text:{request.argument}: not a regular file or a folder")
    if not path.is_dir():
        return [_read_file(path, path.name)]
    inside = [file.relative_to(path) for file in path.rglob("*") if file.is_file()]
    names = [name.as_posix() for name in inside if not any(part.startswith(".") for part in name.parts)]
    return [_read_file(path / name, name) for name in sorted(names)]


def _read_synthetic(request: Request) -> list[Work]:
    source = MarkovSource(request.count(0))
    return [Work(name=split, data=source.generate(SYNTHETIC_BYTES[split], split)) for split in SPLITS]


SOURCES: Mapping[str, Source] = {
    "shakespeare": Source(read=_read_shakespeare, split=split_by_name(tune=SHAKESPEARE_TUNE, test=SHAKESPEARE_TEST)),
    "tinyshakespeare": Source(read=_read_tiny_shakespeare, split=cut_tiny_shakespeare),
    "fineweb": Source(
        read=_read_fineweb,
        split=split_by_content,
        argument="optional",
        default_argument=str(FINEWEB_DOCUMENTS),
    ),
    "wikitext2": Source(
        read=_read_wikitext2,
        split=split_by_name(tune=("validation",), test=("test",)),
        argument="optional",
    ),
    "text": Source(read=_read_text, split=split_by_content, argument="required"),
    "synthetic": Source(
        read=_read_synthetic,
        split=split_by_name(tune=("tune",), test=("test",)),
        argument="optional",
        default_argument="0",
        default_tokenizer="bytes",
    ),
}


def parse_spec(spec: str) -> tuple[str, str]:
    """Split a --data value into source and argument; a default argument comes back empty.

    Raises:
        UsageError: unknown source, or an argument that is missing or too many.
    """
    name, colon, argument = spec.partition(":")
    if name not in SOURCES and name != "shards":
        hint = f"For a text of yours: --data text:{spec}. " if spec and _exists(spec) else ""
        raise UsageError(f"unknown data source '{spec}'. {hint}{suggest(spec, KNOWN_SPECS)}")
    rule = "required" if name == "shards" else SOURCES[name].argument
    if colon and rule == "none":
        raise UsageError(f"--data {name} takes nothing after its name, got '{spec}'")
    if not argument and (colon or rule == "required"):
        raise UsageError(f"--data {spec}: nothing stands after the colon. Known: {', '.join(KNOWN_SPECS)}")
    is_default = name in SOURCES and argument == SOURCES[name].default_argument
    return name, "" if is_default else argument
