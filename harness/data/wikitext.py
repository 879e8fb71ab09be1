"""WikiText-2 as perplexities of pretrained models are reported on it: three published splits, lines joined as usual.

Source: Merity et al. 2016, "Pointer sentinel mixture models", arXiv:1609.07843; the recipe of the GPTQ code and of
those after it joins the rows of a split by two newlines.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.data.fetch import OTHER_SOURCES, first_line, name_folders, quiet_libraries
from harness.data.folders import data_folders, keep_download
from harness.data.splits import Work
from harness.errors import DataError, UsageError, missing_extra

DATASET, CONFIG = "Salesforce/wikitext", "wikitext-2-raw-v1"
FILE_NAME = f"{CONFIG}.json.gz"
PUBLISHED_SPLITS = ("train", "validation", "test")


def join_rows(rows: Iterable[str]) -> str:
    """Return the text of a split: its rows, each of which ends with a newline or is empty, with two between them."""
    return "\n\n".join(rows)


def read_wikitext2(folder: str, *, data_dir: Path | None, offline: bool) -> list[Work]:
    """Give the three splits as works named "train", "validation" and "test".

    Args:
        folder: with parquet files as the dataset's folder on the hub has them; empty for the hub or a kept copy.
        data_dir: folder of local copies and downloads (--data-dir).
        offline: download nothing.

    Raises:
        UsageError: no such folder, or no parquet files of all splits in it.
        DataError: neither at hand nor downloadable, or not readable.
        MissingExtraError: datasets is not installed.
    """
    if folder:
        texts: Mapping[str, str] = _load("parquet", data_files=_find_files(Path(folder).expanduser()))
    else:
        texts = _obtain(data_folders(data_dir), offline=offline)
    return [Work(name=split, data=texts[split].encode()) for split in PUBLISHED_SPLITS]


def is_kept(data_dir: Path | None) -> bool:
    """Say whether a copy lies in a folder of local corpora."""
    return any((folder / FILE_NAME).is_file() for folder in data_folders(data_dir))


def _obtain(folders: Sequence[Path], *, offline: bool) -> Mapping[str, str]:
    for folder in folders:
        if (kept := _read_kept(folder / FILE_NAME)) is not None:
            return kept
    try:
        if offline:
            raise DataError("downloads are switched off")
        texts = _load(DATASET, name=CONFIG)
    except DataError as error:
        raise DataError(
            f"wikitext2: no {FILE_NAME} in {name_folders(folders)}, and {error}. Give a copy of the dataset's folder "
            f"(--data wikitext2:FOLDER with its parquet files), {OTHER_SOURCES}"
        ) from error
    keep_download(folders, FILE_NAME, gzip.compress(json.dumps(texts).encode(), mtime=0))
    return texts


def _read_kept(path: Path) -> Mapping[str, str] | None:
    """Read a kept copy; None where it is absent or broken."""
    try:
        texts = json.loads(gzip.decompress(path.read_bytes()))
        return {split: str(texts[split]) for split in PUBLISHED_SPLITS}
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error):
        return None


def _find_files(folder: Path) -> dict[str, list[str]]:
    place = folder / CONFIG if (folder / CONFIG).is_dir() else folder
    files = {split: sorted(str(path) for path in place.glob(f"{split}-*.parquet")) for split in PUBLISHED_SPLITS}
    if absent := [split for split, found in files.items() if not found]:
        raise UsageError(
            f"--data wikitext2:{folder}: no {absent[0]}-*.parquet there; give a copy of the dataset's folder "
            f"({DATASET}, {CONFIG})"
        )
    return files


def _load(dataset: str, **options: Any) -> dict[str, str]:
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("reading wikitext2", "train") from error
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache, quiet_libraries():
        try:
            if dataset == "parquet":  # nothing to be gained from a second copy of local files
                options["cache_dir"] = cache
            loaded = datasets.load_dataset(dataset, **options)
            return {split: join_rows(loaded[split]["text"]) for split in PUBLISHED_SPLITS}
        except Exception as error:  # the library raises whatever its network layers and readers raise
            raise DataError(f"datasets could not read it ({first_line(error)})") from error
