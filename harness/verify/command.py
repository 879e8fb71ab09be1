"""What `harness verify` does: find, check, render, and the exit code that says the same as the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError, suggest
from harness.files import write_atomic
from harness.provenance import command_line
from harness.verify.findings import Report
from harness.verify.junit import to_junit
from harness.verify.markdown import to_markdown
from harness.verify.render import print_text, to_json
from harness.verify.rerun import make_retrainer, make_scorer
from harness.verify.rules import load_rules
from harness.verify.run import find_records_to_verify, verify_paths
from harness.verify.sarif import to_sarif

if TYPE_CHECKING:
    from rich.console import Console

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
    is_explained: bool = False
    num_jobs: int = 1


def run_verify(paths: Sequence[Path], options: VerifyOptions, console: Console) -> int:
    """Verify, print or write the report, and return the exit code.

    Raises:
        UsageError: unknown format or level, a wrong rules file, no record at a path, or a level whose device or
            packages are missing here.
    """
    if options.output_format not in FORMATS:
        raise UsageError(f"--format {options.output_format}: {suggest(options.output_format, FORMATS)}")
    if options.is_explained:
        return _explain(paths, options, console)
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
            num_jobs=options.num_jobs,
            on_progress=lambda done, total, name: status.update(f"verifying {done + 1} of {total}"),
        )
    if options.out is not None:
        write_atomic(options.out, FORMATS[options.output_format](report, options).encode())
        console.print(f"{options.out}: {report.summary()['records']} records", soft_wrap=True)
    elif options.output_format == "table":
        print_text(report, console, with_passes=options.is_verbose)
    else:
        console.file.write(FORMATS[options.output_format](report, options))
    if options.with_tracebacks:
        for error in report.internal_errors:
            console.print(error.traceback, soft_wrap=True)
    return report.exit_code


def _explain(paths: Sequence[Path], options: VerifyOptions, console: Console) -> int:
    """Print every value found instead of a judgement of them."""
    from harness.verify.explain import explain_view

    view = explain_view(find_records_to_verify(paths))
    if options.out is not None:
        raise UsageError("--explain prints to the terminal; drop --out, or redirect the output")
    view.print_to(console, options.output_format)
    return 0


def _to_page(report: Report, options: VerifyOptions) -> str:
    from rich.console import Console

    page = StringIO()
    print_text(report, Console(file=page, width=200, color_system=None), with_passes=options.is_verbose)
    return page.getvalue()


FORMATS: Mapping[str, Callable[[Report, VerifyOptions], str]] = {
    "table": _to_page,
    "markdown": lambda report, options: to_markdown(report, with_passes=options.is_verbose),
    "json": lambda report, options: to_json(report, command_line()) + "\n",
    "junit": lambda report, options: to_junit(report),
    "sarif": lambda report, options: to_sarif(report, command_line()) + "\n",
}
