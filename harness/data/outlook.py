"""What is known of a corpus without fetching it: its tokens where it is on this machine, else a vocabulary size."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from harness.data.corpora import load_corpus
from harness.data.prepare import prepare, prepare_text
from harness.data.sources import SOURCES, parse_spec
from harness.data.streams import TokenData
from harness.errors import DataError, UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """A corpus as far as it is known.

    Attributes:
        data: its tokens; None where it is not on this machine.
        vocab_size: number of token ids.
        note: what is not known, in a sentence; empty where everything is.
    """

    data: TokenData | None
    vocab_size: int
    note: str = ""


def look_at_data(
    spec: str,
    *,
    tokenizer: str | None = None,
    data_dir: Path | None = None,
    encoding_errors: str = "strict",
    vocab_size: int | None = None,
) -> Outlook:
    """Tokenise a corpus that is on this machine, as a run would; of another take the size of the vocabulary.

    Args:
        spec: the --data value.
        tokenizer: as in `prepare`.
        data_dir: folder of local copies (--data-dir).
        encoding_errors: as in `prepare`.
        vocab_size: of a corpus that is not there; by default the number in the name of its tokenizer.

    Raises:
        UsageError: unknown source, tokenizer or option; a vocabulary that is not the corpus's; none known.
        DataError: the corpus is there, but is not what it should be.
    """
    source, argument = parse_spec(spec)
    data: TokenData | None = None
    if source in ("shards", "text"):
        # Only a vocabulary that is given says that a path is right although there is nothing.
        if vocab_size is None or Path(argument).expanduser().exists():
            data = prepare(spec, tokenizer=tokenizer, data_dir=data_dir, encoding_errors=encoding_errors, offline=True)
        named_size = None
    else:
        try:
            corpus = load_corpus(spec, data_dir=data_dir, encoding_errors=encoding_errors, offline=True)
        except DataError:
            named_size = _size_in_name(tokenizer or SOURCES[source].default_tokenizer)
        else:
            data, named_size = prepare_text(corpus, tokenizer=tokenizer), None
    if data is not None:
        return _of_known(data, vocab_size)
    size = vocab_size or named_size
    if size is None:
        raise UsageError(
            f"--data {spec} is not on this machine, and tokenizer '{tokenizer}' has no vocabulary size in its name: "
            "give --vocab N"
        )
    return Outlook(
        data=None,
        vocab_size=size,
        note=f"--data {spec} is not on this machine: epochs are unknown, the vocabulary is taken to be {size:,} tokens",
    )


def _of_known(data: TokenData, vocab_size: int | None) -> Outlook:
    known = data.tokenizer.vocab_size
    if vocab_size not in (None, known):
        raise UsageError(f"--vocab {vocab_size}: the tokenizer of --data {data.name} has {known} tokens; leave it out")
    return Outlook(data=data, vocab_size=known)


def _size_in_name(tokenizer: str) -> int | None:
    if tokenizer == "bytes":
        return 256
    match = re.fullmatch(r"sp([0-9]{1,9})", tokenizer)
    return int(match[1]) if match else None
