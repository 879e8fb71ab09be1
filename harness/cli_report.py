"""The command line of the report and of replies to it: parse, call, exit code.

`harness` never imports `reports`, which lies above it and needs packages of its own; the command looks it up by name
when it is called, as the registry does with methods.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import typer

from harness import cli_options as opt
from harness.errors import missing_extra
from harness.tables import clean, open_console

REPORTER = "reports.command"
NEEDED = ("jinja2", "matplotlib")


def report(
    records: opt.ReportPaths,
    out: opt.SiteOut = Path("site"),
    claims: opt.ReportClaims = None,
    level: opt.ReportLevel = "static",
) -> None:
    """Write a page on claims, records and comparisons: index.html, report.md, report.json and figures."""
    from harness.provenance import has_module

    if not all(map(has_module, NEEDED)):
        raise missing_extra("harness report", "report")
    console = open_console(stderr=True)
    with console.status("reading") as status:
        written = importlib.import_module(REPORTER).write_report(
            records, out, claim_files=claims or (), level=level, tell=status.update
        )
    open_console().print(
        f"{clean(written.page)}: {written.num_claims} claims, {written.num_records} records, "
        f"{written.num_figures} figures",
        soft_wrap=True,
    )


def respond(
    subject: opt.Subject,
    file: opt.ReplyFile,
    author: opt.ReplyAuthor = "",
    out: opt.ReplyOut = None,
) -> None:
    """Store an author's reply to what was found of a record or a claim; the page shows it there."""
    from harness.responses import file_response

    folder = file_response(subject, file, author=author, out=out)
    open_console().print(f"{clean(folder)}: the reply is shown by harness report", soft_wrap=True)


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the program's."""
    app.command()(report)
    app.command()(respond)
