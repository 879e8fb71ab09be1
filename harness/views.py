"""What the commands show, as tables of text: no numbers are made here but differences of two that stand beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import RecordError, UsageError
from harness.tables import Table, fmt

if TYPE_CHECKING:
    from harness.artifact.inspection import Inspection
    from harness.records.schema import MetricsPart, Record

SPLITS = {"test": "test", "tune": "tune", "tune_before_export": "tune, before export"}


def methods_table() -> Table:
    """List every registered method with its presets and source."""
    from harness.registry import list_methods

    rows = [
        (
            info.name,
            info.toml.kind,
            info.toml.summary,
            ", ".join(info.toml.presets),
            f"{info.toml.source.title} {info.toml.source.date}".strip(),
        )
        for info in sorted(list_methods().values(), key=lambda info: (info.toml.kind != "method", info.name))
    ]
    return Table(
        title="methods and baselines",
        columns=("name", "kind", "what it does", "presets", "source"),
        rows=rows,
    )


def sources_table(data_dir: Path | None) -> Table:
    """List the corpora that `--data` takes."""
    from harness.data.corpora import list_sources

    rows = [
        (
            source.name,
            source.summary,
            fmt(source.num_bytes),
            "yes" if source.is_cached else "no",
            source.how_to_get,
        )
        for source in list_sources(data_dir)
    ]
    columns = ("--data", "what it is", "bytes", "here", "where it comes from")
    return Table(title="corpora", columns=columns, rows=rows, right=frozenset({2}))


def doctor_table() -> tuple[Table, bool]:
    """Return the diagnosis of this machine, and whether nothing failed."""
    from harness.doctor import diagnose

    lines = diagnose()
    rows = [(line.status.upper(), line.subject, line.message) for line in lines]
    healthy = all(line.status != "fail" for line in lines)
    return Table(title="doctor", columns=("status", "what", "finding"), rows=rows), healthy


def read_records(paths: Sequence[Path]) -> list[tuple[str, Record]]:
    """Read every record at or below the paths, named as found.

    Raises:
        UsageError: a path does not exist or holds no record.
        RecordError: a record cannot be read.
    """
    from harness.records.native import find_records, read_record

    found: list[tuple[str, Record]] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist")
        folders = find_records(path)
        if not folders:
            raise UsageError(f"no record found at or below {path}; a record folder holds a record.json")
        found += [(str(folder), read_record(folder)) for folder in folders]
    return found


def record_tables(paths: Sequence[Path]) -> list[Table]:
    """One record in full, or several side by side."""
    records = read_records(paths)
    if len(records) == 1:
        return list(_full_tables(*records[0]))
    return [_side_by_side(records)]


def _mode(metrics: MetricsPart) -> str:
    mode = metrics.eval_mode
    partial = ", PARTIAL" if metrics.partial else ""
    return f"{mode.mode} {mode.context}/{mode.stride}{partial}"


def _side_by_side(records: Sequence[tuple[str, Record]]) -> Table:
    rows = []
    for folder, record in records:
        test, artifact, params, progress = record.metrics.test, record.artifact, record.params, record.progress
        rows.append(
            (
                folder,
                f"{record.method.name}/{record.preset}, seed {record.seed}",
                record.budget.text if record.status == "complete" else record.status,
                fmt(test.val_bpb if test else None),
                _mode(test) if test else "-",
                fmt(artifact.artifact_bytes if artifact else None),
                fmt(params.stored if params else None),
                fmt(params.effective if params else None),
                fmt(progress.steps if progress else None),
                fmt(record.budget.spent.seconds, 1),
            )
        )
    columns = (
        "record",
        "method",
        "budget",
        "bits/byte",
        "window/stride",
        "file bytes",
        "stored",
        "effective",
        "steps",
        "seconds",
    )
    title = "records: bits per byte of the test split from the stored file; parameters stored and effective"
    return Table(title=title, columns=columns, rows=rows, right=frozenset({3, 5, 6, 7, 8, 9}))


def _full_tables(folder: str, record: Record) -> Iterator[Table]:
    yield Table(title=f"record {folder}", columns=("what", "value"), rows=_summary_rows(record))
    scores = [(name, getattr(record.metrics, split)) for split, name in SPLITS.items()]
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
        for name, metrics in scores
        if metrics is not None
    ]
    columns = ("split", "bits/byte", "nats/token", "perplexity", "accuracy", "tokens", "bytes")
    if record.metrics.test is not None:
        title = f"scores, {_mode(record.metrics.test)}"
        yield Table(title=title, columns=columns, rows=rows, right=frozenset(range(1, 7)))
    if record.artifact is not None:
        yield _parts_table(record.artifact.parts, record.artifact.artifact_bytes)


def _summary_rows(record: Record) -> list[tuple[str, str]]:
    rows = [
        ("status", record.status + (f": {record.reason}" if record.reason else "")),
        (
            "method",
            f"{record.method.name} {record.method.version}, preset {record.preset}, seed {record.seed}",
        ),
        (
            "data",
            f"{record.data.name}, tokenizer {record.data.tokenizer.kind} {record.data.tokenizer.vocab_size:,}",
        ),
        ("budget", f"{record.budget.text}, stopped by {record.budget.stopped_by or '-'}"),
    ]
    spent = record.budget.spent
    rows.append(
        (
            "spent",
            f"{spent.seconds:,.1f} s, {spent.steps:,} steps, {spent.tokens:,} tokens, {spent.flops:.3g} FLOPs",
        )
    )
    if record.time is not None:
        parts = {
            "training": record.time.train_seconds,
            "compression": record.time.compression_seconds,
            "export": record.time.export_seconds,
            "validation": record.time.validation_seconds,
            "compilation and warm-up": record.time.compilation_seconds,
            "data": record.time.data_seconds,
        }
        rows.append(("time", ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items())))
    if record.params is not None:
        counts = record.params
        rows.append(
            (
                "parameters",
                f"stored {counts.stored:,}, effective {counts.effective:,}, active {counts.active:,} a token",
            )
        )
    if record.artifact is not None:
        artifact = record.artifact
        cap = f", cap {artifact.max_artifact_bytes:,}" if artifact.max_artifact_bytes else ""
        rows += [
            ("file", f"{artifact.artifact_bytes:,} bytes{cap}, coders {_join(artifact.coders)}"),
            (
                "code",
                f"plugin {artifact.plugin_bytes:,} bytes, decoder closure {artifact.decoder_closure_bytes:,} bytes",
            ),
        ]
    environment = record.environment
    rows += [
        (
            "device",
            f"{environment.device}, {environment.num_ranks} rank(s), {environment.num_threads} thread(s)",
        ),
        (
            "versions",
            f"harness {environment.harness}, torch {environment.torch}, python {environment.python}",
        ),
        ("command", environment.command_line),
    ]
    return rows


def _join(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


def diff_tables(first: Path, second: Path) -> list[Table]:
    """Say where two records differ: settings, costs and scores, and a paired test over blocks of the test text."""
    (name_a, a), (name_b, b) = read_records([first])[0], read_records([second])[0]
    flat_a, flat_b = _flatten(a.to_json()), _flatten(b.to_json())
    skipped = ("files", "created_utc", "data.test_openings", "artifact.sha256", "name")
    rows = [
        (key, str(flat_a.get(key, "-")), str(flat_b.get(key, "-")), _delta(flat_a.get(key), flat_b.get(key)))
        for key in [*flat_a, *(key for key in flat_b if key not in flat_a)]
        if flat_a.get(key) != flat_b.get(key) and not key.startswith(skipped)
    ]
    tables = [Table(title=f"A = {name_a}, B = {name_b}", columns=("field", "A", "B", "B - A"), rows=rows)]
    return [*tables, _paired_table(Path(name_a), Path(name_b), a, b)]


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        flat: dict[str, Any] = {}
        for key, child in value.items():
            flat |= _flatten(child, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: value}


def _delta(a: object, b: object) -> str:
    if isinstance(a, bool) or isinstance(b, bool) or not isinstance(a, int | float) or not isinstance(b, int | float):
        return ""
    return f"{b - a:+,}" if isinstance(a, int) and isinstance(b, int) else f"{b - a:+.6g}"


def _paired_table(folder_a: Path, folder_b: Path, a: Record, b: Record) -> Table:
    from harness.records.scores import read_scores
    from harness.stats import compare_blocks

    title = "paired test over blocks of the test text (text sampling only; seeds add their own spread)"
    columns = ("blocks", "B - A [bits/byte]", "standard error", "95% interval", "p")
    try:
        if a.metrics.test is None or b.metrics.test is None:
            raise UsageError("a record without test scores cannot be paired")
        if a.metrics.test.eval_mode != b.metrics.test.eval_mode:
            raise UsageError("the eval modes differ, so the scores are not comparable")
        if a.data.splits.test.num_bytes != b.data.splits.test.num_bytes or a.data.corpus_sha256 != b.data.corpus_sha256:
            raise UsageError("the test texts differ, so the scores are not comparable")
        scores_a, scores_b = read_scores(folder_a), read_scores(folder_b)
        result = compare_blocks(scores_a.block_nats, scores_a.block_bytes, scores_b.block_nats, scores_b.block_bytes)
    except (UsageError, RecordError) as error:
        return Table(title=title, columns=("not made",), rows=[(str(error),)])
    row = (
        fmt(result.num_blocks),
        f"{result.difference:+.5f}",
        f"{result.standard_error:.5f}",
        f"{result.low:+.5f} to {result.high:+.5f}",
        f"{result.p_value:.2g}",
    )
    return Table(title=title, columns=columns, rows=[row], right=frozenset(range(5)))


def inspection_tables(path: Path) -> list[Table]:
    """List what a model file stores."""
    from harness.artifact.inspect import inspect_file

    if not path.is_file():
        raise UsageError(f"{path} is not a file; harness inspect takes one model file")
    return list(_inspection_tables(path, inspect_file(path)))


def _inspection_tables(path: Path, inspection: Inspection) -> Iterator[Table]:
    effective = inspection.num_params_effective
    rows = [
        ("format", inspection.format),
        ("file", f"{inspection.file_bytes:,} bytes"),
        ("stored parameters", f"{inspection.num_params_stored:,} (scales included, tied tensors once)"),
        ("effective parameters", f"{effective:,}" if effective is not None else "only the method knows"),
        *(("tied", f"{first}: {', '.join(names)}") for first, names in inspection.ties.items()),
        *(("note", note) for note in inspection.notes),
    ]
    yield Table(title=f"file {path}", columns=("what", "value"), rows=rows)
    if inspection.bytes_by_part:
        yield _parts_table(inspection.bytes_by_part, inspection.file_bytes)
    if inspection.rows:
        tensors = [
            (row.name, " x ".join(map(str, row.shape)) or "scalar", row.dtype, fmt(row.stored_bytes), row.tied_to)
            for row in inspection.rows
        ]
        columns = ("tensor", "shape", "stored as", "bytes", "tied to")
        yield Table(title="tensors", columns=columns, rows=tensors, right=frozenset({3}))


def _parts_table(parts: Mapping[str, int], total_bytes: int) -> Table:
    rows = [(name, fmt(size), f"{size / max(1, total_bytes):.1%}") for name, size in parts.items()]
    columns = ("part", "bytes", "share")
    return Table(title="stored bytes by part", columns=columns, rows=rows, right=frozenset({1, 2}))
