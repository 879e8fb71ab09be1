"""What `harness export` says: what was written, and how far it is from the record."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UsageError, missing_extra, suggest
from harness.provenance import has_module
from harness.tables import Table, View, fmt

FORMATS = ("hf",)


def export_view(record: Path, folder: Path, file_format: str) -> View:
    """Write a record in another format.

    Raises:
        UsageError: unknown format, or a record that cannot be written in it.
        RunError: what would be written computes something else.
    """
    if file_format not in FORMATS:
        raise UsageError(f"--format {file_format}: no such format. {suggest(file_format, FORMATS)}")
    if not (has_module("torch") and has_module("transformers")):
        raise missing_extra("harness export", "hf")
    from harness.pretrained.export import NEGLIGIBLE, export_record

    done = export_record(record, folder)
    verdict = "rounding" if done.relative <= NEGLIGIBLE else "WARNING: more than rounding; the record is the reference"
    rows = [
        ("folder", str(done.folder)),
        ("parameters", f"{done.num_params:,}, all dense"),
        ("tokenizer", "written" if done.has_tokenizer else "none: the model reads bytes"),
        ("largest difference of logits", f"{done.difference:.3g}, {done.relative:.3g} of the largest ({verdict})"),
        ("largest logit", fmt(done.largest, 4)),
    ]
    data = {
        "folder": str(done.folder),
        "num_params": done.num_params,
        "has_tokenizer": done.has_tokenizer,
        "logit_difference": done.difference,
        "logit_difference_relative": done.relative,
        "is_negligible": done.relative <= NEGLIGIBLE,
    }
    title = f"{record} as a Hugging Face model"
    return View(tables=[Table(title=title, columns=("what", "value"), rows=rows)], data=data)
