"""The record's schema: strict types, what each status needs, versions."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import RecordError, RunError
from harness.records.native import read_record, write_record
from harness.records.schema import SCHEMA_VERSION, Record
from harness.records.versions import parse_record, record_json_schema, upgrade

SHA = "0" * 64


def running() -> dict[str, Any]:
    """The least that a record holds: a run that has just begun."""
    split = {"sha256": SHA, "num_tokens": 10, "num_bytes": 9}
    return {
        "schema": SCHEMA_VERSION,
        "status": "running",
        "name": "dense",
        "created_utc": "2025-01-01T00:00:00Z",
        "harness_version": "0.1.0",
        "method": {"name": "dense", "kind": "baseline", "version": "1", "code_sha256": SHA},
        "preset": "tiny",
        "settings": {"model": {"width": 8}, "train": {}, "export": {}},
        "seed": 0,
        "budget": {
            "text": "2m",
            "kind": "seconds",
            "amount": 120.0,
            "stopped_by": None,
            "spent": {"seconds": 0.0, "gpu_seconds": 0.0, "steps": 0, "tokens": 0, "flops": 0.0},
        },
        "data": {
            "name": "text:a",
            "corpus_sha256": SHA,
            "tokenizer": {
                "kind": "bytes",
                "vocab_size": 256,
                "start_id": 10,
                "separator": False,
                "is_lossless": True,
                "sha256": SHA,
            },
            "splits": {"train": {**split}, "tune": {**split}, "test": {**split}},
            "encoding_errors": "strict",
            "num_replaced": 0,
        },
        "environment": {
            "python": "3.11",
            "torch": None,
            "numpy": "2",
            "harness": "0.1.0",
            "platform": "Linux",
            "cpu": "c",
            "num_threads": 1,
            "device": "cpu",
            "num_ranks": 1,
            "command_line": "harness run",
        },
    }


def changed(key: str, value: object) -> dict[str, Any]:
    fields = copy.deepcopy(running())
    *path, last = key.split(".")
    place = fields
    for name in path:
        place = place[name]
    place[last] = value
    return fields


def test_record_survives_a_round_trip(tmp_path: Path) -> None:
    record = Record.model_validate(running())
    write_record(tmp_path, record)
    first = (tmp_path / "record.json").read_bytes()
    assert read_record(tmp_path) == record
    write_record(tmp_path, read_record(tmp_path))
    assert (tmp_path / "record.json").read_bytes() == first
    assert first.endswith(b"}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    keys = list(json.loads(first))
    assert keys == sorted(keys) and "schema" in keys


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", "0", "seed: "),
        ("seed", 0.5, "seed: "),
        ("seed", True, "seed: "),
        ("seed", 2**70, "seed: "),
        ("budget.amount", "120", "budget.amount: "),
        ("budget.amount", 0, "budget.amount: "),
        ("budget.kind", "minutes", "budget.kind: "),
        ("data.corpus_sha256", "abc", "data.corpus_sha256: "),
        ("data.splits.test.num_tokens", -1, "data.splits.test.num_tokens: "),
        ("created_utc", "yesterday", "created_utc: "),
        ("status", "done", "status: "),
        ("environment.num_ranks", 0, "environment.num_ranks: "),
        ("lineage", [{"name": "a"}], "lineage.0."),
        ("files", {"../x": {"bytes": 1, "sha256": SHA}}, "'../x' is not the name of a file"),
        ("files", {"a/b": {"bytes": 1, "sha256": SHA}}, "'a/b' is not the name of a file"),
        ("status", "complete", "status is complete but params, artifact, metrics.test, time, progress, budget"),
        ("status", "failed", "status is failed but reason does not say why"),
    ],
)
def test_wrong_field_is_named(key: str, value: object, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse_record(changed(key, value))
    assert message in str(caught.value)
    assert str(caught.value).startswith("record.json: ")
    assert "\n" not in str(caught.value)


def test_ranks_of_a_run_that_was_resumed_elsewhere() -> None:
    environment = running()["environment"]
    assert Record.model_validate(running()).max_num_ranks == 1
    record = Record.model_validate(running() | {"earlier_environments": [{**environment, "num_ranks": 4}]})
    assert (record.max_num_ranks, record.environment.harness_code_sha256) == (4, None)


def test_whole_number_is_a_fine_float() -> None:
    record, unknown = parse_record(changed("budget.amount", 120))
    assert (record.budget.amount, unknown) == (120.0, ())


def test_unknown_keys_are_told_and_left_out() -> None:
    fields = changed("data.splits.test.remark", 1)
    fields["hobby"] = {"a": 1}
    record, unknown = parse_record(fields)
    assert set(unknown) == {"data.splits.test.remark", "hobby"}
    assert "hobby" not in record.to_json()
    assert fields["hobby"] == {"a": 1}


def test_constructor_refuses_unknown_keys() -> None:
    with pytest.raises(ValueError, match="hobby"):
        Record.model_validate({**running(), "hobby": 1})


@pytest.mark.parametrize("value", [[], None, "x", 3])
def test_record_is_an_object(value: Any) -> None:
    with pytest.raises(RecordError, match="expected an object"):
        parse_record(value)


@pytest.mark.parametrize("version", [None, "1", True, 1.0])
def test_version_is_a_number(version: object) -> None:
    with pytest.raises(RecordError, match="schema is .*, expected a version number"):
        parse_record(changed("schema", version))


def test_newer_version_is_one_clear_error() -> None:
    with pytest.raises(RecordError, match="schema 7 is newer than 1, the newest this program reads. Update"):
        parse_record(changed("schema", 7))


def test_unknown_old_version_is_one_clear_error() -> None:
    with pytest.raises(RecordError, match="schema 0 is not known; versions up to 1 are read"):
        parse_record(changed("schema", 0))


def test_upgrades_are_chained_one_version_at_a_time() -> None:
    def rename(data: dict[str, Any]) -> dict[str, Any]:
        return {"loss_nats": data["loss"]}

    def to_bits(data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "bits": data["loss_nats"] * 2}

    steps = {1: rename, 2: to_bits}
    assert upgrade({"schema": 1, "loss": 3}, upgrades=steps, target=3) == {"schema": 3, "loss_nats": 3, "bits": 6}
    assert upgrade({"schema": 3, "x": 1}, upgrades=steps, target=3) == {"schema": 3, "x": 1}
    with pytest.raises(RecordError, match="is not a record of schema 1"):
        upgrade({"schema": 1}, upgrades=steps, target=3)


def test_json_schema_names_every_field() -> None:
    schema = record_json_schema()
    assert set(schema["properties"]) == set(Record.model_validate(running()).to_json())
    assert schema["$schema"].startswith("https://json-schema.org/")
    json.dumps(schema)


def test_error_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=f"{tmp_path}: record.json is missing"):
        read_record(tmp_path)


def test_full_disk_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record.model_validate(running())
    write_record(tmp_path, record)

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(RunError, match="cannot write .*record.json: No space left on device"):
        write_record(tmp_path, record.model_copy(update={"seed": 5}))
    assert read_record(tmp_path).seed == 0
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
