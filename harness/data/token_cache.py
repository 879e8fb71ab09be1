"""Tokens kept between runs: mapped when they are as written, made again when they are not."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.folders import sha256_of_file
from harness.data.splits import SPLITS, Split
from harness.data.tokenizer_base import TokenArray, Tokenizer, token_dtype
from harness.data.tokenizers import tokenizer_from_blob
from harness.errors import ArtifactError

_LOG = logging.getLogger(__name__)
_INDEX, _TOKENIZER = "index.json", "tokenizer.bin"


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedTokens:
    """A tokenizer and the tokens of every split."""

    tokenizer: Tokenizer
    tokens: Mapping[Split, TokenArray]


def load_tokens(folder: Path) -> PreparedTokens | None:
    """Map kept tokens after checking every hash; None where they are absent or anything is off."""
    try:
        index = json.loads((folder / _INDEX).read_text())
        names = [_TOKENIZER, *(f"{split}.bin" for split in SPLITS)]
        if any(sha256_of_file(folder / name) != index["sha256"][name] for name in names):
            return None
        tokenizer = tokenizer_from_blob(index["kind"], (folder / _TOKENIZER).read_bytes())
        dtype = token_dtype(tokenizer.vocab_size)
        maps = {split: np.memmap(folder / f"{split}.bin", dtype=dtype, mode="r") for split in SPLITS}
    except (OSError, ValueError, KeyError, TypeError, ArtifactError):
        return None
    return PreparedTokens(tokenizer=tokenizer, tokens=maps)


def _write(folder: Path, prepared: PreparedTokens) -> None:
    (folder / _TOKENIZER).write_bytes(prepared.tokenizer.to_blob())
    for split in SPLITS:
        prepared.tokens[split].tofile(folder / f"{split}.bin")
    hashes = {path.name: sha256_of_file(path) for path in sorted(folder.iterdir())}
    (folder / _INDEX).write_text(json.dumps({"kind": prepared.tokenizer.kind, "sha256": hashes}, indent=1))


def keep_tokens(folder: Path, prepared: PreparedTokens) -> PreparedTokens:
    """Keep tokens in a folder, in place of what was there.

    Returns:
        The kept tokens, mapped; or what was given, in memory, where the folder cannot be written.
    """
    unfinished: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        _write(unfinished, prepared)
        shutil.rmtree(folder, ignore_errors=True)
        # Another process may have put the same tokens there meanwhile; theirs are as good.
        with contextlib.suppress(OSError):
            unfinished.rename(folder)
    except OSError as error:
        _LOG.info("tokens are not kept: %s", error)
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
    return load_tokens(folder) or prepared
