"""A small record folder whose every number follows from the others, and ways to spoil it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from harness.records.logs import LogWriter
from harness.records.native import ARTIFACT_FILE, CONFIG_FILE, LOG_FILE, RECORD_FILE, SCORES_FILE, seal_files

NUM_STEPS, TOKENS_PER_STEP = 20, 64
NUM_TEST_BYTES, NUM_TUNE_BYTES = 500, 300
Fields = dict[str, Any]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def scores_of(seed: int, num_tokens: int = NUM_TEST_BYTES) -> dict[str, np.ndarray]:
    """Five blocks of a text of bytes, each byte one token."""
    rng = np.random.default_rng(seed)
    tokens = np.full(5, num_tokens // 5, dtype=np.int64)
    return {
        "block_nats": rng.uniform(1.4, 1.6, 5) * tokens,
        "block_bytes": tokens.copy(),
        "block_tokens": tokens,
        "block_correct": rng.integers(10, 50, 5),
        "block_size_bytes": np.int64(100),
        "context": np.int64(32),
        "stride": np.int64(16),
    }


def metrics_of(scores: Mapping[str, np.ndarray]) -> Fields:
    total_nats = math.fsum(scores["block_nats"])
    num_tokens, num_bytes = int(scores["block_tokens"].sum()), int(scores["block_bytes"].sum())
    return {
        "eval_mode": {"mode": "sliding", "context": 32, "stride": 16},
        "partial": False,
        "val_bpb": total_nats / math.log(2) / num_bytes,
        "loss_nats": total_nats / num_tokens,
        "token_accuracy": int(scores["block_correct"].sum()) / num_tokens,
        "perplexity": math.exp(total_nats / num_tokens),
        "total_nats": total_nats,
        "num_tokens": num_tokens,
        "num_bytes": num_bytes,
    }


def settings() -> Fields:
    return {
        "model": {"width": 8, "layers": [1, 2], "dropout": None},
        "train": {
            "batch_tokens": TOKENS_PER_STEP,
            "matrix_lr": 0.02,
            "lr_curve": [["0", 1.0], ["100%", 0.0]],
            "momentum_curve": [["0", 0.95]],
        },
        "export": {"matrices": "int8-row"},
    }


def record_fields(seed: int, artifact: bytes, parts: Mapping[str, int], scores: Mapping[str, np.ndarray]) -> Fields:
    """The content of record.json, without the hashes of the other files."""
    spent = {
        "seconds": 11.0,
        "gpu_seconds": 11.0,
        "steps": NUM_STEPS,
        "tokens": NUM_STEPS * TOKENS_PER_STEP,
        "flops": 1e9,
    }
    tune = metrics_of(scores_of(seed + 1000, NUM_TUNE_BYTES))
    return {
        "schema": 1,
        "status": "complete",
        "reason": None,
        "name": f"dense-tiny-seed{seed}",
        "created_utc": f"2025-01-0{1 + seed % 9}T00:00:00Z",
        "harness_version": "0.1.0",
        "method": {"name": "dense", "kind": "baseline", "version": "1", "code_sha256": sha("code")},
        "preset": "tiny",
        "settings": settings(),
        "seed": seed,
        "budget": {
            "text": f"{NUM_STEPS}steps",
            "kind": "steps",
            "amount": float(NUM_STEPS),
            "stopped_by": "steps",
            "spent": spent,
            "tolerance": 0.01,
        },
        "data": {
            "name": "text:play",
            "corpus_sha256": sha("corpus"),
            "tokenizer": {
                "kind": "bytes",
                "vocab_size": 257,
                "start_id": 256,
                "separator": True,
                "is_lossless": True,
                "sha256": sha("tokenizer"),
            },
            "source_nats": None,
            "splits": {
                "train": {"sha256": sha("train"), "num_tokens": 9001, "num_bytes": 9000},
                "tune": {"sha256": sha("tune"), "num_tokens": NUM_TUNE_BYTES + 1, "num_bytes": NUM_TUNE_BYTES},
                "test": {"sha256": sha("test"), "num_tokens": NUM_TEST_BYTES + 1, "num_bytes": NUM_TEST_BYTES},
            },
            "encoding_errors": "strict",
            "num_replaced": 0,
            "test_openings": [{"purpose": "score the artifact", "utc": "2025-01-01T00:01:00Z"}],
        },
        "params": {"stored": 12, "effective": 40, "active": 30, "parts": {"blocks": 10}},
        "artifact": {
            "artifact_bytes": len(artifact),
            "sha256": hashlib.sha256(artifact).hexdigest(),
            "parts": dict(parts),
            "coders": {"raw": 1},
            "plugin_bytes": 1_000,
            "decoder_closure_bytes": 5_000,
            "max_artifact_bytes": 100_000,
            "rules": "parameter-golf",
        },
        "metrics": {"test": metrics_of(scores), "tune": tune, "tune_before_export": tune},
        "time": {
            "wall_seconds": 16.0,
            "train_seconds": 9.0,
            "compression_seconds": 1.0,
            "validation_seconds": 3.0,
            "compilation_seconds": 0.0,
            "export_seconds": 1.0,
            "data_seconds": 2.0,
            "device_seconds": 11.0,
        },
        "progress": {
            "steps": NUM_STEPS,
            "tokens": NUM_STEPS * TOKENS_PER_STEP,
            "epochs": NUM_STEPS * TOKENS_PER_STEP / 9001,
            "flops_per_step": 1e9 / NUM_STEPS,
            "median_step_seconds": 0.45,
            "peak_memory_bytes": 10**8,
        },
        "environment": {
            "python": "3.11.0",
            "torch": "2.6",
            "numpy": "2.0",
            "harness": "0.1.0",
            "platform": "Linux x86_64",
            "cpu": "a processor",
            "num_threads": 1,
            "device": "cpu",
            "num_ranks": 1,
            "command_line": "harness run --method dense",
        },
        "lineage": [],
        "contended": False,
        "files": {},
    }


def write_log(folder: Path, fields: Fields) -> None:
    rng = np.random.default_rng(fields["seed"])
    test = fields["metrics"]["test"]
    with LogWriter(folder) as log:
        log.write("start", seed=fields["seed"], method="dense")
        for step in range(1, NUM_STEPS + 1):
            loss_nats = 5.5 - 0.1 * step + float(rng.uniform(0, 0.01))
            log.write(
                "step",
                step=step,
                loss_nats=loss_nats,
                lr_scale=1.0 - (step - 1) / NUM_STEPS,
                momentum=0.95,
                seconds=0.45 * step,
                tokens=TOKENS_PER_STEP * step,
            )
        artifact = fields["artifact"]
        log.write("export", artifact_bytes=artifact["artifact_bytes"], sha256=artifact["sha256"])
        log.write("test_open", purpose="score the artifact", utc="2025-01-01T00:01:00Z")
        log.write("eval", split="tune", step=NUM_STEPS, **fields["metrics"]["tune"])
        log.write("eval", split="test", step=NUM_STEPS, **test)
        log.write(
            "end",
            stopped_by="steps",
            steps=NUM_STEPS,
            tokens=NUM_STEPS * TOKENS_PER_STEP,
            val_bpb=test["val_bpb"],
            loss_nats=test["loss_nats"],
        )


def write_json(folder: Path, fields: Fields) -> None:
    (folder / RECORD_FILE).write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def make_record(folder: Path, seed: int = 7, artifact: bytes | None = None, parts: Fields | None = None) -> Path:
    """Write a good record folder."""
    folder.mkdir(parents=True)
    if artifact is None:
        artifact = b"weights of seed %d" % seed * 10
        parts = {"blocks": len(artifact) - 50, "header": 50}
    scores = scores_of(seed)
    fields = record_fields(seed, artifact, parts or {}, scores)
    (folder / ARTIFACT_FILE).write_bytes(artifact)
    np.savez_compressed(folder / SCORES_FILE, **scores)
    write_log(folder, fields)
    config = {
        "method": "dense",
        "preset": "tiny",
        "budget": fields["budget"]["text"],
        "data": "text:some/folder/play",
        "seed": seed,
        "encoding_errors": "strict",
        "model": {"width": 8, "layers": [1, 2]},
        "train": fields["settings"]["train"],
        "export": fields["settings"]["export"],
    }
    (folder / CONFIG_FILE).write_text(tomli_w.dumps(config), encoding="utf-8")
    write_json(folder, fields)
    reseal(folder)
    return folder


def edit(folder: Path, change: Callable[[Fields], Any]) -> None:
    """Change record.json and nothing else."""
    fields = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    change(fields)
    write_json(folder, fields)


def put(key: str, value: Any) -> Callable[[Path], None]:
    """Make the mutation that sets a dotted key of record.json; a function is applied to the old value."""

    def change(fields: Fields) -> None:
        *path, last = key.split(".")
        for name in path:
            fields = fields[name]
        fields[last] = value(fields[last]) if callable(value) else value

    return lambda folder: edit(folder, change)


def reseal(folder: Path) -> None:
    """Bring the hashes in record.json up to date, as a forger would."""
    files = {name: part.model_dump() for name, part in seal_files(folder).items()}
    edit(folder, lambda fields: fields.update(files=files))


def edit_log(change: Callable[[list[Fields]], Any]) -> Callable[[Path], None]:
    """Make the mutation that changes the events of the log and reseals the folder."""

    def mutate(folder: Path) -> None:
        path = folder / LOG_FILE
        events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        change(events)
        path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
        reseal(folder)

    return mutate


def edit_scores(change: Callable[[Fields], Any]) -> Callable[[Path], None]:
    """Make the mutation that changes the arrays of scores.npz and reseals the folder."""

    def mutate(folder: Path) -> None:
        with np.load(folder / SCORES_FILE) as stored:
            arrays = {name: stored[name].copy() for name in stored.files}
        change(arrays)
        np.savez_compressed(folder / SCORES_FILE, **arrays)
        reseal(folder)

    return mutate


def rewrite(name: str, change: Callable[[bytes], bytes], *, seal: bool = False) -> Callable[[Path], None]:
    """Make the mutation that changes the bytes of a file, by default without telling record.json."""

    def mutate(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))
        if seal:
            reseal(folder)

    return mutate
