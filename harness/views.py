"""What the commands that read no record show: methods, corpora, this machine, model files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.tables import Table, View, fmt, shares_table

if TYPE_CHECKING:
    from harness.artifact.inspection import Inspection


def methods_view() -> View:
    """List every registered method with its presets and source."""
    from harness.registry import list_methods

    infos = sorted(list_methods().values(), key=lambda info: (info.toml.kind != "method", info.name))
    rows = [
        (
            info.name,
            info.toml.kind,
            info.toml.summary,
            ", ".join(info.toml.presets)
            + (f"; with --model: {', '.join(info.toml.pretrained)}" if info.toml.pretrained else ""),
            f"{info.toml.source.title} {info.toml.source.date}".strip(),
        )
        for info in infos
    ]
    columns = ("name", "kind", "what it does", "presets", "source")
    table = Table(title="methods and baselines", columns=columns, rows=rows)
    return View(tables=[table], data=[info.toml.model_dump(mode="json") for info in infos])


def sources_view(data_dir: Path | None) -> View:
    """List the corpora that `--data` takes."""
    from harness.data.corpora import list_sources

    sources = list_sources(data_dir)
    rows = [
        (
            source.name,
            source.summary,
            fmt(source.num_bytes),
            "yes" if source.is_cached else "no",
            source.how_to_get,
        )
        for source in sources
    ]
    columns = ("--data", "what it is", "bytes", "here", "where it comes from")
    table = Table(title="corpora", columns=columns, rows=rows, right=frozenset({2}))
    return View(tables=[table], data=[asdict(source) for source in sources])


def doctor_view() -> tuple[View, bool]:
    """Return the diagnosis of this machine, and whether nothing failed."""
    from harness.doctor import diagnose

    lines = diagnose()
    rows = [(line.status.upper(), line.subject, line.message) for line in lines]
    table = Table(title="doctor", columns=("status", "what", "finding"), rows=rows)
    is_healthy = all(line.status != "fail" for line in lines)
    return View(tables=[table], data=[asdict(line) for line in lines]), is_healthy


def inspection_view(path: Path) -> View:
    """List what a model file stores.

    Raises:
        UsageError: the path is not a file.
        ArtifactError: the file cannot be read.
    """
    from harness.artifact.inspect import inspect_file

    if not path.is_file():
        raise UsageError(f"{path} is not a file; harness inspect takes one model file")
    inspection = inspect_file(path)
    totals = {
        "num_params_stored": inspection.num_params_stored,
        "num_named": inspection.num_named,
        "ties": dict(inspection.ties),
    }
    data = {"file": str(path), **asdict(inspection), **totals}
    return View(tables=list(_inspection_tables(path, inspection)), data=data)


def _inspection_tables(path: Path, inspection: Inspection) -> Iterator[Table]:
    stored, effective = inspection.num_params_stored, inspection.num_params_effective
    unknown = "-" if stored is None else "only the method knows"
    rows = [
        ("format", inspection.format),
        ("file", f"{inspection.file_bytes:,} bytes"),
        ("stored parameters", "-" if stored is None else f"{stored:,} (scales included, tied tensors once)"),
        ("effective parameters", f"{effective:,}" if effective is not None else unknown),
        *(("tied", f"{first}: {', '.join(names)}") for first, names in inspection.ties.items()),
        *(("note", note) for note in inspection.notes),
    ]
    yield Table(title=f"file {path}", columns=("what", "value"), rows=rows)
    if inspection.bytes_by_part:
        yield shares_table("stored bytes by part", inspection.bytes_by_part, unit="bytes")
    if inspection.rows:
        tensors = [
            (row.name, " x ".join(map(str, row.shape)) or "scalar", row.dtype, fmt(row.stored_bytes), row.tied_to)
            for row in inspection.rows
        ]
        columns = ("tensor", "shape", "stored as", "bytes", "tied to")
        yield Table(title="tensors", columns=columns, rows=tensors, right=frozenset({3}))
