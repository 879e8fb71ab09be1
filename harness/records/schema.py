"""The content of `record.json`: every field typed, units in the names.

Types are strict: a number written as a string is an error of the record, never silently converted.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from harness.records.safeio import JSON, MAX_INTEGER, is_plain_name

SCHEMA_VERSION = 1

Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
# Bounds far beyond any run, so that no sum or mean of a stranger's numbers leaves float64.
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Amount = Annotated[float, Field(gt=0, le=1e40)]
Score = Annotated[float, Field(ge=-1e9, le=1e9)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Utc = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$")]
Status = Literal["running", "complete", "interrupted", "failed"]
BudgetKind = Literal["seconds", "gpu_seconds", "steps", "tokens", "flops"]


class Part(BaseModel):
    """Base of every part of a record: frozen, strict types, finite numbers, unknown keys refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


class MethodPart(Part):
    """Which method made the record; `code_sha256` covers the plugin's sources."""

    name: str
    kind: str
    version: str
    code_sha256: Sha256


class SettingsPart(Part):
    """All settings of model, training and export, as resolved from preset and overrides."""

    model: dict[str, JsonValue]
    train: dict[str, JsonValue]
    export: dict[str, JsonValue]


class SpentPart(Part):
    """What the run used inside its budget; `seconds` are wall-clock, `gpu_seconds` device time."""

    seconds: Seconds
    gpu_seconds: Seconds
    steps: Count
    tokens: Count
    flops: Annotated[float, Field(ge=0, le=1e40)]


class BudgetPart(Part):
    """What the run was allowed: `amount` in the unit of `kind`, with a `tolerance` as a fraction of it.

    `overrun` is what was spent above it, in the same unit; null where an older version did not say.
    """

    text: str
    kind: BudgetKind
    amount: Amount
    stopped_by: str | None
    spent: SpentPart
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.01
    overrun: Annotated[float, Field(ge=0, le=1e40)] | None = None


class TokenizerPart(Part):
    """Which tokenizer; `sha256` covers its blob in the artifact, `separator` says if works begin with `start_id`.

    `begins_texts` says if a pretrained model's tokenizer puts it before a text.
    """

    kind: str
    vocab_size: Count
    start_id: Count
    separator: bool
    is_lossless: bool
    begins_texts: bool = False
    sha256: Sha256


class SplitPart(Part):
    """One split of the corpus.

    `num_tokens` include the start token of each work where the tokenizer separates works; `num_bytes` are of the
    original text; `text_sha256` and `num_works` are null where tokens came without their text.
    """

    sha256: Sha256
    num_tokens: Count
    num_bytes: Count
    num_works: Count | None = None
    text_sha256: Sha256 | None = None


class SplitsPart(Part):
    """The three splits."""

    train: SplitPart
    tune: SplitPart
    test: SplitPart


class OpeningPart(Part):
    """One reading of the test split."""

    purpose: str
    utc: Utc


class DataPart(Part):
    """The manifest of the text."""

    name: str
    corpus_sha256: Sha256
    tokenizer: TokenizerPart
    splits: SplitsPart
    encoding_errors: Literal["strict", "replace"]
    num_replaced: Count
    source_nats: dict[str, float] | None = None
    test_openings: list[OpeningPart] = []


class ParamsPart(Part):
    """Parameters: stored = coded numbers of the file; effective = dense equivalent; active = used per token.

    `parts` are the trainable parameters by component.
    """

    stored: Count
    effective: Count
    active: Count
    parts: dict[str, Count]


class ArtifactPart(Part):
    """The stored file: bytes by part (they add up to `artifact_bytes`), coders used, code figures, caps.

    `max_artifact_bytes` is the user's own cap, `rules` the contest whose cap holds too; see `harness.records.caps`.
    """

    artifact_bytes: Count
    sha256: Sha256
    parts: dict[str, Count]
    coders: dict[str, Count]
    plugin_bytes: Count
    decoder_closure_bytes: Count
    max_artifact_bytes: Count | None = None
    rules: Literal["parameter-golf"] | None = None


class EvalModePart(Part):
    """How windows lay over the split; scores of unlike modes are never compared."""

    mode: Literal["sliding", "disjoint", "challenge", "challenge-sliding"]
    context: Annotated[int, Field(ge=1, le=MAX_INTEGER)]
    stride: Annotated[int, Field(ge=1, le=MAX_INTEGER)]


class MetricsPart(Part):
    """Scores of one split: `val_bpb` in bits a byte, `loss_nats` a token, totals over all scored targets."""

    eval_mode: EvalModePart
    partial: bool
    val_bpb: Score
    loss_nats: Score
    token_accuracy: Annotated[float, Field(ge=0, le=1)]
    perplexity: Annotated[float, Field(ge=0)]
    total_nats: Annotated[float, Field(ge=-1e18, le=1e18)]
    num_tokens: Count
    num_bytes: Count


class AllMetricsPart(Part):
    """Scores from the file (test, tune), and of the network before it was stored (tune_before_export)."""

    test: MetricsPart | None = None
    tune: MetricsPart | None = None
    tune_before_export: MetricsPart | None = None


class TimePart(Part):
    """Where the time went; the parts do not overlap. train, compression and export are inside the budget."""

    wall_seconds: Seconds
    train_seconds: Seconds
    compression_seconds: Seconds
    validation_seconds: Seconds
    compilation_seconds: Seconds
    export_seconds: Seconds
    data_seconds: Seconds
    device_seconds: Seconds


class ProgressPart(Part):
    """How far the training went; `flops_per_step` is null for several fits, or where an older version did not say."""

    steps: Count
    tokens: Count
    epochs: Annotated[float, Field(ge=0, le=1e12)]
    flops_per_step: Annotated[float, Field(ge=0, le=1e40)] | None = None
    median_step_seconds: Seconds | None = None
    peak_memory_bytes: Count | None = None


class EnvironmentPart(Part):
    """Versions and hardware of the run; `harness_code_sha256` covers this program, `precision` is that of training."""

    python: str
    torch: str | None
    numpy: str | None
    harness: str | None
    platform: str
    cpu: str
    num_threads: Count
    device: str
    num_ranks: Annotated[int, Field(ge=1, le=MAX_INTEGER)]
    command_line: str
    harness_code_sha256: Sha256 | None = None
    precision: str | None = None


class AncestorPart(Part):
    """What this record started from: another record, or a pretrained model.

    `artifact_sha256` is of the record's artifact, or of the model's weights; `spent` is null where nobody knows what
    the training cost.
    """

    kind: Literal["record", "pretrained"] = "record"
    name: str
    artifact_sha256: Sha256
    spent: SpentPart | None

    @model_validator(mode="after")
    def _records_say_what_they_spent(self) -> Self:
        if (self.spent is None) != (self.kind == "pretrained"):
            raise ValueError("spent is null for a pretrained model, and for nothing else")
        return self


# The row of the model itself, which may have more parameters than what it was compressed to.
DENSE_WAY = "dense"


class BesidePart(Part):
    """A way to compress the pretrained model that the record's own has to beat, at its total of stored parameters.

    `perplexity` a token, `more_nats` than the record's own way (mean over windows of the tune split) with the standard
    error over windows as `more_nats_error`; null where there is nothing to score or to pair. `problem` says why a way
    could not be gone; it has no numbers then.
    """

    name: str
    num_params: Count | None
    relative_error: Annotated[float, Field(ge=0, le=1e40)] | None
    perplexity: Annotated[float, Field(ge=0, le=1e40)] | None
    more_nats: float | None
    more_nats_error: Annotated[float, Field(ge=0, le=1e40)] | None
    seconds: Seconds
    problem: str = ""


class SealPart(Part):
    """What a run was made to decide, fixed before its training.

    Attributes:
        claim: name of the claim.
        sha256: of the claim's predicates with the published numbers and margins that they name.
        margins: as printed, by name.
        num_seeds: runs that were planned, each with a seed.
        stopping: budget at which each run stops.
        also: other claims that the run was made to decide, with the hash of each.
    """

    claim: str
    sha256: Sha256
    margins: dict[str, str]
    num_seeds: Annotated[int, Field(ge=1, le=MAX_INTEGER)]
    stopping: str
    also: dict[str, Sha256] = {}


class FilePart(Part):
    """Size and hash of another file of the record folder."""

    bytes: Count
    sha256: Sha256


class Record(Part):
    """One run. A complete record has parameters, artifact, test scores, times, progress and hashed files.

    `environment` is that of the end; one that was resumed elsewhere keeps those before in `earlier_environments`.
    """

    schema_version: int = Field(alias="schema", default=SCHEMA_VERSION)
    status: Status
    reason: str | None = None
    name: str
    created_utc: Utc
    harness_version: str
    method: MethodPart
    preset: str
    settings: SettingsPart
    seed: Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]
    budget: BudgetPart
    data: DataPart
    params: ParamsPart | None = None
    artifact: ArtifactPart | None = None
    metrics: AllMetricsPart = AllMetricsPart()
    time: TimePart | None = None
    progress: ProgressPart | None = None
    environment: EnvironmentPart
    earlier_environments: list[EnvironmentPart] = []
    lineage: list[AncestorPart] = []
    beside: list[BesidePart] = []
    seal: SealPart | None = None
    contended: bool | None = None
    files: dict[str, FilePart] = {}

    @model_validator(mode="after")
    def _has_what_its_status_needs(self) -> Self:
        if odd := [name for name in self.files if not is_plain_name(name)]:
            raise ValueError(f"files: {odd[0]!r:.80} is not the name of a file in the record folder")
        if self.status == "complete":
            needed = {
                "params": self.params,
                "artifact": self.artifact,
                "metrics.test": self.metrics.test,
                "time": self.time,
                "progress": self.progress,
                "budget.stopped_by": self.budget.stopped_by,
            }
            if missing := [name for name, part in needed.items() if part is None]:
                raise ValueError(f"status is complete but {', '.join(missing)} is missing")
        if self.status == "failed" and not self.reason:
            raise ValueError("status is failed but reason does not say why")
        return self

    @property
    def is_pretrained(self) -> bool:
        """Whether it started from a pretrained model, which is another kind of network of its method."""
        return any(ancestor.kind == "pretrained" for ancestor in self.lineage)

    @property
    def max_num_ranks(self) -> int:
        """The most ranks that any part of the run had."""
        return max(part.num_ranks for part in (self.environment, *self.earlier_environments))

    def to_json(self) -> dict[str, JSON]:
        """Return the content of `record.json` as plain values."""
        return cast("dict[str, JSON]", self.model_dump(mode="json", by_alias=True))
