"""Level decode: a real artifact against its record, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_factory import make_record, put, reseal, rewrite, settings, sha

from harness.artifact.container import PlannedTensor, write_artifact
from harness.artifact.params import decoder_closure_bytes, plugin_bytes
from harness.provenance import harness_code_sha256, hash_sources
from harness.records.native import ARTIFACT_FILE
from harness.registry import find_method
from harness.verify.artifact import DECODE_CHECKS
from harness.verify.findings import Report
from harness.verify.rules import load_rules
from harness.verify.run import verify_paths


def header() -> dict[str, Any]:
    return {
        "method": "dense",
        "method_version": "1",
        "settings": {"model": settings()["model"]},
        "task": {"vocab_size": 257, "context": 32},
        "tokenizer": {"kind": "bytes", "vocab_size": 257, "start_id": 256, "sha256": sha("tokenizer")},
    }


def tensors() -> list[PlannedTensor]:
    rng = np.random.default_rng(0)
    return [
        PlannedTensor(name="head", value=rng.normal(size=(4, 6)), scheme="int8-row", part="embedding"),
        PlannedTensor(name="gain", value=rng.normal(size=5), scheme="fp16", part="scalars"),
    ]


def make_decodable(folder: Path, meta: dict[str, Any] | None = None) -> Path:
    """A good record around a real artifact: 24 symbols, 4 scales and 5 half-precision numbers."""
    path = folder.parent / "made.bin"
    summary = write_artifact(path, meta=meta or header(), tensors=tensors(), blobs={"tokenizer": b"bytes"})
    make_record(folder, artifact=path.read_bytes(), parts=dict(summary.parts))
    info = find_method("dense")
    for key, value in {
        "params.stored": summary.num_params_stored,
        "artifact.coders": dict(Counter(summary.coders.values())),
        "artifact.plugin_bytes": plugin_bytes(info.folder),
        "artifact.decoder_closure_bytes": decoder_closure_bytes(info.package),
        "method.code_sha256": hash_sources([info.folder]),
        "environment.harness_code_sha256": harness_code_sha256(),
    }.items():
        put(key, value)(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_decodable(tmp_path / "record")


def statuses(report: Report, status: str) -> set[str]:
    assert report.internal_errors == [], report.internal_errors[0].traceback
    return {finding.rule for finding in report.findings if finding.status == status}


def with_header(key: str, value: object) -> Callable[[Path], object]:
    """The artifact of another run, under a record that was brought in line with it in all but the header."""

    def mutate(folder: Path) -> None:
        meta = header()
        *path, last = key.split(".")
        place = meta
        for name in path:
            place = place[name]
        place[last] = value
        other = make_decodable(folder.parent / "other", meta)
        for name in ("artifact.bin", "log.jsonl", "record.json"):
            (folder / name).write_bytes((other / name).read_bytes())
        for path_ in other.iterdir():
            path_.unlink()
        other.rmdir()

    return mutate


def move_a_byte(folder: Path) -> None:
    def change(parts: dict[str, int]) -> dict[str, int]:
        return {**parts, "embedding": parts["embedding"] + 1, "scalars": parts["scalars"] - 1}

    put("artifact.parts", change)(folder)


MUTATIONS: list[tuple[str, Callable[[Path], object]]] = [
    ("A2", put("params.stored", lambda old: old - 4)),
    ("A3", move_a_byte),
    ("A3", put("artifact.coders", {"raw": 9})),
    ("A5", put("artifact.plugin_bytes", lambda old: old - 1)),
    ("A5", put("artifact.decoder_closure_bytes", lambda old: old - 1)),
    ("A4", with_header("method", "legendre")),
    ("A4", with_header("settings.model", {"width": 9})),
    ("A4", with_header("task.vocab_size", 256)),
    ("A4", with_header("tokenizer.sha256", sha("other"))),
]


def test_good_artifact_passes(folder: Path) -> None:
    report = verify_paths([folder], level="decode")
    assert [finding for finding in report.findings if finding.status != "pass"] == []
    assert set(DECODE_CHECKS) <= {finding.rule for finding in report.findings}
    assert {rule.id for rule in load_rules().of_level("decode")} == set(DECODE_CHECKS)


@pytest.mark.parametrize(
    "mutate",
    [
        put("environment.harness_code_sha256", sha("older")),
        put("method.code_sha256", sha("older")),
        put("environment.harness_code_sha256", None),
    ],
)
def test_code_of_another_version_is_noted(mutate: Callable[[Path], object], folder: Path) -> None:
    mutate(folder)
    report = verify_paths([folder], level="decode")
    assert statuses(report, "fail") | statuses(report, "unverifiable") == set()
    assert statuses(report, "note") == {"A5"}


def test_stored_parameters_by_hand(folder: Path) -> None:
    fields = json.loads((folder / "record.json").read_text())
    assert fields["params"]["stored"] == 24 + 4 + 5


@pytest.mark.parametrize(("rule", "mutate"), MUTATIONS, ids=[f"{i}-{rule}" for i, (rule, _) in enumerate(MUTATIONS)])
def test_one_mutation_fails_one_rule(rule: str, mutate: Callable[[Path], object], folder: Path) -> None:
    mutate(folder)
    report = verify_paths([folder], level="decode")
    assert statuses(report, "fail") == {rule}
    assert statuses(report, "unverifiable") == set()
    assert verify_paths([folder], level="static").exit_code == 0


def test_artifact_that_is_none_fails_decoding_only(tmp_path: Path) -> None:
    """The factory's stand-in of plain bytes: hashes fit, but it is no artifact."""
    report = verify_paths([make_record(tmp_path / "record")], level="decode")
    assert statuses(report, "fail") == {"A1"}
    assert statuses(report, "unverifiable") == {"A2", "A3", "A4"}


def test_damaged_artifact_is_judged_once(folder: Path) -> None:
    rewrite(ARTIFACT_FILE, lambda raw: raw[:-1])(folder)
    report = verify_paths([folder], level="decode")
    assert statuses(report, "fail") == {"F5"}
    assert {"A1", "A2", "A3", "A4"} <= statuses(report, "unverifiable")


def test_unfinished_run_is_not_decoded(folder: Path) -> None:
    put("status", "interrupted")(folder)
    report = verify_paths([folder], level="decode")
    assert {finding.rule for finding in report.findings} == {"F1", "F2", "F3"}


def test_reseal_keeps_a_decodable_record_good(folder: Path) -> None:
    reseal(folder)
    assert verify_paths([folder], level="decode").exit_code == 0


def test_static_and_decode_import_nothing_heavy(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import harness.verify.run as run;"
        "assert not {'numpy', 'torch', 'scipy', 'pandas'} & set(sys.modules), 'at import';"
        f"assert run.verify_paths([Path({str(folder)!r})], level='decode').exit_code == 0;"
        "assert not {'torch', 'scipy', 'pandas', 'datasets', 'sentencepiece'} & set(sys.modules), 'at run'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
