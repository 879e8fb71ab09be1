"""What `harness verify` does: find, check, render, and the exit code that says the same as the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError, suggest
from harness.files import write_atomic
from harness.provenance import command_line
from harness.verify.findings import Report
from harness.verify.render import print_text, to_json
from harness.verify.rerun import make_retrainer, make_scorer
from harness.verify.rules import load_rules
from harness.verify.run import verify_paths

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("table", "json")
SCORING_LEVELS = ("evaluate", "retrain")


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyOptions:
    """The options of `harness verify`, by their names."""

    level: str = "static"
    output_format: str = "table"
    out: Path | None = None
    rules: Path | None = None
    is_strict: bool = False
    is_verbose: bool = False
    fresh_seed: int | None = None
    data_dir: Path | None = None
    device: str = "auto"
    with_tracebacks: bool = False


def run_verify(paths: Sequence[Path], options: VerifyOptions, console: Console) -> int:
    """Verify, print or write the report, and return the exit code.

    Raises:
        UsageError: unknown format or level, a wrong rules file, no record at a path, or a level whose device or
            packages are missing here.
    """
    if options.output_format not in FORMATS:
        raise UsageError(f"--format {options.output_format}: {suggest(options.output_format, FORMATS)}")
    with console.status("verifying") as status:
        report = verify_paths(
            paths,
            level=options.level,
            rules=load_rules(options.rules),
            is_strict=options.is_strict,
            # Only what the level needs is made: making imports torch.
            score=make_scorer(options.data_dir, options.device) if options.level in SCORING_LEVELS else None,
            retrain=(
                make_retrainer(options.data_dir, options.device, status.update) if options.level == "retrain" else None
            ),
            fresh_seed=options.fresh_seed,
            on_progress=lambda done, total, name: status.update(f"verifying {done + 1} of {total}"),
        )
    text = _render(report, options)
    if options.out is not None:
        write_atomic(options.out, text.encode())
        console.print(f"{options.out}: {report.summary()['records']} records", soft_wrap=True)
    elif options.output_format == "json":
        console.file.write(text)
    else:
        print_text(report, console, with_passes=options.is_verbose)
    if options.with_tracebacks:
        for error in report.internal_errors:
            console.print(error.traceback, soft_wrap=True)
    return report.exit_code


def _render(report: Report, options: VerifyOptions) -> str:
    if options.output_format == "json":
        return to_json(report, command_line()) + "\n"
    from rich.console import Console

    page = StringIO()
    print_text(report, Console(file=page, width=200, color_system=None), with_passes=options.is_verbose)
    return page.getvalue()
