"""The command line of claims: parse, call, render, exit code."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import typer

from harness import cli_options as opt
from harness.errors import UsageError
from harness.tables import check_format, open_console

DEFAULT_OUT = Path("records", "claims")

claims_app = typer.Typer(help="Published claims, the evidence, and a verdict on each.")


@claims_app.callback(invoke_without_command=True)
def claims(
    context: typer.Context,
    records: opt.ClaimRuns = None,
    output_format: opt.Format = "table",
) -> None:
    """Judge every claim of the methods here by the evidence at hand."""
    if context.invoked_subcommand is not None:
        if records is not None or output_format != "table":
            name = context.invoked_subcommand
            raise UsageError(f"--records and --format stand after the command: harness claims {name} ... --format json")
        return
    from harness.claims.command import DEFAULT_RUNS, judge_plugins
    from harness.claims.views import claims_view

    check_format(output_format)
    claims_view(judge_plugins(records or DEFAULT_RUNS)).print_to(open_console(), output_format)


@claims_app.command("show")
def claims_show(name: opt.ClaimName, records: opt.ClaimRuns = None, output_format: opt.Format = "table") -> None:
    """Show one claim: statement, published numbers, evidence with where it comes from, every reading."""
    from harness.claims.command import DEFAULT_RUNS, judge_claim
    from harness.claims.views import claim_view

    check_format(output_format)
    claim_view(*judge_claim(name, records or DEFAULT_RUNS)).print_to(open_console(), output_format)


@claims_app.command("check")
def claims_check(
    file: opt.ClaimFileArgument,
    evidence: opt.Evidence = None,
    records: opt.ClaimRuns = None,
    output_format: opt.Format = "table",
) -> None:
    """Judge the claims of a file from anywhere; exit code 1 if one is contradicted, 2 if a predicate is wrong."""
    from harness.claims.command import DEFAULT_RUNS, judge_file
    from harness.claims.views import claims_view

    check_format(output_format)
    judged = judge_file(file, evidence, records or DEFAULT_RUNS)
    claims_view(judged).print_to(open_console(), output_format)
    judgements = [each for _, each_file in judged for each in each_file]
    if any(answer.is_wrong for each in judgements for answer in each.answers):
        raise typer.Exit(2)
    if any(each.verdict == "contradicted" for each in judgements):
        raise typer.Exit(1)


@claims_app.command("run")
def claims_run(
    name: opt.ClaimName,
    budget: opt.Budget = None,
    out: opt.ClaimRunsOut = DEFAULT_OUT,
    list_only: opt.ListOnly = False,
) -> None:
    """Make the runs that would decide a claim, sealed before their training; goes on where it was stopped."""
    from harness.claims.files import find_claim
    from harness.claims.running import make_runs, planned_runs

    runs = list(planned_runs(*find_claim(name), name, out, budget))
    if list_only:
        for run in runs:
            command = shlex.join(["harness", *run.command[3:]])
            sys.stdout.write(f"{'complete' if run.is_complete else 'missing'}  {command}\n")
        return
    make_runs(runs)
    open_console().print(f"{len(runs)} runs complete in {out}; see: harness claims show {name}")


@claims_app.command("cost")
def claims_cost(records: opt.ClaimRuns = None, output_format: opt.Format = "table") -> None:
    """List the undecided claims with the cheapest command that would decide each, and what it takes."""
    from harness.claims.command import DEFAULT_RUNS, judge_plugins
    from harness.claims.views import cost_view

    check_format(output_format)
    cost_view(judge_plugins(records or DEFAULT_RUNS)).print_to(open_console(), output_format)


@claims_app.command("new")
def claims_new(file: opt.NewClaimFile) -> None:
    """Write a claim file to fill in."""
    from harness.claims.command import write_template

    write_template(file)
    open_console().print(f"wrote {file}; judge it with: harness claims check {file}")


@claims_app.command("language")
def claims_language(output_format: opt.Format = "table") -> None:
    """List the functions that fetch evidence in a claim file's predicates."""
    from harness.claims.views import language_view

    check_format(output_format)
    language_view().print_to(open_console(), output_format)


@claims_app.command("schema")
def claims_schema(out: opt.JsonOut = None) -> None:
    """Print the JSON Schema of claim files, so that editors complete them."""
    from harness.claims.command import schema_text
    from harness.files import write_atomic

    if out is None:
        sys.stdout.write(schema_text())
    else:
        write_atomic(out, schema_text().encode())
