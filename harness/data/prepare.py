"""From a `--data` value to tokens: tokenise text losslessly, or map the challenge's shards."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from harness.data.corpora import Corpus, load_corpus
from harness.data.folders import cache_folder
from harness.data.shard_folder import prepare_shards
from harness.data.sources import parse_spec
from harness.data.splits import SPLITS, Split, Work
from harness.data.streams import SplitFacts, TokenData, TokenStream, measure_tokens
from harness.data.token_cache import PreparedTokens, keep_tokens, load_tokens
from harness.data.tokenizer_base import TokenArray, Tokenizer, token_dtype
from harness.data.tokenizers import train_tokenizer
from harness.errors import DataError, UsageError

# Part of every cache key: raise it when the same text would give other tokens.
_TOKENS_VERSION = 2


def prepare(
    spec: str,
    *,
    tokenizer: str | Tokenizer | None = None,
    data_dir: Path | None = None,
    encoding_errors: str = "strict",
    cache_dir: Path | None = None,
    offline: bool = False,
) -> TokenData:
    """Make the tokens of a data source, or map those kept from an earlier run.

    Args:
        spec: the --data value.
        tokenizer: "bytes", "characters", "sp1024" ..., the tokenizer of an artifact, or None for the default.
        data_dir: folder of local copies and downloads (--data-dir).
        encoding_errors: "strict" or "replace", what to do with bytes that are not UTF-8; only of text.
        cache_dir: folder of kept tokens; by default in the user's cache.
        offline: use only what lies on this machine.

    Raises:
        UsageError: unknown source, tokenizer or option.
        DataError: no text or shards, or not what they should be.
        MissingExtraError: SentencePiece or datasets is needed and not installed.
    """
    source, argument = parse_spec(spec)
    if source == "shards":
        if encoding_errors != "strict":
            raise UsageError(f"--data {spec}: shards hold tokens, not text; leave --encoding-errors out")
        return prepare_shards(Path(argument).expanduser(), name=spec, tokenizer=tokenizer)
    corpus = load_corpus(spec, data_dir=data_dir, encoding_errors=encoding_errors, offline=offline)
    return prepare_text(corpus, tokenizer=tokenizer, cache_dir=cache_dir)


def prepare_text(
    corpus: Corpus, *, tokenizer: str | Tokenizer | None = None, cache_dir: Path | None = None
) -> TokenData:
    """Tokenise a corpus, checking that every work comes back byte for byte.

    Args:
        corpus: the text.
        tokenizer: a name, a tokenizer, or None for the corpus's default.
        cache_dir: folder of kept tokens; by default in the user's cache.

    Raises:
        UsageError: unknown tokenizer.
        DataError: a work that the tokenizer cannot encode losslessly.
    """
    wanted = corpus.default_tokenizer if tokenizer is None else tokenizer
    folder = (cache_dir or cache_folder()) / "tokens" / _cache_key(corpus, wanted)
    prepared = load_tokens(folder)
    if prepared is None:
        made = train_tokenizer(wanted, corpus) if isinstance(wanted, str) else wanted
        tokens = {split: _encode_split(made, corpus, split) for split in SPLITS}
        prepared = keep_tokens(folder, PreparedTokens(tokenizer=made, tokens=tokens))
    return _token_data(corpus, prepared)


def _cache_key(corpus: Corpus, wanted: str | Tokenizer) -> str:
    """Name the folder of kept tokens after everything that they depend on."""
    if isinstance(wanted, str):
        try:
            how = f"{wanted} {metadata.version('sentencepiece') if wanted.startswith('sp') else ''}"
        except metadata.PackageNotFoundError:
            how = wanted
    else:
        how = wanted.sha256
    digest = hashlib.sha256(f"{_TOKENS_VERSION}\0{corpus.sha256}\0{how}".encode()).hexdigest()
    return f"{corpus.name.partition(':')[0]}-{digest[:32]}"


def _encode_split(tokenizer: Tokenizer, corpus: Corpus, split: Split) -> TokenArray:
    """Encode the works of a split, each after the start token where the tokenizer has one for that."""
    start = np.full(int(tokenizer.separator), tokenizer.start_id, dtype=token_dtype(tokenizer.vocab_size))
    parts: list[TokenArray] = []
    for work in corpus.works[split]:
        parts += [start, _encode_work(tokenizer, work)]
    return np.concatenate(parts)


def _encode_work(tokenizer: Tokenizer, work: Work) -> TokenArray:
    try:
        tokens = tokenizer.encode(work.data)
    except DataError as error:
        raise DataError(f"{work.name}: {error}") from error
    if tokenizer.decode(tokens) != work.data:
        remedy = "give another text" if tokenizer.kind == "tokenizers" else "use --tokenizer bytes"
        raise DataError(f"{work.name}: the {tokenizer.kind} tokenizer loses text; {remedy}")
    return tokens


def _facts(tokenizer: Tokenizer, tokens: TokenArray, works: Sequence[Work]) -> SplitFacts:
    text_hash = hashlib.sha256()
    for work in works:
        text_hash.update(work.data)
    table = tokenizer.token_bytes()
    sha256, num_tokens, num_bytes = measure_tokens([tokens], lambda _, targets: table[targets], 0)
    assert num_bytes == sum(len(work.data) for work in works), "tokens and text differ in bytes"
    return SplitFacts(
        sha256=sha256,
        num_tokens=num_tokens,
        num_bytes=num_bytes,
        num_works=len(works),
        text_sha256=text_hash.hexdigest(),
    )


def _token_data(corpus: Corpus, prepared: PreparedTokens) -> TokenData:
    tokenizer, tokens = prepared.tokenizer, prepared.tokens
    facts = {split: _facts(tokenizer, tokens[split], corpus.works[split]) for split in SPLITS}
    table = tokenizer.token_bytes()
    return TokenData(
        name=corpus.name,
        tokenizer=tokenizer,
        streams=lambda split: TokenStream(split, [tokens[split]], facts[split]),
        facts=facts,
        count_bytes=lambda previous, targets: table[targets],
        provenance={
            "corpus_sha256": corpus.sha256,
            "encoding_errors": corpus.encoding_errors,
            "num_replaced": corpus.num_replaced,
        },
        source_nats=corpus.source_nats,
    )
