"""What the views say: unlike records apart, machines beside times, a doctor that survives what it examines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness import doctor
from harness.data.corpora import SourceInfo
from harness.doctor import Diagnosis
from harness.record_views import Found, _side_by_side
from harness.records.schema import Record
from harness.tables import Table

HASH = "0" * 64
SPLIT = {"sha256": HASH, "num_tokens": 100, "num_bytes": 100}
SPENT = {"seconds": 61.25, "gpu_seconds": 0.0, "steps": 5, "tokens": 10, "flops": 1.0}


def make_found(
    name: str,
    *,
    corpus: str = HASH,
    stride: int | None = 32,
    status: str = "complete",
    partial: bool = False,
    environment: Mapping[str, Any] | None = None,
) -> Found:
    """A record with what the comparison reads; `stride` None is one without scores."""
    metrics = {
        "eval_mode": {"mode": "sliding", "context": 64, "stride": stride},
        "partial": partial,
        "val_bpb": 2.5,
        "loss_nats": 1.0,
        "token_accuracy": 0.5,
        "perplexity": 2.7,
        "total_nats": 100.0,
        "num_tokens": 100,
        "num_bytes": 100,
    }
    times = ("wall", "train", "compression", "validation", "compilation", "export", "data", "device")
    tokenizer = {"kind": "bytes", "vocab_size": 256, "start_id": 0, "separator": False, "is_lossless": True}
    machine = {
        "python": "3",
        "torch": "2",
        "numpy": "2",
        "harness": "0",
        "platform": "Linux",
        "cpu": "A processor",
        "num_threads": 1,
        "device": "cpu",
        "num_ranks": 1,
        "command_line": "harness run",
    }
    fields = {
        "schema": 1,
        "status": status,
        "name": name,
        "created_utc": "2026-01-01T00:00:00Z",
        "harness_version": "0",
        "method": {"name": "dense", "kind": "baseline", "version": "1", "code_sha256": HASH},
        "preset": "tiny",
        "settings": {"model": {}, "train": {}, "export": {}},
        "seed": 0,
        "budget": {"text": "10m", "kind": "seconds", "amount": 600.0, "stopped_by": "seconds", "spent": SPENT},
        "data": {
            "name": "words",
            "corpus_sha256": corpus,
            "tokenizer": {**tokenizer, "sha256": HASH},
            "splits": dict.fromkeys(("train", "tune", "test"), SPLIT),
            "encoding_errors": "strict",
            "num_replaced": 0,
        },
        "params": {"stored": 1, "effective": 2, "active": 3, "parts": {}},
        "artifact": {
            "artifact_bytes": 4000,
            "sha256": HASH,
            "parts": {},
            "coders": {},
            "plugin_bytes": 1,
            "decoder_closure_bytes": 1,
        },
        "metrics": {"test": metrics} if stride is not None else {},
        "time": {f"{part}_seconds": 0.0 for part in times},
        "progress": {"steps": 5, "tokens": 10, "epochs": 1.0},
        "environment": machine | dict(environment or {}),
    }
    return Found(Path("runs") / name, Record.model_validate(fields))


def rows_of(table: Table) -> list[dict[str, str]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_only_the_same_text_and_mode_share_a_table() -> None:
    found = [
        make_found("a"),
        make_found("other-text", corpus="1" * 64),
        make_found("other-mode", stride=64),
        make_found("b"),
        make_found("unscored", stride=None, status="interrupted"),
    ]
    tables = list(_side_by_side(found))
    assert [[row["record"] for row in rows_of(table)] for table in tables] == [
        ["a", "b"],
        ["other-text"],
        ["other-mode"],
        ["unscored"],
    ]
    assert "words, 100 test bytes, eval sliding, window 64, stride 32" in tables[0].title
    assert "stride 64" in tables[2].title
    assert "not scored" in tables[3].title


def test_an_unfinished_or_partial_record_says_so() -> None:
    (table,) = _side_by_side([make_found("a", status="interrupted"), make_found("b", partial=True)])
    first, second = rows_of(table)
    assert (first["budget"], first["bits/byte"]) == ("10m (interrupted)", "2.5000")
    assert (second["budget"], second["bits/byte"]) == ("10m", "2.5000 PARTIAL")


@pytest.mark.parametrize(
    "other",
    [{"device": "cuda:0 A card"}, {"num_threads": 2}, {"cpu": "Another processor"}, {"num_ranks": 2}],
)
def test_seconds_of_unlike_machines_are_not_compared(other: dict[str, Any]) -> None:
    (alike,) = _side_by_side([make_found("a"), make_found("b")])
    assert [row["seconds"] for row in rows_of(alike)] == ["61.2", "61.2"]
    (unlike,) = _side_by_side([make_found("a"), make_found("b", environment=other)])
    assert "seconds" not in unlike.columns
    devices = [row["device"] for row in rows_of(unlike)]
    assert devices[0] == "A processor, 1 thread(s)" != devices[1]


def _crash() -> Iterator[Diagnosis]:
    yield Diagnosis("pass", "first", "fine")
    raise ImportError("libtorch.so: undefined symbol\nand more lines")


def test_the_doctor_survives_what_it_examines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (_crash, doctor._check_python))
    lines = doctor.diagnose()
    assert lines[0].message == "fine"
    assert (lines[1].status, lines[1].message) == ("fail", "ImportError: libtorch.so: undefined symbol")
    assert lines[2].subject == "python"


@pytest.mark.parametrize(
    ("has_shakespeare", "status", "said"), [(True, "pass", "shakespeare"), (False, "note", "nothing cached")]
)
def test_only_downloads_count_as_cached(
    has_shakespeare: bool, status: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sources() -> list[SourceInfo]:
        here = {"shakespeare": has_shakespeare, "text:PATH": True, "shards:DIR": True, "synthetic": True}
        return [
            SourceInfo(name=name, summary="", num_bytes=None, is_cached=is_cached, how_to_get="")
            for name, is_cached in here.items()
        ]

    monkeypatch.setattr("harness.data.corpora.list_sources", sources)
    (line,) = doctor._check_data()
    assert line.status == status
    assert said in line.message
    assert "synthetic" not in line.message
