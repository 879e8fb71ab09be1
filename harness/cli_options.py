"""The options of the command line: names, bounds and help."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import UsageError
from harness.records.safeio import MAX_INTEGER

Format = Annotated[str, typer.Option("--format", help="table, markdown or json.")]
Records = Annotated[list[Path], typer.Argument(help="Record folders, or folders that hold some at any depth.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of local corpora (also HARNESS_DATA_DIR).")]

# harness run
Method = Annotated[str | None, typer.Option(help="Method or baseline; see `harness methods`.")]
Budget = Annotated[str | None, typer.Option(help="27h, 90m, 600s (wall clock), 27gpuh, 2000steps, 50Mtok or 1e15flop.")]
Preset = Annotated[str, typer.Option(help="Preset of the method.")]
Data = Annotated[str, typer.Option(help="Corpus; see `harness data list`.")]
Seed = Annotated[int, typer.Option(min=0, max=MAX_INTEGER, help="Seed of initialisation and data order.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Setting of model, train or export as key=value; repeatable."),
]
RunOut = Annotated[Path | None, typer.Option(help="Record folder to make (default: records/<run>).")]
Resume = Annotated[Path | None, typer.Option(help="Go on with an unfinished record folder.")]
Tokenizer = Annotated[
    str | None, typer.Option(help="bytes, characters, or sp1024 and the like (default: the corpus's own).")
]
EncodingErrors = Annotated[str, typer.Option(help="Invalid UTF-8: strict refuses, replace records.")]
EvalMode = Annotated[
    str | None,
    typer.Option(help="sliding, disjoint, challenge or challenge-sliding (default: sliding; disjoint for wikitext2)."),
]
EvalContext = Annotated[
    int | None, typer.Option(min=1, max=MAX_INTEGER, help="Input tokens (default: as in training).")
]
EvalStride = Annotated[
    int | None, typer.Option(min=1, max=MAX_INTEGER, help="Targets a window (default: half the context).")
]
MaxArtifactBytes = Annotated[int | None, typer.Option(min=1, max=MAX_INTEGER, help="Cap on the stored file, in bytes.")]
MaxParams = Annotated[int | None, typer.Option(min=1, max=MAX_INTEGER, help="Cap on trained parameters.")]
TargetParams = Annotated[
    int | None,
    typer.Option(min=1, max=MAX_INTEGER, help="Stored parameters to come nearest to, by width and inner width."),
]
Contest = Annotated[str | None, typer.Option(help="A contest's caps: parameter-golf.")]
Parent = Annotated[
    str | None, typer.Option("--from", help="Record folder to start from; what it spent is counted as lineage.")
]
Pretrained = Annotated[
    str | None,
    typer.Option(
        "--model", help="Pretrained model to compress: a folder, a GGUF file or a name on the Hugging Face hub."
    ),
]
Claim = Annotated[
    str | None,
    typer.Option(help="Claim to seal into the record as it stands now: mpo.C5, or FILE#ID of a claim file."),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
NumDevices = Annotated[
    int | None,
    typer.Option(
        "--devices", min=1, max=256, help="Processes of the run on this machine, one a GPU (torchrun starts others)."
    ),
]

# harness compare
ComparedRecords = Annotated[
    list[Path] | None, typer.Argument(metavar="[RECORDS]...", help="Records to compare instead of running any.")
]
Contenders = Annotated[
    str | None, typer.Option("--methods", help="dense,legendre/published,mpo: methods, each at its preset or --preset.")
]
NumSeeds = Annotated[int, typer.Option("--seeds", min=1, max=1000, help="Seeds 0, 1, ... of every method.")]
Match = Annotated[
    str | None,
    typer.Option(
        help="seconds, steps, tokens, flops, bytes or params: what all cells share (default: the budget's unit)."
    ),
]
Target = Annotated[
    str | None,
    typer.Option(help="With --match bytes: size of every file, 16MB; with --match params: stored parameters, 1.2M."),
]
Sizes = Annotated[
    str | None,
    typer.Option(help="tiny,small,medium (presets) or 300k,1.2M (parameters): a comparison at each, and trends."),
]
NumTrials = Annotated[
    int, typer.Option("--tune", min=0, max=4096, help="Trials of each method's learning rates, on the tune split.")
]
GridOut = Annotated[Path | None, typer.Option("--out", help="Folder of the comparison (default: comparisons/<name>).")]
GridResume = Annotated[Path | None, typer.Option("--resume", help="Go on with the folder of a comparison.")]
ShowOnly = Annotated[bool, typer.Option("--show-only", help="With --resume: compare what is complete, run nothing.")]
Pool = Annotated[
    bool, typer.Option("--pool", help="Records of one method and preset are its seeds though their settings differ.")
]
Frontiers = Annotated[
    bool, typer.Option("--frontiers", help="The arguments are files of `harness quantise RECORD --sweep --out FILE`.")
]
CellJobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", min=1, max=4096, help="Cells at a time (default: one; with Ray as many as its nodes have room for)."
    ),
]
Engine = Annotated[str, typer.Option(help="Where cells run: process (on this machine) or ray.")]
Address = Annotated[
    str | None,
    typer.Option(help="With --engine ray: auto (this machine's cluster) or HOST:PORT (default: one started here)."),
]
StorageUrl = Annotated[
    str | None,
    typer.Option(
        "--storage",
        help="With --engine ray: file:///... or s3://... for the records (default: --out, which all nodes must share).",
    ),
]

# harness plan
PlanMethod = Annotated[str, typer.Option("--method", help="Method or baseline; see `harness methods`.")]
PlanBudget = Annotated[str, typer.Option("--budget", help="As of `harness run`.")]
PlanDevice = Annotated[
    str, typer.Option(help="here (times a few steps), or h100, h200, a100 and the like (assumes --mfu of their peak).")
]
DEFAULT_MFU = 0.35
Mfu = Annotated[float, typer.Option(help="Part of a device's peak that the operations are assumed to reach.")]
Price = Annotated[float | None, typer.Option(help="Price of a device for an hour, in any currency.")]
Vocab = Annotated[
    int | None, typer.Option(min=2, max=65_536, help="Vocabulary of a corpus that is not on this machine.")
]

# harness evaluate
Samples = Annotated[str, typer.Option(help="Random windows of the test split: batches x windows of a batch.")]
SampleSeed = Annotated[int, typer.Option(min=0, max=MAX_INTEGER, help="Seed of their places.")]

Tasks = Annotated[
    str | None,
    typer.Option(help="Tasks of lm-evaluation-harness instead, by name or YAML file (whose code is run), with commas."),
]
TaskLimit = Annotated[int | None, typer.Option(min=1, max=MAX_INTEGER, help="With --tasks: first documents of each.")]

# harness export
ExportedRecord = Annotated[Path, typer.Argument(metavar="RECORD", help="Record folder of a pretrained model.")]
ExportFolder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")]
ExportFormat = Annotated[str, typer.Option("--format", help="hf: a Hugging Face folder, every matrix dense.")]

# harness quantise
QuantisedRecord = Annotated[Path, typer.Argument(help="Record folder; store its matrices as fp32 to compare schemes.")]
Schemes = Annotated[
    list[str] | None, typer.Option("--scheme", help="Scheme of matrices; repeatable (default: int6-row-search).")
]
GptqModes = Annotated[
    list[str] | None,
    typer.Option("--gptq", help="none, first (passes of shared maps) or all; repeatable (default: none and all)."),
]
Sweep = Annotated[bool, typer.Option("--sweep", help="Find the rate-distortion frontier, and compare plain formats.")]
SweepPoints = Annotated[int, typer.Option(min=2, max=64, help="Points of the frontier.")]
CalibrationTokens = Annotated[int, typer.Option(min=1, max=MAX_INTEGER, help="Training tokens that GPTQ measures.")]
SharingRecord = Annotated[Path, typer.Argument(help="Record folder of a network whose depths share matrices.")]
PulledTokens = Annotated[int, typer.Option("--tokens", min=1, max=MAX_INTEGER, help="Training tokens of the loss.")]
JsonOut = Annotated[Path | None, typer.Option("--out", help="Write the JSON document to this file, too.")]

# harness claims
ClaimName = Annotated[str, typer.Argument(help="Name of a claim, such as mpo.C5.")]
ClaimRunsOut = Annotated[Path, typer.Option("--out", help="Folder of the records.")]
ListOnly = Annotated[bool, typer.Option("--list", help="List the runs with their commands, make none.")]
ClaimFileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A claim file, see `harness claims new`.")]
NewClaimFile = Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")]
Evidence = Annotated[Path | None, typer.Option(help="Folder of record folders that the claims are judged by.")]
ClaimRuns = Annotated[
    list[Path] | None, typer.Option("--records", help="Folder of our own runs; repeatable (records, comparisons).")
]

# harness verify
Level = Annotated[
    str, typer.Option(help="static (files), decode (artifact), evaluate (scores again), retrain (trains again).")
]
ReportFormat = Annotated[str, typer.Option("--format", help="table, markdown, json, junit or sarif.")]
ReportOut = Annotated[Path | None, typer.Option(help="Write the report to this file.")]
Rules = Annotated[Path | None, typer.Option(help="TOML file of rules laid over the shipped ones, by id.")]
Strict = Annotated[bool, typer.Option("--strict", help="Count what cannot be verified as a failure.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="List what passed, too.")]
Explain = Annotated[
    bool, typer.Option("--explain", help="Print every value found, with origin, file and line; judge nothing.")
]
Jobs = Annotated[int, typer.Option(min=1, max=256, help="Processes that read foreign records.")]
FreshSeed = Annotated[int | None, typer.Option(min=0, max=MAX_INTEGER, help="Level retrain: train with this seed.")]
VerifyDevice = Annotated[str, typer.Option(help="auto, cpu or cuda, for evaluate and retrain.")]

# harness report, harness respond
ReportPaths = Annotated[
    list[Path],
    typer.Argument(metavar="RECORDS", help="Folders of records, comparisons and submissions; files of a sweep."),
]
SiteOut = Annotated[Path, typer.Option("--out", help="Folder of the page; an earlier report in it is replaced.")]
ReportClaims = Annotated[
    list[Path] | None, typer.Option("--claims", help="Claim file, judged beside those of the methods; repeatable.")
]
ReportLevel = Annotated[str, typer.Option("--level", help="Of verify: static (files) or decode (artifacts, too).")]
Subject = Annotated[str, typer.Argument(metavar="RECORD|CLAIM", help="A record folder, mpo.C6, or FILE#ID.")]
ReplyFile = Annotated[Path, typer.Option("--file", help="The reply, UTF-8 text, at most 64 kB.")]
ReplyAuthor = Annotated[str, typer.Option(help="Who replies.")]
ReplyOut = Annotated[
    Path | None, typer.Option("--out", help="Folder that takes responses/ (default: beside the record, or records).")
]

# harness diff, harness inspect
RecordA = Annotated[Path, typer.Argument(help="Record folder A.")]
RecordB = Annotated[Path, typer.Argument(help="Record folder B.")]
ModelFile = Annotated[Path, typer.Argument(help="artifact.bin, .safetensors, .gguf, .npz, .npy, zip or torch file.")]


def refuse_options_beside(context: typer.Context, why: str, allowed: Sequence[str]) -> None:
    """An option that would be dropped in silence is an error."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in allowed
        and (source := context.get_parameter_source(parameter.name or "")) is not None
        and source.name == "COMMANDLINE"
    ]
    if given:
        raise UsageError(f"{why}; drop {', '.join(given)}")
