"""From a request to a job: everything that can be checked before anything is trained, and the record folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w
import torch

from harness.artifact.container import Artifact
from harness.claims.files import find_claim
from harness.claims.sealing import make_seal
from harness.data.shards import TokenData, prepare
from harness.errors import DataError, RecordError, UsageError
from harness.files import write_atomic
from harness.job import Job, Reporter, RunRequest
from harness.lineage import ParentRecord, check_parent_data
from harness.method import Method, RecordSizes, Settings, Setup, Task
from harness.plan import build_on_meta, check_memory, make_plan
from harness.pretrained.architecture import longest_context
from harness.pretrained.source import PretrainedSource
from harness.provenance import describe_environment, harness_code_sha256, hash_sources
from harness.records.native import ARTIFACT_FILE, CHECKPOINT_FILE, CONFIG_FILE
from harness.records.schema import AncestorPart, Record
from harness.registry import MethodInfo
from harness.run_record import RunRecord, make_folder, new_record_fields, run_name
from harness.scoring import EvalMode
from harness.settings import SECTIONS, RunSettings
from harness.sizing import settle_params
from harness.training.budget import parse_budget
from harness.training.clock import Clock
from harness.training.gradients import micro_batches_of_rank
from harness.training.ranks import Ranks, resolve_precision
from harness.training.recipe import Recipe
from harness.training.repetition import LoggedFit


@dataclass(frozen=True, slots=True)
class Setting:
    """What every run has in common before it is prepared; what `held` holds is let go when the run is over."""

    request: RunRequest
    info: MethodInfo
    settings: RunSettings
    ranks: Ranks
    clock: Clock
    reporter: Reporter
    data_dir: Path | None
    held: ExitStack
    parent: ParentRecord | None = None
    source: PretrainedSource | None = None


def prepare_job(
    setting: Setting,
    *,
    out: Path | None = None,
    existing: RunRecord | None = None,
    repeated: tuple[LoggedFit, ...] | None = None,
) -> Job:
    """Check everything that can be checked before the record folder is made."""
    request, info, ranks, clock = setting.request, setting.info, setting.ranks, setting.clock
    precision = resolve_precision(setting.settings.train.precision, ranks.device)
    recipe = setting.settings.train.model_copy(update={"precision": precision})
    if setting.source is not None:
        recipe = fit_context(recipe, setting.source.architecture)
    eval_mode = request.resolve_eval_mode(recipe.context)
    request.check_caps()
    if recipe.qat_start and setting.settings.export.target_bytes:
        raise UsageError(
            "train.qat_start looks at export.matrices, but export.target_bytes chooses other steps at the end; set one"
        )
    micro_batches_of_rank(recipe.num_micro_batches, ranks.rank, ranks.size)
    with clock.pause("data"):
        data = _prepare_data(setting)
    check_splits(data, recipe.context, eval_mode)
    if setting.parent is not None:
        check_parent_data(setting.parent, data.manifest())
    task = Task(vocab_size=data.tokenizer.vocab_size, context=recipe.context, pass_tokens=recipe.micro_batch_tokens)

    def say(message: str) -> None:
        if ranks.is_main:
            setting.reporter.said(message)

    method_class = info.load(pretrained=setting.source is not None)
    architecture = setting.source.architecture if setting.source is not None else None
    model = settle_model(method_class, setting.settings, task, request.target_params, say, architecture)
    settings = replace(setting.settings, train=recipe, model=model)
    method = method_class(settings.model, task)
    plan = make_plan(method, settings, clock.budget, data, is_trained=setting.source is None)
    check_memory(plan, request.preset, ranks.device)
    if request.max_params is not None and plan.num_params_trained > request.max_params:
        raise UsageError(f"{plan.num_params_trained:,} parameters are above --max-params {request.max_params:,}")
    record = _go_on(existing, setting, data) if existing else _new_record(setting, settings, data, out)
    job = Job(
        request=request,
        info=info,
        settings=settings,
        budget=clock.budget,
        eval_mode=eval_mode,
        ranks=ranks,
        clock=clock,
        data=data,
        data_dir=setting.data_dir,
        method=method,
        plan=plan,
        record=record,
        reporter=setting.reporter,
        repeated=repeated,
        parent=setting.parent,
        pretrained=setting.source,
    )
    is_timed_first = (
        plan.max_steps is None and setting.source is None and not (record.folder / CHECKPOINT_FILE).exists()
    )
    if (
        ranks.is_main and not is_timed_first
    ):  # what fits into a timed budget, if anything, is said once a step was timed
        setting.reporter.planned(job)
    return job


def check_model_options(request: RunRequest, ranks: Ranks) -> None:
    """Refuse what does not go together with `--model`.

    Raises:
        UsageError: names the option.
    """
    if request.pretrained is None:
        return
    if not request.pretrained:
        raise UsageError("--model is empty; give a folder, a GGUF file or a name on the Hugging Face hub")
    if request.parent is not None:
        raise UsageError("--model and --from are two beginnings of one run; give one")
    if ranks.size > 1:
        raise UsageError(f"--model: a pretrained model is compressed by one process, not {ranks.size}; drop --devices")
    if not parse_budget(request.budget).is_timed:
        raise UsageError(f"--budget {request.budget}: with --model nothing is trained; give a time, or leave it out")
    if request.target_params is not None:
        raise UsageError("--target-params chooses widths, which a pretrained model has already; drop it")


def fit_context(recipe: Recipe, architecture: Mapping[str, Any]) -> Recipe:
    """Return the recipe with windows that are no longer than the pretrained model takes."""
    longest = longest_context(architecture)
    if recipe.context <= longest:
        return recipe
    return recipe.model_copy(update={"context": longest, "micro_batch_tokens": longest, "batch_tokens": longest})


def settle_model(
    method_class: type[Method],
    settings: RunSettings,
    task: Task,
    target_params: int | None,
    say: Callable[[str], None],
    architecture: Mapping[str, Any] | None = None,
) -> Settings:
    """Work out the model settings that depend on data, on a number of parameters, or on another record.

    Args:
        method_class: of the settings.
        settings: as asked for.
        task: sizes of the data.
        target_params: stored parameters to come nearest to; None leaves the widths as they are.
        say: told what was chosen.
        architecture: of the pretrained model that the run starts from, if it does.
    """

    def count(model: Settings) -> int:
        method = method_class(model, task)
        return method.count_stored(build_on_meta(method), settings.export)

    setup = Setup(task=task, export=settings.export, sizes_of=_measure_record, say=say, architecture=architecture)
    model = settings.model.settle(setup)
    if target_params is not None:
        model, said = settle_params(model, target_params, count)
        say(said)
    return model


def _measure_record(folder: str) -> RecordSizes:
    """Measure the stored file of a record; what its `record.json` claims plays no part."""
    path = Path(folder) / ARTIFACT_FILE
    if not path.is_file():
        raise RecordError(f"{folder}: no record with an {ARTIFACT_FILE} there; give the folder of a finished run")
    artifact = Artifact.open(path)
    bits, numbers = Counter[str](), Counter[str]()
    for entry in artifact.entries:
        bits[entry.scheme] += 8 * entry.stored_bytes
        numbers[entry.scheme] += entry.num_numbers
    return RecordSizes(
        num_params_stored=artifact.num_params_stored,
        artifact_bytes=artifact.artifact_bytes,
        overhead_bytes=artifact.artifact_bytes - sum(bits.values()) // 8,
        bits_by_scheme={scheme: bits[scheme] / numbers[scheme] for scheme in bits if numbers[scheme]},
    )


def _prepare_data(setting: Setting) -> TokenData:
    """Fetch and tokenise on rank 0 first; the other ranks then read its cache."""
    request, ranks = setting.request, setting.ranks
    if not ranks.is_main:
        ranks.share(None)
    data = prepare(
        request.data,
        tokenizer=request.tokenizer if setting.source is None else setting.source.tokenizer,
        data_dir=setting.data_dir,
        encoding_errors=request.encoding_errors,
    )
    if ranks.is_main:
        ranks.share(None)
    return data


def check_splits(data: TokenData, context: int, eval_mode: EvalMode) -> None:
    """Refuse, before anything is trained, splits that hold no window to train on or to score.

    Raises:
        DataError: names the split.
    """
    splits = data.manifest()["splits"]
    needed = {"train": context + 1, "tune": 2, "test": 2}
    if eval_mode.mode != "sliding":
        needed |= {"tune": eval_mode.context + 1, "test": eval_mode.context + 1}
    for split, num_tokens in needed.items():
        if splits[split]["num_tokens"] < num_tokens:
            raise DataError(
                f"--data {data.name}: the {split} split has {splits[split]['num_tokens']:,} tokens, {num_tokens:,} are "
                "needed; give more text, or a shorter context (--set train.context=..., --eval-context)"
            )


def _environment(setting: Setting) -> dict[str, Any]:
    ranks = setting.ranks
    environment = describe_environment(_device_name(ranks.device), ranks.size, torch.get_num_threads())
    return {**environment, "harness_code_sha256": harness_code_sha256()}


def _go_on(record: RunRecord, setting: Setting, data: TokenData) -> RunRecord:
    """Take up an unfinished record, if text and code are still those that it was begun with.

    Raises:
        UsageError: the text or the method's code has changed.
    """
    fields, folder = record.fields, record.folder
    known = Record.model_validate(fields).data
    now = Record.model_validate({**fields, "data": data.manifest()}).data
    if known.model_copy(update={"test_openings": []}) != now:
        raise UsageError(f"--resume {folder}: the text is not the one it was trained on; start a new run")
    if fields["method"]["code_sha256"] != hash_sources([setting.info.folder]):
        raise UsageError(f"--resume {folder}: the code of method '{setting.info.name}' has changed; start a new run")
    environment = _environment(setting)
    if fields["environment"] != environment:
        fields["earlier_environments"] = [*fields.get("earlier_environments", []), fields["environment"]]
        fields["environment"] = environment
    if setting.ranks.is_main:
        record.write()
    return record


def request_from_config(folder: Path, config: Mapping[str, Any]) -> RunRequest:
    """Read the request of an unfinished or repeated run from its `config.toml`.

    Raises:
        RecordError: a key is missing or none of ours.
    """
    fields = {key: value for key, value in config.items() if key not in SECTIONS}
    try:
        return RunRequest(**fields | {"overrides": tuple(fields.get("overrides", ()))})
    except TypeError as error:
        raise RecordError(f"--resume {folder}: config.toml does not describe a run ({error})") from error


def _config_of(request: RunRequest, settings: RunSettings) -> dict[str, Any]:
    """Return the content of `config.toml`; TOML has no null, so what was not set is left out."""
    fields = {key: value for key, value in asdict(request).items() if value is not None}
    return {**fields, "overrides": list(request.overrides), **settings.as_dict()}


def _new_record(setting: Setting, settings: RunSettings, data: TokenData, out: Path | None) -> RunRecord:
    """Make the folder with `config.toml` and a running `record.json`, on rank 0; all ranks get the same path."""
    request, info, budget, ranks = setting.request, setting.info, setting.clock.budget, setting.ranks
    name = run_name(info.name, request.preset, request.data, budget.text, request.seed)
    folder = ranks.share(make_folder(out, name, setting.held) if ranks.is_main else None)
    fields = {
        **new_record_fields(folder.name),
        "method": {
            "name": info.name,
            "kind": info.toml.kind,
            "version": info.toml.version,
            "code_sha256": hash_sources([info.folder]),
        },
        "preset": request.preset,
        "settings": settings.as_dict(),
        "seed": request.seed,
        "budget": {
            "text": budget.text,
            "kind": budget.kind,
            "amount": budget.amount,
            "stopped_by": None,
            "spent": {"seconds": 0.0, "gpu_seconds": 0.0, "steps": 0, "tokens": 0, "flops": 0.0},
        },
        "data": data.manifest(),
        "environment": _environment(setting),
        "lineage": [ancestor.model_dump() for ancestor in _ancestors(setting)],
    }
    if request.claim is not None:
        fields["seal"] = make_seal(*find_claim(request.claim), stopping=budget.text).model_dump()
    record = RunRecord(folder=folder, fields=fields)
    if ranks.is_main:
        write_atomic(folder / CONFIG_FILE, tomli_w.dumps(_config_of(request, settings)).encode())
        record.write()
    return record


def _ancestors(setting: Setting) -> list[AncestorPart]:
    start = setting.parent or setting.source
    return start.lineage if start is not None else []


def _device_name(device: str) -> str:
    return "cpu" if device == "cpu" else f"{device} {torch.cuda.get_device_name(device)}"
