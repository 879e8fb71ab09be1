"""One mutation of a good record fails exactly one rule; a near miss of each rule stays green."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_factory import (
    NUM_STEPS,
    edit,
    edit_log,
    edit_scores,
    make_record,
    put,
    reseal,
    rewrite,
    sha,
)

from harness.records.native import ARTIFACT_FILE, CONFIG_FILE, LOG_FILE, RECORD_FILE, SCORES_FILE
from harness.records.schema import EvalModePart, TokenizerPart
from harness.verify.across import ACROSS_CHECKS
from harness.verify.checks_data import expected_targets
from harness.verify.findings import Report
from harness.verify.foreign import CHECKS as FOREIGN_CHECKS
from harness.verify.rules import load_rules
from harness.verify.run import verify_paths
from harness.verify.static import CHECKS

Mutation = Callable[[Path], object]

_WAY = {"relative_error": None, "more_nats": None, "more_nats_error": None, "seconds": 1.0}
WAYS: list[dict[str, Any]] = [
    _WAY | {"name": "rotation", "num_params": 100, "perplexity": 8.0},
    _WAY | {"name": "dense", "num_params": 200, "perplexity": 4.0, "more_nats": -math.log(2), "more_nats_error": 0.1},
    _WAY | {"name": "slicing", "num_params": 100, "perplexity": 16.0, "more_nats": math.log(2), "more_nats_error": 0.1},
    _WAY | {"name": "the same of Gaussian weights", "num_params": 90, "perplexity": None},
    _WAY | {"name": "truncated SVD", "num_params": None, "perplexity": None, "problem": "no rank is as small"},
]


def in_order(*mutations: Mutation) -> Mutation:
    return lambda folder: [mutate(folder) for mutate in mutations]


def unlink(name: str) -> Mutation:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: bytes = b"hello\n") -> Mutation:
    return lambda folder: (folder / name).write_bytes(content)


def link_outside(name: str) -> Mutation:
    def mutate(folder: Path) -> None:
        shutil.move(folder / name, folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return mutate


def set_file(name: str, key: str, value: object) -> Mutation:
    return lambda folder: edit(folder, lambda fields: fields["files"][name].update({key: value}))


def unlist(name: str) -> Mutation:
    return lambda folder: edit(folder, lambda fields: fields["files"].pop(name))


def list_extra(name: str) -> Mutation:
    def mutate(folder: Path) -> None:
        content = (folder / name).read_bytes()
        entry = {"bytes": len(content), "sha256": sha(content.decode())}
        edit(folder, lambda fields: fields["files"].update({name: entry}))

    return mutate


def event(kind: str, **fields: object) -> Mutation:
    """Set fields of the last event of a kind, and reseal."""

    def change(events: list[dict[str, object]]) -> None:
        [entry for entry in events if entry["event"] == kind][-1].update(fields)

    return edit_log(change)


def insert_before(kind: str, entry: dict[str, object]) -> Mutation:
    def change(events: list[dict[str, object]]) -> None:
        events.insert(next(i for i, other in enumerate(events) if other["event"] == kind), entry)

    return edit_log(change)


def in_config(old: str, new: str) -> Mutation:
    return rewrite(CONFIG_FILE, lambda raw: raw.replace(old.encode(), new.encode()), seal=True)


def budget_in_seconds(amount: float) -> Mutation:
    return in_order(
        put("budget.kind", "seconds"),
        put("budget.amount", amount),
        put("budget.text", f"{amount}s"),
        in_config(f'"{NUM_STEPS}steps"', f'"{amount}s"'),
    )


def step(number: int, **fields: object) -> Mutation:
    """Set fields of the line of a step."""
    return edit_log(lambda events: events[number].update(fields))


def phases(**rates: float) -> Mutation:
    """Let the recipe replay from step 16 on and distil in the last two; the log has the rates given here."""
    settings = {"replay_start": "-5", "replay_lr": 0.1, "distill_start": "-2", "distill_lr": 0.05}
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())

    def change(events: list[dict[str, object]]) -> None:
        for number in range(16, 21):
            events[number].update(lr_scale=rates["replay"] if number < 19 else rates["distill"])

    return in_order(
        put("settings.train", lambda train: train | settings),
        rewrite(CONFIG_FILE, lambda raw: raw.replace(b"[train]\n", b"[train]\n" + lines.encode()), seal=True),
        edit_log(change),
    )


def slow_last_step() -> Mutation:
    """Move the other steps forward, so that the last one seems to have taken two seconds."""
    return edit_log(lambda events: [events[i].update(seconds=0.35 * i) for i in range(1, 20)])


def overrun(amount: float) -> Mutation:
    return put("budget.overrun", amount)


def export_took(reserved_seconds: float) -> Mutation:
    """Log an export of a second, for which so many were kept."""
    return event("export", seconds=11.0, export_seconds=1.0, reserved_seconds=reserved_seconds)


def device_on(num_ranks: int) -> Mutation:
    """Say that the run began on another machine with so many ranks."""
    return lambda folder: edit(
        folder, lambda f: f.update(earlier_environments=[{**f["environment"], "num_ranks": num_ranks}])
    )


def source_above_score(bits: float, **sizes: float) -> Mutation:
    """State a true source whose code is longer than the scored one by so many bits."""

    def change(fields: dict[str, Any]) -> None:
        source_nats = fields["metrics"]["test"]["total_nats"] + bits * math.log(2)
        fields["data"]["source_nats"] = {"test": source_nats, **sizes}

    return lambda folder: edit(folder, change)


def deeply_nested(raw: bytes) -> bytes:
    return raw.replace(b'"reason": null', b'"reason": ' + b"[" * 5000 + b"]" * 5000)


OPENING = {"purpose": "a look", "utc": "2025-01-01T00:00:30Z"}
OTHER_SHA = sha("other")
PARTIAL = in_order(
    put("metrics.test.partial", True),
    put("data.splits.test.num_tokens", 901),
    put("data.splits.test.num_bytes", 900),
)

MUTATIONS: list[tuple[str, str, Mutation]] = [
    ("F1", "cut off", rewrite(RECORD_FILE, lambda raw: raw[:100])),
    ("F1", "empty", rewrite(RECORD_FILE, lambda raw: b"")),
    ("F1", "key twice", rewrite(RECORD_FILE, lambda raw: raw.replace(b"{", b'{"seed": 1,', 1))),
    ("F1", "NaN", rewrite(RECORD_FILE, lambda raw: raw.replace(b'"reason": null', b'"reason": NaN'))),
    ("F1", "huge exponent", rewrite(RECORD_FILE, lambda raw: raw.replace(b'"seed": 7', b'"seed": 1e999'))),
    ("F1", "huge integer", rewrite(RECORD_FILE, lambda raw: raw.replace(b'"seed": 7', b'"seed": 9' + b"9" * 99))),
    ("F1", "endless integer", rewrite(RECORD_FILE, lambda raw: raw.replace(b'"seed": 7', b'"seed": 9' + b"9" * 9999))),
    ("F1", "invalid UTF-8", rewrite(RECORD_FILE, lambda raw: raw.replace(b"dense", b"\xff\xfe"))),
    ("F1", "deep", rewrite(RECORD_FILE, deeply_nested)),
    ("F1", "link outside", link_outside(RECORD_FILE)),
    ("F2", "number as text", put("seed", "7")),
    ("F2", "bool for a count", put("artifact.artifact_bytes", True)),
    ("F2", "field missing", lambda folder: edit(folder, lambda fields: fields.pop("budget"))),
    ("F2", "no test score", put("metrics.test", None)),
    ("F2", "negative count", put("params.stored", -1)),
    ("F2", "newer schema", put("schema", 99)),
    ("F2", "schema as text", put("schema", "1")),
    ("F2", "no object", rewrite(RECORD_FILE, lambda raw: b"[]")),
    ("F2", "path trick", set_file("artifact.bin", "bytes", "x")),
    (
        "F2",
        "file outside",
        lambda folder: edit(folder, lambda f: f["files"].update({"../../etc/passwd": {"bytes": 1, "sha256": sha("")}})),
    ),
    ("F4", "scores missing", unlink(SCORES_FILE)),
    ("F4", "artifact empty", rewrite(ARTIFACT_FILE, lambda raw: b"")),
    ("F4", "log not listed", unlist(LOG_FILE)),
    ("F4", "artifact is a link", link_outside(ARTIFACT_FILE)),
    ("F4", "config is a folder", in_order(unlink(CONFIG_FILE), lambda folder: (folder / CONFIG_FILE).mkdir())),
    ("F4", "log is a pipe", in_order(unlink(LOG_FILE), lambda folder: os.mkfifo(folder / LOG_FILE))),
    ("F5", "artifact flipped", rewrite(ARTIFACT_FILE, lambda raw: b"W" + raw[1:])),
    ("F5", "artifact cut", rewrite(ARTIFACT_FILE, lambda raw: raw[:-1])),
    ("F5", "log line changed", rewrite(LOG_FILE, lambda raw: raw.replace(b'"step": 20', b'"step": 21'))),
    ("F5", "scores swapped", rewrite(SCORES_FILE, lambda raw: raw + b"\0")),
    ("F5", "listed size", set_file(CONFIG_FILE, "bytes", 3)),
    ("F5", "listed hash", set_file(SCORES_FILE, "sha256", OTHER_SHA)),
    ("F6", "log line no JSON", rewrite(LOG_FILE, lambda raw: raw.replace(b"}", b"", 1), seal=True)),
    ("F6", "log cut off", rewrite(LOG_FILE, lambda raw: raw[:-5], seal=True)),
    ("F6", "steps backwards", edit_log(lambda events: events.insert(3, events.pop(5)))),
    ("F6", "loss as text", edit_log(lambda events: events[2].update(loss_nats="nan"))),
    ("F6", "no .npz", rewrite(SCORES_FILE, lambda raw: b"PK" + raw[20:], seal=True)),
    ("F6", "array missing", edit_scores(lambda arrays: arrays.pop("block_bytes"))),
    ("F6", "NaN in scores", edit_scores(lambda arrays: arrays["block_nats"].fill(np.nan))),
    ("F6", "float counts", edit_scores(lambda arrays: arrays.update(block_tokens=arrays["block_nats"]))),
    ("F6", "no TOML", rewrite(CONFIG_FILE, lambda raw: raw + b"= 3", seal=True)),
    ("B1", "record", put("artifact.artifact_bytes", lambda old: old + 1)),
    ("B1", "log", event("export", artifact_bytes=17)),
    ("B1", "log has text", event("export", artifact_bytes="190")),
    ("B2", "record", put("artifact.sha256", OTHER_SHA)),
    ("B2", "log", event("export", sha256=OTHER_SHA)),
    ("B3", "part too large", put("artifact.parts.blocks", lambda old: old + 1)),
    ("B4", "own cap", put("artifact.max_artifact_bytes", 10)),
    ("B4", "code counts", put("artifact.decoder_closure_bytes", 16_000_000)),
    ("M1", "nats", put("metrics.test.total_nats", lambda old: old * 1.001)),
    ("M1", "tokens", put("metrics.test.num_tokens", lambda old: old + 1)),
    ("M1", "bytes", put("metrics.test.num_bytes", lambda old: old - 1)),
    ("M1", "block", edit_scores(lambda arrays: arrays["block_nats"].__setitem__(2, 1.0))),
    ("M1", "blocks cut", edit_scores(lambda arrays: arrays["block_tokens"].__setitem__(4, 90))),
    ("M2", "record", put("metrics.test.val_bpb", lambda old: old - 0.001)),
    ("M2", "log", event("end", val_bpb=1.0)),
    ("M3", "loss", put("metrics.test.loss_nats", lambda old: old - 0.001)),
    ("M3", "perplexity", put("metrics.test.perplexity", lambda old: old - 0.01)),
    ("M3", "log", event("end", loss_nats=1.0)),
    ("M4", "record", put("metrics.test.token_accuracy", lambda old: old + 0.002)),
    ("M4", "wrong answers", edit_scores(lambda arrays: arrays["block_correct"].__iadd__(1))),
    ("M5", "bpb", put("metrics.tune.val_bpb", lambda old: old - 0.001)),
    ("M5", "unsaid part", put("metrics.tune_before_export.num_tokens", 200)),
    ("M5", "nothing scored", put("metrics.tune.num_bytes", 0)),
    ("M6", "stride", put("metrics.test.eval_mode.stride", 32)),
    ("M6", "scores' context", edit_scores(lambda arrays: arrays.update(context=np.int64(64)))),
    ("M7", "source beaten by 21 bits", source_above_score(21)),
    ("M8", "difference", put("beside", [*WAYS[:2], WAYS[2] | {"more_nats": 0.1}])),
    ("M8", "larger than its own", put("beside", [*WAYS[:2], WAYS[2] | {"num_params": 101}])),
    ("M8", "no own way", put("beside", WAYS[2:])),
    ("M8", "no numbers and no reason", put("beside", [*WAYS[:4], WAYS[4] | {"problem": ""}])),
    ("S1", "record", put("progress.steps", NUM_STEPS + 5)),
    ("S1", "spent", put("budget.spent.steps", NUM_STEPS - 1)),
    ("S1", "log", event("end", steps=25)),
    ("S1", "steps beyond the end", edit_log(lambda events: events[20].update(step=21))),
    ("S1", "every fifth step logged", edit_log(lambda events: events.__setitem__(slice(1, 21), events[5:21:5]))),
    ("S1", "a step dropped", edit_log(lambda events: events.pop(9))),
    ("S1", "the last step dropped", edit_log(lambda events: events.pop(20))),
    ("S2", "record", put("progress.tokens", 17)),
    ("S2", "a step", step(4, tokens=10)),
    (
        "S2",
        "all but the batches",
        in_order(*(put(f"{at}.tokens", 99) for at in ("progress", "budget.spent")), event("end", tokens=99)),
    ),
    ("S2", "epochs", put("progress.epochs", 0.2)),
    ("S2", "operations", put("budget.spent.flops", 1e8)),
    ("S6", "rate", step(7, lr_scale=0.9)),
    ("S6", "rate not logged", edit_log(lambda events: events[7].pop("lr_scale"))),
    ("S6", "momentum", step(7, momentum=0.9)),
    ("S6", "rate of a replay", phases(replay=0.2, distill=0.05)),
    ("S6", "rate of the distillation", phases(replay=0.1, distill=0.1)),
    ("S2", "log", event("end", tokens=17)),
    ("S3", "amount", put("budget.amount", 10.0)),
    ("S3", "text", put("budget.text", "10steps")),
    ("S3", "no budget", put("budget.text", "a while")),
    ("S3", "asked otherwise", in_config(f"{NUM_STEPS}steps", "10steps")),
    ("S3", "overspent", budget_in_seconds(9.0)),
    ("S3", "overspent, rescued by a slow last step", in_order(budget_in_seconds(9.0), slow_last_step())),
    ("S3", "overspent and said, not by the export", in_order(budget_in_seconds(9.0), overrun(2.0), export_took(0.5))),
    ("S3", "overspent by the export, unsaid", in_order(budget_in_seconds(10.5), export_took(0.75))),
    ("S3", "another overrun", put("budget.overrun", 1.0)),
    ("S3", "the log spent more", in_order(budget_in_seconds(12.0), event("export", seconds=11.5))),
    ("S3", "no time left for the export", in_order(budget_in_seconds(12.0), step(20, seconds=10.5))),
    ("S4", "record", put("budget.stopped_by", "seconds")),
    ("S4", "log", event("end", stopped_by="interrupt")),
    ("T1", "parts", put("time.train_seconds", 20.0)),
    ("T1", "wall", put("time.wall_seconds", 5.0)),
    ("T1", "device", put("time.device_seconds", 40.0)),
    ("T1", "device, on the ranks of both machines", in_order(device_on(2), put("time.device_seconds", 40.0))),
    ("T2", "less than its stages", put("budget.spent.seconds", 5.0)),
    ("T2", "more than its stages", put("time.train_seconds", 4.0)),
    ("T2", "backwards", step(9, seconds=2.0)),
    ("T2", "a step after the end", step(20, seconds=90.0)),
    ("T2", "the log spent more", event("export", seconds=14.0)),
    ("T2", "more than the wall clock", put("budget.spent.seconds", 50.0)),
    ("E1", "record", put("seed", 8)),
    ("E1", "config", in_config("seed = 7", "seed = 8")),
    ("E1", "log", event("start", seed=8)),
    ("E2", "setting", put("settings.model.width", 16)),
    ("E2", "new setting", put("settings.train", lambda old: {**old, "warmup": 3})),
    ("E2", "method", put("method.name", "legendre")),
    ("E2", "corpus", in_config("text:some", "shards:some")),
    ("E2", "config setting", in_config("width = 8", "width = 9")),
    ("D1", "split longer", put("data.splits.test.num_tokens", 601)),
    ("D1", "whole, but said to be partial", put("metrics.test.partial", True)),
    ("D1", "bytes", put("data.splits.test.num_bytes", 501)),
    ("D2", "twice in the record", put("data.test_openings", lambda old: [*old, OPENING])),
    ("D2", "not logged", edit_log(lambda events: events.pop(-4))),
    ("D2", "before the export", insert_before("export", {"event": "test_open"})),
    (
        "D2",
        "early, in both",
        in_order(insert_before("step", {"event": "test_open"}), put("data.test_openings", [OPENING] * 2)),
    ),
    ("D3", "strict but replaced", put("data.num_replaced", 3)),
]

# Unusual, or not to be judged: one rule says so, nothing fails.
REMARKS: list[tuple[str, str, str, Mutation]] = [
    ("F3", "unverifiable", "interrupted", put("status", "interrupted")),
    ("F3", "unverifiable", "running", in_order(put("status", "running"), unlink(ARTIFACT_FILE), put("artifact", None))),
    ("F3", "unverifiable", "failed", in_order(put("status", "failed"), put("reason", "disk full"))),
    ("F7", "note", "extra file", write("author_reply.md")),
    ("F7", "note", "checkpoint left", write("checkpoint.pt")),
    ("F7", "note", "extra folder", lambda folder: (folder / "plots").mkdir()),
    ("F7", "note", "extra key", put("remark", "mine")),
    ("F7", "note", "extra key inside", put("metrics.test.remark", "mine")),
    ("T1", "note", "unexplained time", put("time.wall_seconds", 200.0)),
    ("D1", "note", "partial beside a true source", in_order(source_above_score(21), PARTIAL)),
    ("M7", "unverifiable", "no source of the test text", put("data.source_nats", {"tune": 1.0})),
    ("S3", "note", "late export, said", in_order(budget_in_seconds(10.5), overrun(0.5), export_took(0.75))),
    ("T3", "note", "contended", put("contended", True)),
    ("D1", "note", "partial", PARTIAL),
    (
        "D2",
        "note",
        "scored again after a cut",
        in_order(insert_before("eval", {"event": "test_open"}), put("data.test_openings", [OPENING] * 2)),
    ),
    (
        "D3",
        "note",
        "replaced and said",
        in_order(
            put("data.num_replaced", 3),
            put("data.encoding_errors", "replace"),
            in_config('"strict"', '"replace"'),
        ),
    ),
]

NEAR_MISSES: list[tuple[str, str, Mutation]] = [
    ("F1", "other layout", rewrite(RECORD_FILE, lambda raw: json.dumps(json.loads(raw)).encode())),
    ("F2", "whole number for a float", put("budget.amount", NUM_STEPS)),
    ("F3", "complete with a remark", put("reason", "resumed twice")),
    (
        "F4",
        "link inside",
        lambda folder: (
            (folder / LOG_FILE).rename(folder / "l"),
            (folder / LOG_FILE).symlink_to("l"),
            list_extra("l")(folder),
        ),
    ),
    ("F5", "same bytes again", rewrite(ARTIFACT_FILE, lambda raw: raw)),
    ("F6", "unknown event", edit_log(lambda events: events.insert(2, {"event": "weather", "rain": True}))),
    ("F6", "unknown array", edit_scores(lambda arrays: arrays.update(extra=np.zeros(3)))),
    ("F6", "comment in the config", rewrite(CONFIG_FILE, lambda raw: b"# mine\n" + raw, seal=True)),
    ("F7", "extra file listed", in_order(write("notes.md"), list_extra("notes.md"))),
    (
        "B1",
        "two exports, the last counts",
        insert_before("export", {"event": "export", "artifact_bytes": 9, "sha256": ""}),
    ),
    ("B2", "probe before the export", insert_before("step", {"event": "export", "artifact_bytes": 9, "sha256": ""})),
    ("B3", "other parts, same sum", put("artifact.parts", lambda old: {"a": 1, "b": sum(old.values()) - 1})),
    (
        "B4",
        "exactly the cap",
        lambda folder: put("artifact.max_artifact_bytes", (folder / ARTIFACT_FILE).stat().st_size)(folder),
    ),
    ("B4", "no cap", in_order(put("artifact.max_artifact_bytes", None), put("artifact.rules", None))),
    (
        "B4",
        "code to the last byte",
        lambda folder: put("artifact.decoder_closure_bytes", 16_000_000 - (folder / ARTIFACT_FILE).stat().st_size)(
            folder
        ),
    ),
    ("M1", "order of summation", put("metrics.test.total_nats", lambda old: old * (1 + 1e-12))),
    ("M2", "last digits", put("metrics.test.val_bpb", lambda old: old * (1 + 1e-8))),
    ("M3", "last digits", put("metrics.test.perplexity", lambda old: old * (1 - 1e-8))),
    ("M4", "last digits", put("metrics.test.token_accuracy", lambda old: old * (1 + 1e-8))),
    ("M5", "no tune scores", in_order(put("metrics.tune", None), put("metrics.tune_before_export", None))),
    (
        "M5",
        "said to be partial",
        in_order(
            put("metrics.tune.partial", True),
            put("data.splits.tune.num_tokens", 900),
            put("metrics.tune_before_export", None),
        ),
    ),
    ("M6", "other integer type", edit_scores(lambda arrays: arrays.update(context=np.int32(32)))),
    ("M7", "source beaten by 19 bits", source_above_score(19, train=1.0)),
    ("M7", "far from the source", source_above_score(-500)),
    ("M8", "as it should be", put("beside", WAYS)),
    ("S1", "a resume between", insert_before("export", {"event": "resume", "step": 20})),
    ("S2", "tokens of a step not logged", edit_log(lambda events: events[4].pop("tokens"))),
    ("S2", "operations not known", put("progress.flops_per_step", None)),
    ("S6", "one fit, said", insert_before("step", {"event": "fit", "step": 0, "steps": 20})),
    ("S6", "replay and distillation", phases(replay=0.1, distill=0.05)),
    ("S6", "last digits", step(7, lr_scale=0.7 * (1 + 1e-12))),
    ("S6", "no step was counted", in_order(budget_in_seconds(12.0), step(7, lr_scale=0.5))),
    (
        "S3",
        "one step too many",
        in_order(
            put("budget.amount", 19.0),
            put("budget.text", "19steps"),
            in_config("20steps", "19steps"),
            edit_log(lambda events: [events[i].update(lr_scale=1 - (i - 1) / 19) for i in range(1, 21)]),
        ),
    ),
    ("S3", "within one percent", in_order(budget_in_seconds(10.95), put("budget.tolerance", 0.5))),
    ("S3", "one step too late", budget_in_seconds(10.56)),
    ("S3", "no overrun, said", put("budget.overrun", 0.0)),
    (
        "S4",
        "another reason in both",
        in_order(put("budget.stopped_by", "interrupt"), event("end", stopped_by="interrupt")),
    ),
    ("T1", "half a second", put("time.train_seconds", 9.5)),
    ("T1", "resumed with fewer ranks", in_order(device_on(2), put("time.device_seconds", 30.0))),
    ("T2", "half a second", put("budget.spent.seconds", 10.5)),
    ("T3", "not measured", put("contended", None)),
    ("E1", "resumed with the same seed", insert_before("step", {"event": "start", "seed": 7})),
    ("E2", "further keys", rewrite(CONFIG_FILE, lambda raw: b"overrides = []\n" + raw, seal=True)),
    ("E2", "null is absent", put("settings.model.dropout", None)),
    ("D1", "other split sizes", put("data.splits.train.num_bytes", 17)),
    ("D2", "other purpose", put("data.test_openings", [OPENING])),
    ("D3", "nothing to replace", in_order(put("data.encoding_errors", "replace"), in_config('"strict"', '"replace"'))),
]


def label(row: tuple[object, ...]) -> str:
    return "-".join(str(cell) for cell in row[:-1]).replace(" ", "_")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_record(tmp_path / "record")


def statuses(report: Report, status: str) -> set[str]:
    assert report.internal_errors == [], report.internal_errors[0].traceback
    return {finding.rule for finding in report.findings if finding.status == status}


def test_good_record_passes_every_rule(folder: Path) -> None:
    report = verify_paths([folder])
    assert [finding for finding in report.findings if finding.status != "pass"] == []
    assert {finding.rule for finding in report.findings} == {*CHECKS, *ACROSS_CHECKS}
    assert report.exit_code == 0
    headline = report.headline(report.findings)
    assert headline is not None
    assert headline.claimed == headline.logged == pytest.approx(headline.measured)


@pytest.mark.parametrize(("rule", "what", "mutate"), MUTATIONS, ids=map(label, MUTATIONS))
def test_one_mutation_fails_one_rule(rule: str, what: str, mutate: Mutation, folder: Path) -> None:
    mutate(folder)
    report = verify_paths([folder])
    assert statuses(report, "fail") == {rule}
    assert statuses(report, "note") == set()
    assert report.exit_code == 1
    severity = {finding.severity for finding in report.findings if finding.status == "fail"}
    assert severity == {load_rules().rules[rule].severity}
    assert all(finding.fix for finding in report.findings if finding.status == "fail")


@pytest.mark.parametrize(("rule", "status", "what", "mutate"), REMARKS, ids=map(label, REMARKS))
def test_what_is_unusual_does_not_fail(rule: str, status: str, what: str, mutate: Mutation, folder: Path) -> None:
    mutate(folder)
    report = verify_paths([folder])
    assert statuses(report, "fail") == set()
    assert statuses(report, "note") | statuses(report, "unverifiable") == {rule}
    assert statuses(report, status) == {rule}
    assert report.exit_code == 0
    assert verify_paths([folder], is_strict=True).exit_code == int(status == "unverifiable")


@pytest.mark.parametrize(("rule", "what", "mutate"), NEAR_MISSES, ids=map(label, NEAR_MISSES))
def test_near_miss_stays_green(rule: str, what: str, mutate: Mutation, folder: Path) -> None:
    mutate(folder)
    report = verify_paths([folder])
    assert [finding for finding in report.findings if finding.status != "pass"] == []


def test_every_single_record_rule_is_covered() -> None:
    spoiled = {rule for rule, *_ in MUTATIONS} | {rule for rule, *_ in REMARKS}
    assert spoiled == set(CHECKS)
    assert {rule for rule, *_ in NEAR_MISSES} == set(CHECKS)


def test_every_static_rule_has_a_check() -> None:
    ids = {rule.id for rule in load_rules().of_level("static")}
    assert ids == {*CHECKS, *ACROSS_CHECKS, *FOREIGN_CHECKS, "F0"}


def test_findings_carry_the_three_numbers_and_their_place(folder: Path) -> None:
    put("metrics.test.val_bpb", 1.5)(folder)
    finding = next(f for f in verify_paths([folder]).findings if f.status == "fail")
    text = (folder / RECORD_FILE).read_text().splitlines()
    line = next(i for i, row in enumerate(text, 1) if '"val_bpb": 1.5' in row)
    assert (finding.claimed, finding.path, finding.family) == (1.5, SCORES_FILE, "metrics")
    assert finding.logged == pytest.approx(finding.measured)
    assert f"{RECORD_FILE}:{line} metrics.test.val_bpb says 1.5" in finding.message


def test_damaged_file_makes_its_dependents_unverifiable(folder: Path) -> None:
    rewrite(LOG_FILE, lambda raw: raw + b"\n")(folder)
    report = verify_paths([folder])
    gaps = [finding for finding in report.findings if finding.status == "unverifiable"]
    assert {finding.rule for finding in gaps} == {
        "F6",
        "B1",
        "B2",
        "M2",
        "M3",
        "M4",
        "S1",
        "S2",
        "S3",
        "S4",
        "S6",
        "E1",
        "E4",
        "D2",
    }
    assert all("because F5 failed (log.jsonl)" in finding.message for finding in gaps if finding.rule != "E4")


def test_reseal_alone_changes_nothing(folder: Path) -> None:
    before = (folder / RECORD_FILE).read_bytes()
    reseal(folder)
    assert (folder / RECORD_FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("mode", "context", "stride", "num_tokens", "separator", "num_targets"),
    [
        ("sliding", 8, 4, 41, True, 40),  # the first token is the start token
        ("sliding", 8, 4, 40, False, 40),  # the start token is put before the first
        ("sliding", 8, 4, 0, True, 0),
        ("disjoint", 8, 8, 47, False, 35),  # 5 windows of 8, the first token of each is not scored
        ("disjoint", 8, 8, 7, False, 0),
        ("challenge", 8, 8, 44, True, 40),  # 43 targets fill 5 windows of 8
        ("challenge", 8, 8, 8, False, 0),
        ("challenge-sliding", 8, 4, 18, True, 8 + 4 + 4 + 4),  # starts 0, 4, 8, 12 of 16 targets
        ("challenge-sliding", 8, 3, 17, True, 8 + 3 + 3 + 3 + 3 + 1),  # starts 0, 3, ..., 15; the last has one left
        ("challenge-sliding", 8, 8, 9, True, 8),
    ],
)
def test_targets_of_a_whole_split(
    mode: str, context: int, stride: int, num_tokens: int, separator: bool, num_targets: int
) -> None:
    eval_mode = EvalModePart(mode=mode, context=context, stride=stride)
    tokenizer = TokenizerPart(
        kind="bytes", vocab_size=256, start_id=0, separator=separator, is_lossless=True, sha256="0" * 64
    )
    assert expected_targets(eval_mode, num_tokens, tokenizer) == num_targets


def test_the_start_token_of_a_pretrained_tokenizer_fills_a_window() -> None:
    mode = EvalModePart(mode="disjoint", context=8, stride=8)
    fields = {"kind": "tokenizers", "vocab_size": 9, "start_id": 0, "separator": False, "is_lossless": True}
    for begins_texts, num_targets in ((False, 7), (True, 14)):
        tokenizer = TokenizerPart(**fields, begins_texts=begins_texts, sha256="0" * 64)
        assert expected_targets(mode, 15, tokenizer) == num_targets
