"""The command line of stored networks: quantise again, look at their gradients, score in other ways, hand on."""

from __future__ import annotations

import typer

from harness import cli_options as opt
from harness.errors import UsageError, missing_extra
from harness.tables import open_console


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(quantise)
    app.command()(conflict)
    app.command()(evaluate)
    app.command("export")(export_model)


def quantise(  # noqa: PLR0913  every option is one parameter of typer's
    record: opt.QuantisedRecord,
    schemes: opt.Schemes = None,
    gptq: opt.GptqModes = None,
    sweep: opt.Sweep = False,
    sweep_points: opt.SweepPoints = 8,
    calibration_tokens: opt.CalibrationTokens = 65_536,
    out: opt.JsonOut = None,
    data_dir: opt.DataDir = None,
    device: opt.Device = "auto",
    output_format: opt.Format = "table",
) -> None:
    """Store the network of a record under other quantisation schemes, and score each file on the tune split."""
    from harness.provenance import has_module
    from harness.requantise_views import QuantiseOptions, quantise_view
    from harness.tables import check_format

    check_format(output_format)
    if not has_module("torch"):
        raise missing_extra("harness quantise", "train")
    options = QuantiseOptions(
        schemes=schemes or (),
        modes=gptq or (),
        sweep=sweep,
        sweep_points=sweep_points,
        calibration_tokens=calibration_tokens,
        out=out,
        data_dir=data_dir,
        device=device,
    )
    view = quantise_view(record, options, open_console(stderr=True).print)
    view.print_to(open_console(), output_format)


def conflict(
    record: opt.SharingRecord,
    tokens: opt.PulledTokens = 65_536,
    data_dir: opt.DataDir = None,
    device: opt.Device = "auto",
    output_format: opt.Format = "table",
) -> None:
    """Show how the depths that share a matrix pull at it: cosines between the gradients of its uses."""
    from harness.provenance import has_module
    from harness.tables import check_format

    check_format(output_format)
    if not has_module("torch"):
        raise missing_extra("harness conflict", "train")
    from harness.conflict_views import conflict_view

    say = open_console(stderr=True).print
    view = conflict_view(record, tokens, data_dir=data_dir, device=device, say=say)
    view.print_to(open_console(), output_format)


def evaluate(  # noqa: PLR0913  every option is one parameter of typer's
    context: typer.Context,
    records: opt.Records,
    samples: opt.Samples = "20x8",
    sample_seed: opt.SampleSeed = 0,
    tasks: opt.Tasks = None,
    limit: opt.TaskLimit = None,
    data_dir: opt.DataDir = None,
    device: opt.Device = "auto",
    output_format: opt.Format = "table",
) -> None:
    """Score stored files on random windows, as papers do, or on tasks of lm-evaluation-harness."""
    from harness.provenance import has_module
    from harness.sample_views import parse_samples, samples_view

    sampling = parse_samples(samples, sample_seed)
    if not has_module("torch"):
        raise missing_extra("harness evaluate", "train")
    if tasks is not None:
        from harness.task_views import tasks_view

        allowed = ("records", "tasks", "limit", "device", "output_format")
        opt.refuse_options_beside(context, "--tasks scores tasks, not windows", allowed)
        tasks_view(records, tasks, device=device, limit=limit).print_to(open_console(), output_format)
        return
    if limit is not None:
        raise UsageError("--limit is of --tasks; give both or neither")
    samples_view(records, sampling, data_dir=data_dir, device=device).print_to(open_console(), output_format)


def export_model(record: opt.ExportedRecord, folder: opt.ExportFolder, file_format: opt.ExportFormat = "hf") -> None:
    """Write the network of a pretrained model's record as a folder that other programs load."""
    from harness.export_views import export_view

    export_view(record, folder, file_format).print_to(open_console(), "table")
