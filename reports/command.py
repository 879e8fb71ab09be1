"""`harness report`: from folders to `index.html`, `report.md`, `report.json` and figures."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.files import write_atomic
from reports.document import PROGRAM, REPORT_FILE, build_document
from reports.gather import gather
from reports.markdown import FIGURES_FOLDER, render_markdown
from reports.plots import draw_figures
from reports.site import render_html
from reports.view import build_page

PAGE_FILE, MARKDOWN_FILE = "index.html", "report.md"


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What was written.

    Attributes:
        page: path of the HTML file.
        num_records: records in it.
        num_claims: claims in it.
        num_figures: drawings.
    """

    page: Path
    num_records: int
    num_claims: int
    num_figures: int


def write_report(
    paths: Sequence[Path],
    out: Path,
    *,
    claim_files: Sequence[Path] = (),
    level: str = "static",
    tell: Callable[[str], object] = lambda text: None,
) -> Written:
    """Write the report of everything under some paths; the same files give the same bytes.

    Args:
        paths: folders of records, comparisons and foreign records, or sweep files.
        out: folder of the report; a report in it is replaced.
        claim_files: judged beside the claims of the methods here.
        level: of `harness verify`: static or decode.
        tell: told what goes on.

    Raises:
        UsageError: a path does not exist or holds nothing, or `out` is a folder of other things.
        HarnessError: a claim file is wrong, or the disk is full.
    """
    _check_out(out)
    tell("reading records, claims and comparisons")
    document = build_document(gather(paths, claim_files=claim_files, level=level))
    tell("drawing")
    figures = draw_figures(document)
    tell("writing")
    page = build_page(document, figures)
    # first the file by which the folder is known as a report: one that was interrupted can be written again
    _make_folder(out)
    write_atomic(out / REPORT_FILE, _dump(document).encode())
    if (out / FIGURES_FOLDER).is_dir():
        shutil.rmtree(out / FIGURES_FOLDER)
    _make_folder(out / FIGURES_FOLDER)
    for figure in figures:
        write_atomic(out / FIGURES_FOLDER / f"{figure.slug}.svg", figure.svg)
        write_atomic(out / FIGURES_FOLDER / f"{figure.slug}.png", figure.png)
    write_atomic(out / MARKDOWN_FILE, render_markdown(page).encode())
    write_atomic(out / PAGE_FILE, render_html(page).encode())
    return Written(
        page=out / PAGE_FILE,
        num_records=len(document["records"]),
        num_claims=len(document["claims"]),
        num_figures=len(figures),
    )


def _dump(document: Mapping[str, Any]) -> str:
    """Write the document with a line for each list's item and each file, so that two reports can be compared."""
    parts = []
    for key in sorted(document):
        value = document[key]
        if isinstance(value, list) and value:
            body = "[\n" + ",\n".join(map(_compact, value)) + "\n]"
        elif isinstance(value, dict) and value:
            body = "{\n" + ",\n".join(f"{json.dumps(name)}:{_compact(value[name])}" for name in sorted(value)) + "\n}"
        else:
            body = _compact(value)
        parts.append(f"{json.dumps(key)}:{body}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False)


def _check_out(out: Path) -> None:
    """Refuse to write among other files, and where nothing can be written, before anything is read."""
    if os.path.lexists(out) and not out.is_dir():
        raise UsageError(f"--out {out} is a file; give a folder")
    nearest = next(place for place in (out, *out.absolute().parents) if os.path.lexists(place))
    if not nearest.is_dir():
        raise UsageError(f"--out {out}: {nearest} is a file; give a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"--out {out}: {nearest} cannot be written; choose another folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not _is_report(out / REPORT_FILE):
        raise UsageError(f"--out {out} is not empty and holds no {REPORT_FILE} of a report; choose another folder")
    figures = out / FIGURES_FOLDER
    if figures.is_symlink() or (figures.exists() and not figures.is_dir()):
        raise UsageError(f"--out {out}: {figures} is no folder of a report; move it, or choose another folder")


def _is_report(path: Path) -> bool:
    """Whether a file is a `report.json` of ours: the folder that it marks is written over."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and str(content.get("program", "")).startswith(PROGRAM)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out: {folder} cannot be made: {error.strerror}; choose another folder") from error
