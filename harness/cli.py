"""The command line, in the order of a user's work. No logic here: parse, call, render, exit code."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness import cli_options as opt
from harness.cli_claims import claims_app
from harness.cli_networks import add_commands as add_network_commands
from harness.cli_report import add_commands as add_report_commands
from harness.errors import HarnessError, UsageError, missing_extra
from harness.tables import open_console

if TYPE_CHECKING:
    from harness.job import RunRequest

app = typer.Typer(
    name="harness",
    help="Train compression methods under one budget, store what they cost, score the file, verify records.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Text corpora and where they come from.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(claims_app, name="claims")

# click's UsageError, which typer took from click and now carries inside itself
CommandLineError: type[Exception] = typer.BadParameter.__mro__[1]

EXIT_BROKEN_PIPE = 141  # what a shell reports of a program that SIGPIPE ended
RESUME_OPTIONS = ("resume", "data_dir", "device", "devices")
RESUMED = "--resume goes on with the settings of the folder"
GRID_RESUME_OPTIONS = (
    *("resume", "data_dir", "device", "show_only", "jobs"),
    *("engine", "address", "storage", "output_format"),
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from harness import __version__

        print(f"claims-harness {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    _State.debug = debug


class _State:
    debug = False
    arguments: Sequence[str] = ()


@app.command()
def methods(output_format: opt.Format = "table") -> None:
    """List methods and baselines with their presets."""
    from harness.views import methods_view

    methods_view().print_to(open_console(), output_format)


@data_app.command("list")
def data_list(data_dir: opt.DataDir = None, output_format: opt.Format = "table") -> None:
    """List the corpora that --data takes, and which are on this machine."""
    from harness.views import sources_view

    sources_view(data_dir).print_to(open_console(), output_format)


@app.command()
def doctor(output_format: opt.Format = "table") -> None:
    """Say what this machine can run, and what is missing."""
    from harness.views import doctor_view

    view, is_healthy = doctor_view()
    view.print_to(open_console(), output_format)
    if not is_healthy:
        raise typer.Exit(1)


@app.command()
def plan(  # noqa: PLR0913  every option is one parameter of typer's
    method: opt.PlanMethod,
    budget: opt.PlanBudget,
    preset: opt.Preset = "small",
    data: opt.Data = "shakespeare",
    overrides: opt.Overrides = None,
    tokenizer: opt.Tokenizer = None,
    vocab: opt.Vocab = None,
    data_dir: opt.DataDir = None,
    encoding_errors: opt.EncodingErrors = "strict",
    target_params: opt.TargetParams = None,
    device: opt.PlanDevice = "here",
    mfu: opt.Mfu = opt.DEFAULT_MFU,
    price: opt.Price = None,
    output_format: opt.Format = "table",
) -> None:
    """Say what a run will need: operations, memory, time, money; exit code 4 if the device has too little memory."""
    from harness.forecast_setup import ForecastRequest
    from harness.forecast_views import plan_view
    from harness.job import RunRequest
    from harness.provenance import has_module
    from harness.tables import check_format

    check_format(output_format)
    if not has_module("torch"):
        raise missing_extra("harness plan", "train")
    request = ForecastRequest(
        run=RunRequest(
            method=method,
            budget=budget,
            preset=preset,
            data=data,
            overrides=tuple(overrides or ()),
            tokenizer=tokenizer,
            encoding_errors=encoding_errors,
            target_params=target_params,
        ),
        data_dir=data_dir,
        device=device,
        mfu=mfu,
        price=price,
        vocab_size=vocab,
    )
    view, fits = plan_view(request, open_console(stderr=True).print)
    view.print_to(open_console(), output_format)
    if not fits:
        raise typer.Exit(4)


@app.command()
def run(  # noqa: PLR0913  every option of a run is one parameter of typer's
    context: typer.Context,
    method: opt.Method = None,
    budget: opt.Budget = None,
    preset: opt.Preset = "small",
    data: opt.Data = "shakespeare",
    seed: opt.Seed = 0,
    overrides: opt.Overrides = None,
    out: opt.RunOut = None,
    resume: opt.Resume = None,
    tokenizer: opt.Tokenizer = None,
    data_dir: opt.DataDir = None,
    encoding_errors: opt.EncodingErrors = "strict",
    eval_mode: opt.EvalMode = None,
    eval_context: opt.EvalContext = None,
    eval_stride: opt.EvalStride = None,
    max_artifact_bytes: opt.MaxArtifactBytes = None,
    max_params: opt.MaxParams = None,
    target_params: opt.TargetParams = None,
    rules: opt.Contest = None,
    parent: opt.Parent = None,
    pretrained: opt.Pretrained = None,
    claim: opt.Claim = None,
    device: opt.Device = "auto",
    devices: opt.NumDevices = None,
) -> None:
    """Train, export and score one method under a budget; write a record folder that others can verify."""
    from harness.progress import TerminalReporter
    from harness.provenance import has_module

    if not has_module("torch"):
        raise missing_extra("harness run", "train")
    if resume is not None:
        opt.refuse_options_beside(context, RESUMED, RESUME_OPTIONS)
    elif method is None or (budget is None and pretrained is None):
        raise UsageError("harness run needs --method and --budget, for example: --method legendre --budget 2m")
    if devices is not None:
        from harness.launch import must_start_ranks, start_ranks

        if must_start_ranks(devices):
            raise typer.Exit(start_ranks(_State.arguments, num_ranks=devices, device=device))
    from harness.runner import resume_run, start_run

    with TerminalReporter(open_console(stderr=True)) as reporter:
        if resume is not None:
            folder = resume_run(resume, reporter=reporter, data_dir=data_dir, device=device)
        else:
            request = _request(context.params)
            folder = start_run(request, reporter=reporter, out=out, data_dir=data_dir, device=device)
    if folder is not None:
        show([folder])


def _request(options: dict[str, Any]) -> RunRequest:
    from harness.job import PRETRAINED_BUDGET, RunRequest

    names = {field.name for field in dataclasses.fields(RunRequest)}
    asked = {name: value for name, value in options.items() if name in names}
    budget = options["budget"] or PRETRAINED_BUDGET
    return RunRequest(**asked | {"budget": budget, "overrides": tuple(options["overrides"] or ())})


@app.command()
def compare(  # noqa: PLR0913  as above
    context: typer.Context,
    records: opt.ComparedRecords = None,
    methods: opt.Contenders = None,
    budget: opt.Budget = None,
    preset: opt.Preset = "small",
    seeds: opt.NumSeeds = 3,
    match: opt.Match = None,
    target: opt.Target = None,
    sizes: opt.Sizes = None,
    data: opt.Data = "shakespeare",
    overrides: opt.Overrides = None,
    tokenizer: opt.Tokenizer = None,
    tune: opt.NumTrials = 0,
    parent: opt.Parent = None,
    out: opt.GridOut = None,
    resume: opt.GridResume = None,
    show_only: opt.ShowOnly = False,
    pool: opt.Pool = False,
    frontiers: opt.Frontiers = False,
    jobs: opt.CellJobs = None,
    engine: opt.Engine = "process",
    address: opt.Address = None,
    storage: opt.StorageUrl = None,
    data_dir: opt.DataDir = None,
    device: opt.Device = "auto",
    output_format: opt.Format = "table",
) -> None:
    """Run methods under one budget with the same seeds, and say which differences are beyond chance.

    With record folders instead of --methods: compare those, running nothing; with --frontiers and files of
    `harness quantise --sweep`: the area between rate-distortion curves.
    """
    from harness.provenance import has_module
    from harness.tables import check_format

    check_format(output_format)
    if frontiers:
        from harness.area_views import frontiers_view

        if not records:
            raise UsageError("--frontiers needs files of `harness quantise RECORD --sweep --out FILE`")
        allowed = ("records", "frontiers", "output_format")
        opt.refuse_options_beside(context, "frontiers are compared as they are", allowed)
        frontiers_view(records).print_to(open_console(), output_format)
        return
    if records:
        from harness.compare_views import records_view

        allowed = ("records", "pool", "output_format")
        opt.refuse_options_beside(context, "record folders are compared as they are", allowed)
        records_view(records, is_pooled=pool).print_to(open_console(), output_format)
        return
    if not has_module("torch"):
        raise missing_extra("harness compare", "train")
    from harness.compare import Place, default_folder, make_grids, run_comparison, show_comparison
    from harness.ladder import read_grids

    if resume is not None:
        opt.refuse_options_beside(context, RESUMED, GRID_RESUME_OPTIONS)
        folder, grids = resume, read_grids(resume)
    elif show_only or pool:
        raise UsageError("--show-only needs --resume with the folder of a comparison, --pool needs record folders")
    elif methods is None or budget is None:
        raise UsageError("harness compare needs --methods and --budget, for example: --methods dense,mpo --budget 2m")
    else:
        grids = make_grids(
            sizes=sizes,
            methods=methods,
            preset=preset,
            budget=budget,
            num_seeds=seeds,
            match=match,
            target=target,
            data=data,
            overrides=overrides or (),
            tokenizer=tokenizer,
            num_trials=tune,
            parent=parent,
        )
        folder = out or default_folder(grids)
    if show_only:
        show_comparison(folder, grids).print_to(open_console(), output_format)
        return
    place = Place(num_jobs=jobs, device=device, data_dir=data_dir, engine=engine, address=address, storage=storage)
    view, is_complete = run_comparison(folder, grids, place, open_console(stderr=True))
    view.print_to(open_console(), output_format)
    if not is_complete:
        raise typer.Exit(4)


add_network_commands(app)


@app.command()
def verify(  # noqa: PLR0913  as above
    records: opt.Records,
    level: opt.Level = "static",
    output_format: opt.ReportFormat = "table",
    out: opt.ReportOut = None,
    rules: opt.Rules = None,
    strict: opt.Strict = False,
    verbose: opt.Verbose = False,
    explain: opt.Explain = False,
    jobs: opt.Jobs = 1,
    fresh_seed: opt.FreshSeed = None,
    data_dir: opt.DataDir = None,
    device: opt.VerifyDevice = "auto",
) -> None:
    """Check records against their own evidence; exit code 1 if one fails."""
    from harness.verify.command import VerifyOptions, run_verify

    options = VerifyOptions(
        level=level,
        output_format=output_format,
        out=out,
        rules=rules,
        is_strict=strict,
        is_verbose=verbose,
        is_explained=explain,
        num_jobs=jobs,
        fresh_seed=fresh_seed,
        data_dir=data_dir,
        device=device,
        with_tracebacks=_State.debug,
    )
    raise typer.Exit(run_verify(records, options, open_console()))


@app.command()
def show(records: opt.Records, output_format: opt.Format = "table") -> None:
    """Show one record in full, or several side by side."""
    from harness.record_views import records_view

    records_view(records).print_to(open_console(), output_format)


add_report_commands(app)


@app.command()
def diff(first: opt.RecordA, second: opt.RecordB, output_format: opt.Format = "table") -> None:
    """Say where two records differ: settings, costs, scores, with the paired difference over blocks of text."""
    from harness.diff_views import diff_view

    diff_view(first, second).print_to(open_console(), output_format)


@app.command()
def inspect(file: opt.ModelFile, output_format: opt.Format = "table") -> None:
    """List what a model file really stores; nothing in it is executed or unpickled."""
    from harness.views import inspection_view

    inspection_view(file).print_to(open_console(), output_format)


@app.command()
def schema() -> None:
    """Print the JSON Schema of record.json."""
    from harness.records.versions import record_json_schema
    from harness.tables import View

    View(tables=[], data=record_json_schema()).print_to(open_console(), "json")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 fine, 1 a record failed, 2 wrong use, 3 our fault, 4 could not finish."""
    sys.exit(run_command(sys.argv[1:] if arguments is None else arguments))


def run_command(arguments: list[str]) -> int:
    """Run one command and return its exit code; every error is rendered here, in one line."""
    _State.debug, _State.arguments = "--debug" in arguments, arguments
    try:
        result: Any = typer.main.get_command(app).main(arguments, prog_name="harness", standalone_mode=False)
        sys.stdout.flush()
    except HarnessError as error:
        return _fail(error, error.exit_code)
    except CommandLineError as error:
        return _fail(error, 2, _describe_usage_error(error))
    except (KeyboardInterrupt, typer.Abort) as error:
        return _fail(error, 130, "interrupted")
    except MemoryError as error:
        return _fail(error, 4, "out of memory; lower --set train.micro_batch_tokens or use a smaller preset")
    except (BrokenPipeError, SystemExit) as error:
        return _end_quietly(error)
    except OSError as error:
        return _fail(error, 4, f"{error.strerror or error}: {error.filename or 'no file named'}")
    except Exception as error:  # noqa: BLE001  the last line of defence: a fault of ours, said as one
        where = f"{type(error).__name__}: {error}"
        return _fail(error, 3, f"internal error ({where}). Run again with --debug and report the traceback.")
    return result if isinstance(result, int) else 0


def _end_quietly(error: BaseException) -> int:
    """Nobody reads on, as in `harness methods | head -1`; click and rich make this SystemExit(1), a code of ours."""
    if not isinstance(error, BrokenPipeError) and not isinstance(error.__context__, BrokenPipeError):
        raise error
    # The interpreter flushes at exit, which must not meet the pipe again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_BROKEN_PIPE


def _describe_usage_error(error: Any) -> str:
    path = error.ctx.command_path if error.ctx else "harness"
    return f"{error.format_message().rstrip('.')}. Try: {path} --help"


def _fail(error: BaseException, exit_code: int, message: str | None = None) -> int:
    from harness.tables import clean

    if _State.debug:
        import traceback

        traceback.print_exception(error)
    print(f"error: {clean(message or str(error))}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    main()
