"""The command line, in the order of a user's work. No logic here: parse, call, render, exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.errors import HarnessError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

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

# click's UsageError, which typer took from click and now carries inside itself
CommandLineError: type[Exception] = typer.BadParameter.__mro__[1]

FormatOption = Annotated[str, typer.Option("--format", help="table, markdown or json.")]
DataDirOption = Annotated[Path | None, typer.Option(help="Folder of local corpora (also HARNESS_DATA_DIR).")]


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, emoji=False, markup=False)


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


@app.command()
def methods(output_format: FormatOption = "table") -> None:
    """List methods and baselines with their presets."""
    from harness.views import methods_table

    methods_table().print_to(_console(), output_format)


@data_app.command("list")
def data_list(data_dir: DataDirOption = None, output_format: FormatOption = "table") -> None:
    """List the corpora that --data takes, and which are on this machine."""
    from harness.views import sources_table

    sources_table(data_dir).print_to(_console(), output_format)


@app.command()
def doctor(output_format: FormatOption = "table") -> None:
    """Say what this machine can run, and what is missing."""
    from harness.views import doctor_table

    table, healthy = doctor_table()
    table.print_to(_console(), output_format)
    if not healthy:
        raise typer.Exit(1)


@app.command()
def run(  # noqa: PLR0913  every option of a run is one parameter of typer's
    method: Annotated[str | None, typer.Option(help="Method or baseline; see `harness methods`.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="27h, 90m, 600s (wall clock), 27gpuh, 2000steps, 50Mtok or 1e15flop.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Preset of the method.")] = "small",
    data: Annotated[str, typer.Option(help="Corpus; see `harness data list`.")] = "shakespeare",
    seed: Annotated[int, typer.Option(min=0, help="Seed of initialisation and data order.")] = 0,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting of model, train or export as key=value; repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Record folder to make [default: records/<run>].")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with an unfinished record folder.")] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="bytes, characters, or sp1024 and the like [default: the corpus's own]."),
    ] = None,
    data_dir: DataDirOption = None,
    encoding_errors: Annotated[str, typer.Option(help="Invalid UTF-8: strict refuses, replace records.")] = "strict",
    eval_mode: Annotated[str, typer.Option(help="sliding, challenge or challenge-sliding.")] = "sliding",
    eval_context: Annotated[int | None, typer.Option(min=1, help="Input tokens [default: as in training].")] = None,
    eval_stride: Annotated[
        int | None, typer.Option(min=1, help="Targets a window [default: half the context].")
    ] = None,
    max_artifact_bytes: Annotated[int | None, typer.Option(min=1, help="Cap on the stored file, in bytes.")] = None,
    max_params: Annotated[int | None, typer.Option(min=1, help="Cap on trained parameters.")] = None,
    rules: Annotated[str | None, typer.Option(help="A contest's caps: parameter-golf.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train, export and score one method under a budget; write a record folder that others can verify."""
    from harness.job import RunRequest
    from harness.progress import TerminalReporter
    from harness.runner import resume_run, start_run

    reporter = TerminalReporter(_console(stderr=True))
    if resume is not None:
        if method or budget or overrides or out:
            raise UsageError("--resume goes on with the settings of the record; drop --method, --budget, --set, --out")
        folder = resume_run(resume, reporter=reporter, data_dir=data_dir, device=device)
    else:
        if method is None or budget is None:
            raise UsageError("harness run needs --method and --budget, for example: --method legendre --budget 2m")
        request = RunRequest(
            method=method,
            preset=preset,
            budget=budget,
            data=data,
            seed=seed,
            overrides=tuple(overrides or ()),
            tokenizer=tokenizer,
            encoding_errors=encoding_errors,
            eval_mode=eval_mode,
            eval_context=eval_context,
            eval_stride=eval_stride,
            max_artifact_bytes=max_artifact_bytes,
            max_params=max_params,
            rules=rules,
        )
        folder = start_run(request, reporter=reporter, out=out, data_dir=data_dir, device=device)
    if folder is not None:
        _show([folder], "table")


@app.command()
def verify(  # noqa: PLR0913  as above
    records: Annotated[list[Path], typer.Argument(help="Record folders, or folders that hold some at any depth.")],
    level: Annotated[
        str, typer.Option(help="static (files), decode (artifact), evaluate (scores again), retrain (trains again).")
    ] = "static",
    output_format: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
    out: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
    rules: Annotated[Path | None, typer.Option(help="TOML file of rules laid over the shipped ones, by id.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Count what cannot be verified as a failure.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="List what passed, too.")] = False,
    fresh_seed: Annotated[int | None, typer.Option(min=0, help="Level retrain: train with this seed.")] = None,
    data_dir: DataDirOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda, for evaluate and retrain.")] = "auto",
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
        fresh_seed=fresh_seed,
        data_dir=data_dir,
        device=device,
        with_tracebacks=_State.debug,
    )
    raise typer.Exit(run_verify(records, options, _console()))


@app.command()
def show(
    records: Annotated[list[Path], typer.Argument(help="Record folders, or folders that hold some.")],
    output_format: FormatOption = "table",
) -> None:
    """Show one record in full, or several side by side."""
    _show(records, output_format)


def _show(records: list[Path], output_format: str) -> None:
    from harness.views import record_tables

    for table in record_tables(records):
        table.print_to(_console(), output_format)


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(help="Record folder A.")],
    second: Annotated[Path, typer.Argument(help="Record folder B.")],
    output_format: FormatOption = "table",
) -> None:
    """Say where two records differ: settings, costs, scores, with the paired difference over blocks of text."""
    from harness.views import diff_tables

    for table in diff_tables(first, second):
        table.print_to(_console(), output_format)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="artifact.bin, .safetensors, .gguf, .npz, .npy, zip or torch file.")],
    output_format: FormatOption = "table",
) -> None:
    """List what a model file really stores; nothing in it is executed or unpickled."""
    from harness.views import inspection_tables

    for table in inspection_tables(file):
        table.print_to(_console(), output_format)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 fine, 1 a record failed, 2 wrong use, 3 our fault, 4 could not finish."""
    sys.exit(run_command(sys.argv[1:] if arguments is None else arguments))


def run_command(arguments: list[str]) -> int:
    """Run one command and return its exit code; every error is rendered here, in one line."""
    _State.debug = "--debug" in arguments
    try:
        result: Any = typer.main.get_command(app).main(arguments, prog_name="harness", standalone_mode=False)
    except HarnessError as error:
        return _fail(error, error.exit_code)
    except CommandLineError as error:
        return _fail(error, 2, _describe_usage_error(error))
    except (KeyboardInterrupt, typer.Abort) as error:
        return _fail(error, 130, "interrupted")
    except MemoryError as error:
        return _fail(error, 4, "out of memory; lower --set train.micro_batch_tokens or use a smaller preset")
    except OSError as error:
        return _fail(error, 4, f"{error.strerror or error}: {error.filename or 'no file named'}")
    except Exception as error:  # noqa: BLE001  the last line of defence: a fault of ours, said as one
        where = f"{type(error).__name__}: {error}"
        return _fail(error, 3, f"internal error ({where}). Run again with --debug and report the traceback.")
    return result if isinstance(result, int) else 0


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
