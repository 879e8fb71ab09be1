"""What `harness show` says of records: one in full, or several side by side where they can be compared."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import UsageError
from harness.tables import Table, View, fmt, shares_table

if TYPE_CHECKING:
    from harness.records.schema import BesidePart, EnvironmentPart, EvalModePart, MetricsPart, Record

SPLITS = {"test": "test", "tune": "tune", "tune_before_export": "tune, before export"}


class Found(NamedTuple):
    """A record and the folder it was read from."""

    folder: Path
    record: Record


def read_records(paths: Sequence[Path]) -> list[Found]:
    """Read every record at or below the paths.

    Raises:
        UsageError: a path does not exist or holds no record.
        RecordError: a record cannot be read.
    """
    from harness.records.discovery import find_records
    from harness.records.native import read_record

    found: list[Found] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist")
        folders = find_records(path)
        if not folders:
            raise UsageError(f"no record found at or below {path}; a record folder holds a record.json")
        found += [Found(folder, read_record(folder)) for folder in folders]
    return found


def records_view(paths: Sequence[Path]) -> View:
    """One record in full, or several in one table for each text and eval mode.

    Raises:
        UsageError: a path does not exist or holds no record.
        RecordError: a record cannot be read.
    """
    found = read_records(paths)
    tables = list(_full_tables(found[0])) if len(found) == 1 else list(_side_by_side(found))
    return View(tables=tables, data=[{"folder": str(folder), **record.to_json()} for folder, record in found])


def _mode_text(mode: EvalModePart) -> str:
    return f"eval {mode.mode}, window {mode.context}, stride {mode.stride}"


def group_comparable(found: Sequence[Found]) -> dict[str, list[Found]]:
    """Put records together that may share a table: those scored on one text in one eval mode, by what these are."""
    groups: dict[tuple[str, str, int, str], list[Found]] = {}
    for each in found:
        test, data = each.record.metrics.test, each.record.data
        mode = _mode_text(test.eval_mode) if test else "not scored"
        groups.setdefault((data.corpus_sha256, data.splits.test.sha256, data.splits.test.num_bytes, mode), []).append(
            each
        )
    titles: dict[str, list[Found]] = {}
    for (corpus_sha256, test_sha256, test_bytes, mode), members in groups.items():
        title = f"{members[0].record.data.name}, {test_bytes:,} test bytes, {mode}"
        # another text of the same name and length, or another part of that text
        for more in ("", f", corpus {corpus_sha256[:12]}", f", corpus {corpus_sha256[:12]}, split {test_sha256[:12]}"):
            if title + more not in titles:
                titles[title + more] = members
                break
    return titles


def _side_by_side(found: Sequence[Found]) -> Iterator[Table]:
    parent = _common_parent([each.folder for each in found])
    for title, members in group_comparable(found).items():
        yield _group_table(title, members, parent)


def _common_parent(folders: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath([folder.parent for folder in folders]))
    except ValueError:  # absolute and relative ones
        return Path()


def _group_table(title: str, members: Sequence[Found], parent: Path) -> Table:
    """Seconds of unlike machines are not compared: there the machine stands in their place."""
    machines = [describe_machine(record.environment) for _, record in members]
    is_one_machine = len(set(machines)) == 1
    columns = ("record", "method", "budget", "bits/byte", "file bytes", "stored", "effective", "steps")
    rows = [
        (*_figures(each, parent), fmt(each.record.budget.spent.seconds, 1) if is_one_machine else machine)
        for each, machine in zip(members, machines, strict=True)
    ]
    return Table(
        title=f"{title}, {machines[0]}" if is_one_machine else title,
        columns=(*columns, "seconds" if is_one_machine else "device"),
        rows=rows,
        right=frozenset(range(3, 9 if is_one_machine else 8)),
    )


def _figures(found: Found, parent: Path) -> tuple[str, ...]:
    record = found.record
    test, artifact, params, progress = record.metrics.test, record.artifact, record.params, record.progress
    folder = found.folder.relative_to(parent) if found.folder.is_relative_to(parent) else found.folder
    return (
        str(folder),
        f"{record.method.name}/{record.preset}, seed {record.seed}",
        record.budget.text + ("" if record.status == "complete" else f" ({record.status})"),
        fmt(test.val_bpb if test else None) + (" PARTIAL" if test and test.partial else ""),
        fmt(artifact.artifact_bytes if artifact else None),
        fmt(params.stored if params else None),
        fmt(params.effective if params else None),
        fmt(progress.steps if progress else None),
    )


def describe_machine(environment: EnvironmentPart) -> str:
    """Name all that the seconds of a run depend on."""
    ranks = f" x {environment.num_ranks}" if environment.num_ranks > 1 else ""
    if environment.device != "cpu":
        return f"{environment.device}{ranks}"
    return f"{environment.cpu}, {environment.num_threads} thread(s){ranks}"


def _full_tables(found: Found) -> Iterator[Table]:
    folder, record = found
    yield Table(title=f"record {folder}", columns=("what", "value"), rows=list(_summary_rows(record)))
    scores = {name: getattr(record.metrics, split) for split, name in SPLITS.items()}
    scores = {name: metrics for name, metrics in scores.items() if metrics is not None}
    if scores:
        yield _scores_table(scores)
    if record.beside:
        yield _beside_table(record.beside)
    if record.artifact is not None:
        yield shares_table("stored bytes by part", record.artifact.parts, unit="bytes")
    if record.time is not None:
        seconds = {
            "training": record.time.train_seconds,
            "compression": record.time.compression_seconds,
            "export": record.time.export_seconds,
            "validation": record.time.validation_seconds,
            "compilation and warm-up": record.time.compilation_seconds,
            "data": record.time.data_seconds,
        }
        yield shares_table("time by part", seconds, unit="seconds", digits=1)


def _beside_table(beside: Sequence[BesidePart]) -> Table:
    """Show what a compression has to beat at its total of stored parameters."""
    rows = [
        (
            row.name,
            fmt(row.num_params),
            fmt(row.relative_error, 3),
            fmt(row.perplexity, 3),
            row.problem or "-" if row.more_nats is None else f"{row.more_nats:+.4f} +- {row.more_nats_error:.4f}",
            fmt(row.seconds, 1),
        )
        for row in beside
    ]
    return Table(
        title="beside it at no more stored parameters, windows of the tune split; relative error of the weights; "
        "nats/token more than the record's own way +- one standard error",
        columns=("way", "parameters", "error", "perplexity", "more nats", "seconds"),
        rows=rows,
        right=frozenset(range(1, 6)),
    )


def _scores_table(scores: Mapping[str, MetricsPart]) -> Table:
    rows = [
        (
            name + (" PARTIAL" if metrics.partial else ""),
            fmt(metrics.val_bpb, 5),
            fmt(metrics.loss_nats, 5),
            fmt(metrics.perplexity, 3),
            f"{metrics.token_accuracy:.2%}",
            fmt(metrics.num_tokens),
            fmt(metrics.num_bytes),
        )
        for name, metrics in scores.items()
    ]
    modes = dict.fromkeys(_mode_text(metrics.eval_mode) for metrics in scores.values())
    columns = ("split", "bits/byte", "nats/token", "perplexity", "accuracy", "tokens", "bytes")
    return Table(title=f"scores, {'; '.join(modes)}", columns=columns, rows=rows, right=frozenset(range(1, 7)))


def _summary_rows(record: Record) -> Iterator[tuple[str, str]]:
    method, tokenizer, budget, spent = record.method, record.data.tokenizer, record.budget, record.budget.spent
    yield "status", record.status + (f": {record.reason}" if record.reason else "")
    yield "method", f"{method.name} {method.version}, preset {record.preset}, seed {record.seed}"
    yield "data", f"{record.data.name}, tokenizer {tokenizer.kind} {tokenizer.vocab_size:,}"
    yield "budget", f"{budget.text}, stopped by {budget.stopped_by or '-'}"
    yield "spent", f"{spent.seconds:,.1f} s, {spent.steps:,} steps, {spent.tokens:,} tokens, {spent.flops:.3g} FLOPs"
    if record.lineage:
        yield "started from", _describe_lineage(record)
    yield from _size_rows(record)
    machine = record.environment
    yield "device", f"{machine.device}, {machine.num_ranks} rank(s), {machine.num_threads} thread(s)"
    yield "versions", f"harness {machine.harness}, torch {machine.torch}, python {machine.python}"
    yield "command", machine.command_line


def _describe_lineage(record: Record) -> str:
    names = ", ".join(ancestor.name for ancestor in record.lineage)
    if record.is_pretrained:
        return f"{names}, a pretrained model; what its training cost is unknown"
    steps = sum(ancestor.spent.steps for ancestor in record.lineage if ancestor.spent is not None)
    return f"{names}, which spent {steps:,} steps; {steps + record.budget.spent.steps:,} with them"


def _size_rows(record: Record) -> Iterator[tuple[str, str]]:
    if (params := record.params) is not None:
        numbers = f"stored {params.stored:,}, effective {params.effective:,}, active {params.active:,} a token"
        yield "parameters", numbers
    if (artifact := record.artifact) is not None:
        cap = f", cap {artifact.max_artifact_bytes:,}" if artifact.max_artifact_bytes else ""
        yield "file", f"{artifact.artifact_bytes:,} bytes{cap}"
        yield "coders", ", ".join(f"{name} ({count})" for name, count in artifact.coders.items())
        plugin, decoder = artifact.plugin_bytes, artifact.decoder_closure_bytes
        yield "code", f"plugin {plugin:,} bytes, decoder closure {decoder:,} bytes"
