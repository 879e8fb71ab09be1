"""Folders with everything that a report shows: records, a comparison, a sweep, a foreign folder, claims, a reply."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from record_factory import edit, make_record, put

from harness.responses import file_response

HOSTILE = "<script>alert(1)</script>|`x`\x1b[31m\u202e\"'&<img src=x onerror=alert(2)>"

CLAIMS = """
schema = 1
[source]
id = "paper"
title = "A paper TITLE_HERE"
url = "javascript:alert(3)"
date = "2026-01-02"
[facts.before]
value = "1,000"
where = "table 1 WHERE_HERE"
[facts.after]
value = "100"
where = "table 1"
[facts.factor]
value = "10x"
where = "headline"
[facts.wrong]
value = "12x"
where = "headline"
[margins.some]
value = "1%"
reason = "what would not change anybody's mind"
[[claims]]
id = "C1"
statement = "ten times smaller STATEMENT_HERE"
[[claims.predicates]]
says = "the sizes give the factor"
holds_if = "before / after == factor"
[[claims]]
id = "C2"
statement = "twelve times smaller"
counter = "harness claims show paper.C2"
[[claims.predicates]]
says = "the sizes give the other factor"
holds_if = "before / after == wrong"
[[claims]]
id = "C3"
statement = "as good at the large scale"
scale = "a large network"
decide = "harness claims run paper.C3"
cost = "days"
[[claims.predicates]]
says = "three runs of ours are there"
holds_if = 'runs("dense/tiny") > 100'
is_reduced = true
[[claims]]
id = "C4"
statement = "nobody can say"
unpublished = "everything"
"""


def only_given_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the claims of the methods out, whose construction takes seconds."""
    monkeypatch.setattr("reports.gather.judge_plugins", lambda folders: [])


def write_claims(path: Path, *, is_hostile: bool = False) -> Path:
    """Write a claim file with one claim of each verdict."""
    # a TOML string in quotes takes the escapes of JSON
    text = json.dumps(HOSTILE)[1:-1] if is_hostile else ""
    content = CLAIMS
    for mark in ("TITLE_HERE", "WHERE_HERE", "STATEMENT_HERE"):
        content = content.replace(mark, text)
    path.write_text(content, encoding="utf-8")
    return path


def make_comparison(folder: Path, *, seeds: Sequence[int] = (0, 1, 2)) -> Path:
    """Write a grid of two contenders with complete cells."""
    for at, method in enumerate(("dense", "mpo")):
        for seed in seeds:
            cell = make_record(folder / f"{method}-tiny" / f"seed{seed}", seed=10 * at + seed)
            put("seed", seed)(cell)
            put("method.name", method)(cell)
    grid = {
        "schema": 1,
        "contenders": [{"method": "dense", "preset": "tiny"}, {"method": "mpo", "preset": "tiny"}],
        "seeds": list(seeds),
        "budget": "20steps",
        "data": "shakespeare",
    }
    (folder / "grid.json").write_text(json.dumps(grid))
    return folder


def make_ladder(folder: Path) -> Path:
    """Write the same comparison at two sizes, the larger with four times the stored parameters."""
    for size, stored in (("small", 1000), ("large", 4000)):
        make_comparison(folder / size)
        for record in (folder / size).rglob("record.json"):
            put("params.stored", stored)(record.parent)
    (folder / "ladder.json").write_text(json.dumps({"schema": 1, "sizes": ["small", "large"]}))
    return folder


def make_sweep(path: Path, *, name: str = "dense", scale: float = 1.0) -> Path:
    """Write a file as `harness quantise --sweep --out` does."""
    points = [(1000 * 2**at, scale * (2.0 + 0.5 / (1 + at))) for at in range(4)]
    sweep = {
        "record": f"records/{name}",
        "method": name,
        "preset": "tiny",
        "budget": "20steps",
        "seed": 0,
        "settings_key": name,
        "split": "tune",
        "split_sha256": "0" * 64,
        "eval_mode": {"mode": "sliding", "context": 32, "stride": 16},
        "frontier": {"points": [{"stored": {"artifact_bytes": size, "val_bpb": bpb}} for size, bpb in points]},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sweep))
    return path


def make_foreign(folder: Path, **changes: Any) -> Path:
    """Write a submission whose total of bytes is not the sum of its parts."""
    folder.mkdir(parents=True)
    summary = {
        "author": HOSTILE,
        "name": HOSTILE,
        "val_bpb": 1.2,
        "bytes_total": 999,
        "bytes_code": 100,
        "bytes_model": 800,
    }
    (folder / "submission.json").write_text(json.dumps(summary | changes))
    (folder / "README.md").write_text(f"# {HOSTILE}\n\nval_bpb 1.3\n")
    (folder / "train.log").write_text("step:10/10 val_loss:2.0 val_bpb:1.2500\n")
    return folder


def make_evidence(root: Path, *, is_hostile: bool = True) -> list[Path]:
    """Write folders of everything below `root` and return the arguments of a report.

    Records: three seeds of one thing, one in another eval mode, one scored in part, one unfinished, one of odd names.
    """
    records = root / "records"
    for seed in (1, 2, 3):
        make_record(records / f"plain-seed{seed}", seed=seed)
    other = make_record(records / "other-window", seed=4)
    put("metrics.test.eval_mode", {"mode": "sliding", "context": 64, "stride": 32})(other)
    partial = make_record(records / "partial", seed=5)
    put("metrics.test.partial", True)(partial)
    unfinished = make_record(records / "unfinished", seed=6)
    edit(unfinished, lambda fields: fields.update(status="failed", reason="the disk was full"))
    if is_hostile:
        odd = make_record(records / "odd|<b>name", seed=8)
        for key in ("name", "preset", "data.name", "environment.cpu", "environment.command_line", "method.name"):
            put(key, HOSTILE)(odd)
        put("artifact.parts", {HOSTILE: 100, "a.b": 20, "header": 42})(odd)
    make_comparison(root / "comparisons" / "pair")
    make_sweep(root / "comparisons" / "dense-sweep.json")
    make_sweep(root / "comparisons" / "mpo-sweep.json", name="mpo", scale=1.1)
    make_foreign(root / "submissions" / "theirs")
    reply = root / "reply.txt"
    reply.write_text(f"We ran it again.\n{HOSTILE}\n", encoding="utf-8")
    file_response(str(records / "plain-seed1"), reply, author=HOSTILE if is_hostile else "the authors")
    return [records, root / "comparisons", root / "submissions"]
