"""A card for each record: what ran, what it scored, where its bytes went, on what machine, how to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.ledger import Cell, Ledger, Sheet, columns, words

Fields = Mapping[str, Any]
_SPLITS = (("test", "test"), ("tune", "tune"), ("tune_before_export", "tune, before export"))
_METRICS = (
    ("val_bpb", "bpb"),
    ("loss_nats", "bpb"),
    ("token_accuracy", "percent"),
    ("perplexity", "bpb"),
    ("num_tokens", "count"),
    ("num_bytes", "count"),
)
_NUMBERS = (
    ("stored parameters", "params.stored", "count"),
    ("effective parameters", "params.effective", "count"),
    ("active parameters", "params.active", "count"),
    ("file bytes", "artifact.artifact_bytes", "count"),
    ("plugin bytes", "artifact.plugin_bytes", "count"),
    ("decoder closure bytes", "artifact.decoder_closure_bytes", "count"),
    ("cap on file bytes", "artifact.max_artifact_bytes", "count"),
    ("steps", "progress.steps", "count"),
    ("tokens", "progress.tokens", "count"),
    ("epochs", "progress.epochs", "tenths"),
    ("FLOPs", "budget.spent.flops", "power"),
    ("seconds in the budget", "budget.spent.seconds", "tenths"),
    ("median step seconds", "progress.median_step_seconds", "power"),
    ("peak memory, MB", "progress.peak_memory_bytes", "megabytes"),
)
_HASHES = (
    ("corpus", "data.corpus_sha256"),
    ("test split", "data.splits.test.sha256"),
    ("tokenizer", "data.tokenizer.sha256"),
    ("method code", "method.code_sha256"),
    ("harness code", "environment.harness_code_sha256"),
    ("artifact", "artifact.sha256"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordCard:
    """A record with everything that its file says.

    Attributes:
        entry: of the document.
        record: content of its `record.json`.
        title: method, preset and seed.
        score: bits per byte of the test split.
        sheets: scores, numbers, bytes by part.
        parts: of the file, with the share of each.
        facts: words beside words: status, data, device, versions.
        hashes: names and values.
        commands: that repeat its numbers.
        replies: of its authors.
    """

    entry: Fields
    record: Fields
    title: str
    score: Cell
    size: Cell
    sheets: Sequence[Sheet]
    parts: Sequence[tuple[str, Cell, float]]
    facts: Sequence[tuple[str, str]]
    hashes: Sequence[tuple[str, str]]
    commands: Sequence[tuple[str, str]]
    replies: Sequence[Fields]


def record_cards(ledger: Ledger) -> Iterator[RecordCard]:
    """Yield the cards, without trials of a tuning, which are rows of `trials_sheet`."""
    ledger = Ledger(document=ledger.document)  # a card need not lead to itself
    for entry in ledger.document["records"]:
        if entry["is_trial"]:
            continue
        file = entry["file"]
        record = ledger.document["files"][file]
        method = record["method"]
        yield RecordCard(
            entry=entry,
            record=record,
            title=f"{method['name']}/{record['preset']}, seed {record['seed']}",
            score=ledger.number(f"{file}#metrics.test.val_bpb", "bpb"),
            size=ledger.number(f"{file}#artifact.artifact_bytes", "count"),
            sheets=[sheet for sheet in (_scores(ledger, file, record), _numbers(ledger, file)) if sheet.rows],
            parts=list(_parts(ledger, file, record)),
            facts=list(_facts(record)),
            hashes=[(what, value) for what, path in _HASHES if (value := _at(record, path))],
            commands=list(_commands(entry, record)),
            replies=replies_to(ledger.document, entry["folder"]),
        )


def replies_to(document: Fields, record: str) -> list[Fields]:
    """Return the replies to a record, known by its folder; two folders of one name share none."""
    return [each for each in document["responses"] if each["kind"] == "record" and record in each["subjects"]]


def trials_sheet(ledger: Ledger) -> Sheet:
    """Return the trials of tunings, a row each: they were chosen among and are no seeds of anything."""
    rows = []
    for entry in ledger.document["records"]:
        if not entry["is_trial"]:
            continue
        file, record = entry["file"], ledger.document["files"][entry["file"]]
        rows.append(
            [
                words(entry["folder"]),
                words(f"{record['method']['name']}/{record['preset']}"),
                words(record["status"]),
                ledger.number(f"{file}#metrics.tune.val_bpb", "bpb", href="#records"),
                ledger.number(f"{file}#artifact.artifact_bytes", "count", href="#records"),
                ledger.number(f"{file}#progress.steps", "count", href="#records"),
                words(entry["verdict"], style=entry["verdict"]),
            ]
        )
    heads = ("trial", "method", "status", "tune bits/byte", "file bytes", "steps", "verified")
    return Sheet(title="Trials of tunings", columns=columns(*heads, numbers="|".join(heads[3:6])), rows=rows)


def _at(record: Fields, path: str) -> Any:
    value: Any = record
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _scores(ledger: Ledger, file: str, record: Fields) -> Sheet:
    rows = []
    for key, name in _SPLITS:
        if (metrics := record["metrics"].get(key)) is not None:
            cells = [ledger.number(f"{file}#metrics.{key}.{metric}", style) for metric, style in _METRICS]
            rows.append([words(name + (" PARTIAL" if metrics["partial"] else "")), *cells])
    heads = ("split", "bits/byte", "nats/token", "accuracy", "perplexity", "tokens", "bytes")
    mode = (_at(record, "metrics.test.eval_mode") or {}) if rows else {}
    note = f"Eval mode {mode['mode']}, window {mode['context']}, stride {mode['stride']}." if mode else ""
    return Sheet(title="Scores", columns=columns(*heads, numbers="|".join(heads[1:])), rows=rows, note=note)


def _numbers(ledger: Ledger, file: str) -> Sheet:
    found = [(name, ledger.number(f"{file}#{path}", style)) for name, path, style in _NUMBERS]
    rows = [[words(name), cell] for name, cell in found if cell.source]
    return Sheet(title="Size and cost", columns=columns("what", "value", numbers="value"), rows=rows)


def _parts(ledger: Ledger, file: str, record: Fields) -> Iterator[tuple[str, Cell, float]]:
    parts = (record["artifact"] or {}).get("parts", {})
    total = sum(parts.values()) or 1
    for name in sorted(parts, key=lambda part: (-parts[part], part)):
        yield name, ledger.number(f"{file}#artifact.parts.{name}", "count"), parts[name] / total


def _facts(record: Fields) -> Iterator[tuple[str, str]]:
    data, budget, machine = record["data"], record["budget"], record["environment"]
    yield "status", record["status"] + (f": {record['reason']}" if record["reason"] else "")
    yield "made", record["created_utc"]
    yield "data", f"{data['name']}, tokenizer {data['tokenizer']['kind']} of {data['tokenizer']['vocab_size']:,}"
    yield "budget", f"{budget['text']}, stopped by {budget['stopped_by'] or '-'}"
    if record["lineage"]:
        yield "started from", ", ".join(ancestor["name"] for ancestor in record["lineage"])
    if record["artifact"]:
        yield "coders", ", ".join(f"{name} ({count})" for name, count in record["artifact"]["coders"].items())
    yield "device", f"{machine['device']}: {machine['cpu']}, {machine['num_threads']} thread(s)"
    yield (
        "versions",
        f"harness {machine['harness']}, torch {machine['torch']}, numpy {machine['numpy']}, python {machine['python']}",
    )
    if record["seal"]:
        yield "sealed for", f"{record['seal']['claim']}, hash {record['seal']['sha256'][:12]}"


def _commands(entry: Fields, record: Fields) -> Iterator[tuple[str, str]]:
    folder = shlex.quote(entry["folder"])
    yield "the run", record["environment"]["command_line"]
    # the levels of verify stand once, under "How to repeat it"
    yield "its score", f"harness verify {folder} --level evaluate"
