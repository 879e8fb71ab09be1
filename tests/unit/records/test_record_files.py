"""Reading what strangers wrote: JSON, folders, npz, logs; and the log that a run writes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import RecordError, RunError
from harness.records.discovery import find_records, scan_records
from harness.records.logs import MAX_LINE_BYTES, LogWriter, most_seconds, read_log
from harness.records.native import seal_files
from harness.records.safeio import (
    file_bytes,
    hash_file,
    index_lines,
    open_regular,
    parse_json,
    read_bounded,
    read_json,
)
from harness.records.scores import MAX_SCORES_BYTES, read_scores

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_json_reads_what_json_writes(value: object) -> None:
    assert parse_json(json.dumps(value).encode(), "x") == value


@given(st.dictionaries(st.text(alphabet='ab"\\{}:[],\n', max_size=6), json_values, max_size=5))
def test_lines_of_keys_are_where_the_keys_stand(value: dict[str, object]) -> None:
    text = json.dumps(value, indent=1)
    lines = index_lines(text)
    for key in value:
        assert text.splitlines()[lines[key] - 1].lstrip().startswith(json.dumps(key))


def test_lines_of_nested_keys() -> None:
    text = '{\n "a": [\n  {"b": "x:{y",\n   "c": 1},\n  2,\n  {"c": 3}]\n, "d": {}}'
    assert index_lines(text) == {"a": 2, "a.0.b": 3, "a.0.c": 4, "a.2.c": 6, "d": 7}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\xff{}", "not UTF-8 at byte 0"),
        (b"{", "not JSON: .* at line 1 column"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b"[-Infinity]", "-Infinity is not a number"),
        (b"[1e999]", "beyond the range of float64"),
        (b"[9223372036854775808]", "beyond 64 bits"),
        (b"9" * 5000, "not acceptable JSON"),
        (b"[" * 100_000, "levels deep"),
        (b"[" * 70 + b"]" * 70, "levels deep"),
        (b'"a\x00b"', "not JSON"),
    ],
)
def test_bad_json_is_one_error(raw: bytes, message: str) -> None:
    with pytest.raises(RecordError, match=message) as caught:
        parse_json(raw, "record.json")
    assert len(str(caught.value)) < 300


def test_sixty_four_levels_are_read() -> None:
    assert parse_json(b"[" * 64 + b"1" + b"]" * 64, "x")


def test_empty_json_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(b" \n")
    with pytest.raises(RecordError, match="record.json is empty"):
        read_json(tmp_path, "record.json")


def test_large_file_is_refused_before_reading(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as handle:
        handle.truncate(10**12)  # sparse
    tracemalloc.start()
    with pytest.raises(RecordError, match="has 1,000,000,000,000 bytes, more than the 1,000"):
        read_bounded(tmp_path, "big", 1000)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", ".", "..", "a\0b", "x" * 300])
def test_only_plain_names_are_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "record").mkdir()
    with pytest.raises(RecordError, match="not the name of a file"):
        open_regular(tmp_path / "record", name)


def test_links_may_not_leave_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "record"
    folder.mkdir()
    (tmp_path / "secret").write_text("x")
    (folder / "inside").write_text("y")
    (folder / "good").symlink_to("inside")
    (folder / "bad").symlink_to(tmp_path / "secret")
    (folder / "loop").symlink_to("loop")
    (folder / "gone").symlink_to("nothing")
    assert file_bytes(folder, "good") == 1
    for name, message in [("bad", "leaves the record folder"), ("loop", "cannot be read"), ("gone", "is missing")]:
        with pytest.raises(RecordError, match=message):
            file_bytes(folder, name)


def test_pipes_and_folders_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(RecordError, match="not a regular file|cannot be read"):
            open_regular(tmp_path, name)


def test_hash_is_over_the_whole_file(tmp_path: Path) -> None:
    content = b"abc" * 10**6
    (tmp_path / "a").write_bytes(content)
    assert hash_file(tmp_path, "a") == (3 * 10**6, hashlib.sha256(content).hexdigest())


def test_seal_covers_the_evidence_only(tmp_path: Path) -> None:
    for name in ("artifact.bin", "log.jsonl", "record.json", "checkpoint.pt", "notes.md"):
        (tmp_path / name).write_text(name)
    files = seal_files(tmp_path)
    assert set(files) == {"artifact.bin", "log.jsonl"}
    assert files["log.jsonl"].bytes == len("log.jsonl")


def test_records_are_found_at_any_depth(tmp_path: Path) -> None:
    for name in ("a", "b/c/d", "b", ".hidden", "z/.git/e"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "record.json").write_text("{}")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert find_records(tmp_path) == [tmp_path / "a", tmp_path / "b", tmp_path / "b/c/d"]
    assert find_records(tmp_path / "a") == [tmp_path / "a"]
    assert find_records(tmp_path / "a/record.json") == [tmp_path / "a"]
    assert find_records(tmp_path / "nothing") == []


def test_search_is_bounded(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(40):
        deep /= "d"
    deep.mkdir(parents=True)
    (deep / "record.json").write_text("{}")
    assert not scan_records(tmp_path).is_complete
    for i in range(30):
        (tmp_path / f"f{i}").touch()
    assert not scan_records(tmp_path, max_entries=10).is_complete


# Log


def test_log_is_read_as_written(tmp_path: Path) -> None:
    with LogWriter(tmp_path) as log:
        log.write("start", seed=7)
        log.write("step", step=1, loss_nats=5.5, lr_scale=1.0)
        log.write("eval", split="tune", val_bpb=2.0)
        log.write("eval", split="test", val_bpb=float("nan"), more=[float("inf")])
        log.write("end", steps=1)
    log_read = read_log(tmp_path)
    assert [(step.line, step.step, step.loss_nats) for step in log_read.steps] == [(2, 1, 5.5)]
    assert [(event.line, event.event) for event in log_read.events] == [
        (1, "start"),
        (3, "eval"),
        (4, "eval"),
        (5, "end"),
    ]
    assert log_read.last("eval", split="tune").fields["val_bpb"] == 2.0
    assert log_read.last("eval").fields == {"event": "eval", "split": "test", "val_bpb": "nan", "more": ["inf"]}
    assert log_read.last("export") is None
    assert log_read.count("eval") == 2


def test_step_keeps_its_schedule_where_it_is_logged_as_numbers(tmp_path: Path) -> None:
    with LogWriter(tmp_path) as log:
        log.write("step", step=1, loss_nats=5.5, lr_scale=0.5, momentum=1)
        log.write("step", step=2, loss_nats=5.5, lr_scale="fast", momentum=True)
    steps = [(step.lr_scale, step.momentum, step.seconds) for step in read_log(tmp_path).steps]
    assert steps == [(0.5, 1.0, None), (None, None, None)]


def test_each_line_is_on_disk_at_once(tmp_path: Path) -> None:
    log = LogWriter(tmp_path)
    log.write("start", seed=7)
    assert (tmp_path / "log.jsonl").read_text() == '{"event": "start", "seed": 7}\n'
    log.close()


def test_resume_drops_what_was_logged_after_the_checkpoint(tmp_path: Path) -> None:
    with LogWriter(tmp_path) as log:
        log.write("step", step=1, loss_nats=3.0)
        offset = log.offset
        log.write("step", step=2, loss_nats=2.0)
    with (tmp_path / "log.jsonl").open("ab") as handle:
        handle.write(b'{"event": "st')  # the process was killed while writing
    with LogWriter(tmp_path) as log:
        log.truncate(offset)
        assert log.offset == offset
        log.write("step", step=2, loss_nats=2.5)
    assert [step.loss_nats for step in read_log(tmp_path).steps] == [3.0, 2.5]


def test_openings_of_the_test_split_survive_a_resume(tmp_path: Path) -> None:
    with LogWriter(tmp_path) as log:
        log.write("start", seed=1)
        offset = log.offset
        log.write("step", step=1, loss_nats=3.0, seconds=12.5)
        log.write("test_open", purpose="score", utc="now")
    with LogWriter(tmp_path) as log:
        assert most_seconds(log.truncate(offset)) == 12.5
    assert [event.event for event in read_log(tmp_path).events] == ["start", "test_open"]
    assert read_log(tmp_path).steps == []


def test_a_line_that_was_cut_off_is_not_written_on(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b'{"event": "start"}\n{"event": "st')
    with LogWriter(tmp_path) as log:
        log.write("resume")
    assert [event.event for event in read_log(tmp_path).events] == ["start", "resume"]


def test_resume_refuses_a_shorter_log(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("{}\n")
    with LogWriter(tmp_path) as log, pytest.raises(RunError, match="has 3 bytes but its checkpoint was made at 99"):
        log.truncate(99)


def test_unwritable_log_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot write .*log.jsonl"):
        LogWriter(tmp_path / "nowhere")
    with LogWriter(tmp_path) as log, pytest.raises(RunError, match="No space left"):
        os.dup2(os.open("/dev/full", os.O_WRONLY), log._handle.fileno())
        log.write("start")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[]\n", "line 2 is not an object"),
        (b'{"event": 3}\n', "line 2 is not an object with an event"),
        (b'{"event": "end"}', "line 2 is cut off"),
        (b"\n", "line 2 is not JSON"),
        (b'{"event": "step", "step": "3", "loss_nats": 1}\n', "line 2: step is '3'"),
        (b'{"event": "step", "step": 3}\n', "line 2: loss_nats is None"),
        (b"x" * (MAX_LINE_BYTES + 10) + b"\n", "line 2 is longer than 65,536 bytes"),
        (b'{"event": "e", "x": NaN}\n', "line 2 .*NaN"),
    ],
)
def test_bad_line_is_named(line: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b'{"event": "start"}\n' + line)
    with pytest.raises(RecordError, match=message):
        read_log(tmp_path)


# Scores


def good_arrays() -> dict[str, np.ndarray]:
    counts = np.array([3, 4], dtype=np.int64)
    return {
        "block_nats": np.array([1.5, 2.5]),
        "block_bytes": counts,
        "block_tokens": counts,
        "block_correct": np.array([0, 4], dtype=np.int64),
        "context": np.int64(8),
        "stride": np.int64(4),
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_scores_are_read_as_written(save, tmp_path: Path) -> None:
    save(tmp_path / "scores.npz", **good_arrays())
    scores = read_scores(tmp_path)
    assert (scores.total_nats, scores.num_bytes, scores.num_tokens, scores.num_correct) == (4.0, 7, 7, 4)
    assert (scores.context, scores.stride) == (8, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_nats": np.zeros((2, 2))}, "block_nats is float64 of shape"),
        ({"block_nats": np.zeros(3)}, "unlike lengths"),
        ({"block_nats": np.zeros(2, dtype=np.float32)}, "block_nats is float32"),
        ({"block_nats": np.array([1.0, np.inf])}, "not finite"),
        ({"block_nats": np.array([1.0, 1e300])}, "not finite"),
        ({"block_bytes": np.array([-1, 2])}, "negative"),
        ({"block_tokens": np.array([2**62, 2**62])}, "impossibly large"),
        ({"block_correct": np.array([4, 4])}, "more right answers than tokens"),
        ({"block_tokens": np.zeros(2, dtype=np.int64), "block_correct": np.zeros(2, dtype=np.int64)}, "no token"),
        ({"context": np.array([8])}, "context is not one whole number"),
        ({"stride": np.float64(4)}, "stride is not one whole number"),
        ({"note": np.array(["a"], dtype=object)}, "type object"),
        ({"note": np.array(["a"])}, "expected numbers"),
        ({f"x{i}": np.zeros(1) for i in range(40)}, "members"),
    ],
)
def test_odd_scores_are_one_error(change: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "scores.npz", **{**good_arrays(), **change})
    with pytest.raises(RecordError, match=message):
        read_scores(tmp_path)


def zip_of(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def test_compressed_bomb_is_not_inflated(tmp_path: Path) -> None:
    (tmp_path / "scores.npz").write_bytes(zip_of({"block_nats.npy": b"\0" * (MAX_SCORES_BYTES + 10)}))
    tracemalloc.start()
    with pytest.raises(RecordError, match="inflates to more"):
        read_scores(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 3 * MAX_SCORES_BYTES
    tracemalloc.stop()


def test_huge_declared_shape_is_not_allocated(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    (tmp_path / "scores.npz").write_bytes(zip_of({"block_nats.npy": stream.getvalue() + b"\0" * 80}))
    tracemalloc.start()
    with pytest.raises(RecordError, match="declares an array of shape"):
        read_scores(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


@given(st.integers(0, 2000), st.integers(1, 255), st.booleans())
def test_damaged_scores_are_errors_or_scores(position: int, flip: int, is_cut: bool) -> None:
    import tempfile

    stream = io.BytesIO()
    np.savez_compressed(stream, **good_arrays())
    raw = bytearray(stream.getvalue())
    position %= len(raw)
    raw[position] ^= flip
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "scores.npz").write_bytes(raw[:position] if is_cut else raw)
        try:
            scores = read_scores(Path(name))
        except RecordError as error:
            assert "\n" not in str(error)
        else:
            assert scores.num_tokens > 0
