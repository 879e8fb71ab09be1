"""One quantity, several witnesses: what the record claims, what the log printed, what the files measure.

A rule names quantities; each must have the same value wherever it is found. `list_values` also serves
readers who want to see every value with its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations

from harness.errors import RecordError
from harness.metrics import bits_per_byte, perplexity
from harness.records.logs import LOG_FILE
from harness.records.native import ARTIFACT_FILE, CONFIG_FILE, RECORD_FILE
from harness.records.safeio import JSON, file_bytes, hash_file
from harness.records.scores import SCORES_FILE
from harness.records.values import Scalar, Value
from harness.verify.case import NativeCase, UnavailableError
from harness.verify.findings import Finding
from harness.verify.rules import Rule

# A source finds one value, or None where a record may lack it; UnavailableError where it should be there.
Source = Callable[[NativeCase], Value | None]

_WEIGHT = {"claimed": 0, "logged": 1, "measured": 2}


def look_up(fields: JSON, key: str) -> JSON:
    """Return the value at a dotted key of nested objects, or None."""
    for name in key.split("."):
        fields = fields.get(name) if isinstance(fields, dict) else None
    return fields


def as_scalar(value: JSON) -> Scalar:
    """Return a value that a finding can show; what is neither number nor word becomes a short text."""
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else repr(value)[:80]


def claimed(key: str) -> Source:
    """Make the source that reads a dotted key of `record.json`; absent where the record has none."""

    def read(case: NativeCase) -> Value | None:
        value = look_up(case.fields, key)
        if value is None:
            return None
        line = case.lines.get(key)
        return Value(origin="claimed", value=as_scalar(value), path=RECORD_FILE, line=line, label=key)

    return read


def configured(key: str) -> Source:
    """Make the source that reads a key of `config.toml`."""

    def read(case: NativeCase) -> Value | None:
        if (value := look_up(case.config, key)) is None:
            raise UnavailableError(f"{CONFIG_FILE} has no {key}")
        return Value(origin="claimed", value=as_scalar(value), path=CONFIG_FILE, label=key)

    return read


def logged(event: str, key: str, *, optional: bool = False, **fields: JSON) -> Source:
    """Make the source that reads a field of the last event of a kind in the log.

    Args:
        event: kind of the event.
        key: its field.
        optional: whether a log may lack it.
        **fields: further fields that the event must have.
    """

    def read(case: NativeCase) -> Value | None:
        entry = case.log.last(event, **fields)
        value = entry.fields.get(key) if entry else None
        if entry is None or value is None:
            if optional:
                return None
            raise UnavailableError(f"{LOG_FILE} has no '{event}' line with {key}")
        label = f"{event} {key}"
        return Value(origin="logged", value=as_scalar(value), path=LOG_FILE, line=entry.line, label=label)

    return read


def measured(path: str, label: str, measure: Callable[[NativeCase], Scalar]) -> Source:
    """Make the source that measures a value from a file of the record."""

    def read(case: NativeCase) -> Value:
        case.require(path)
        try:
            value = measure(case)
        except RecordError as error:
            raise UnavailableError(str(error)) from error
        return Value(origin="measured", value=value, path=path, label=label)

    return read


def _sums(label: str, measure: Callable[[NativeCase], Scalar]) -> Source:
    return measured(SCORES_FILE, label, measure)


def _test_loss(case: NativeCase) -> float:
    return case.totals.total_nats / case.totals.num_tokens


QUANTITIES: Mapping[str, Sequence[Source]] = {
    "artifact bytes": (
        claimed("artifact.artifact_bytes"),
        logged("export", "artifact_bytes"),
        measured(ARTIFACT_FILE, "size", lambda case: file_bytes(case.folder, ARTIFACT_FILE)),
    ),
    "artifact sha256": (
        claimed("artifact.sha256"),
        logged("export", "sha256"),
        measured(ARTIFACT_FILE, "sha256", lambda case: hash_file(case.folder, ARTIFACT_FILE)[1]),
    ),
    "total nats": (
        claimed("metrics.test.total_nats"),
        _sums("sum of block_nats", lambda case: case.scores.total_nats),
    ),
    "scored tokens": (
        claimed("metrics.test.num_tokens"),
        _sums("sum of block_tokens", lambda case: case.scores.num_tokens),
    ),
    "scored bytes": (
        claimed("metrics.test.num_bytes"),
        _sums("sum of block_bytes", lambda case: case.scores.num_bytes),
    ),
    "val_bpb": (
        claimed("metrics.test.val_bpb"),
        logged("eval", "val_bpb", optional=True, split="test"),
        logged("end", "val_bpb"),
        _sums("nats / ln 2 / bytes", lambda case: bits_per_byte(case.totals.total_nats, case.totals.num_bytes)),
    ),
    "loss_nats": (
        claimed("metrics.test.loss_nats"),
        logged("eval", "loss_nats", optional=True, split="test"),
        logged("end", "loss_nats"),
        _sums("nats / tokens", _test_loss),
    ),
    "perplexity": (
        claimed("metrics.test.perplexity"),
        logged("eval", "perplexity", optional=True, split="test"),
        _sums("exp(nats / tokens)", lambda case: perplexity(_test_loss(case))),
    ),
    "token_accuracy": (
        claimed("metrics.test.token_accuracy"),
        logged("eval", "token_accuracy", optional=True, split="test"),
        _sums("right answers / tokens", lambda case: case.totals.num_correct / case.totals.num_tokens),
    ),
    "eval context": (
        claimed("metrics.test.eval_mode.context"),
        _sums("context", lambda case: case.scores.context),
    ),
    "eval stride": (
        claimed("metrics.test.eval_mode.stride"),
        _sums("stride", lambda case: case.scores.stride),
    ),
    "steps": (claimed("progress.steps"), claimed("budget.spent.steps"), logged("end", "steps")),
    "tokens": (claimed("progress.tokens"), claimed("budget.spent.tokens"), logged("end", "tokens")),
    "stopped_by": (claimed("budget.stopped_by"), logged("end", "stopped_by")),
    "seed": (claimed("seed"), configured("seed"), logged("start", "seed")),
}


def gather(case: NativeCase, quantity: str) -> tuple[list[Value], list[str]]:
    """Collect the values of a quantity, and the reasons why others are missing."""
    values: list[Value] = []
    gaps: list[str] = []
    for source in QUANTITIES[quantity]:
        try:
            value = source(case)
        except UnavailableError as gap:
            gaps.append(str(gap))
        else:
            values += [] if value is None else [value]
    return values, list(dict.fromkeys(gaps))


def list_values(case: NativeCase) -> Iterator[tuple[str, Value]]:
    """Yield every value found in a record, by quantity."""
    for quantity in QUANTITIES:
        for value in gather(case, quantity)[0]:
            yield quantity, value


def are_close(first: Value, second: Value, rule: Rule) -> bool:
    """Whether two values agree within a rule's tolerance and their printed digits."""
    a, b = first.value, second.value
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    printed = sum(0.5 * 10.0**-value.decimals for value in (first, second) if value.decimals is not None)
    return a == b or abs(a - b) <= rule.absolute + printed + rule.relative * max(abs(a), abs(b))


def judge_agreement(record: str, rule: Rule, quantity: str, values: Sequence[Value], gaps: Sequence[str]) -> Finding:
    """Say whether the values of a quantity agree: a contradiction fails, else a gap is unverifiable."""
    pairs = sorted(combinations(values, 2), key=lambda pair: -_WEIGHT[pair[1].origin])
    apart = next((pair for pair in pairs if not are_close(*pair, rule)), None)
    if apart is not None:
        first, second = apart
        message = f"{quantity}: {first.place} says {show(first.value)}, {second.place} says {show(second.value)}"
        return rule.finding(record, "fail", message, values=[*values, first, second])
    if gaps:
        return rule.gap(record, f"{quantity}: {'; '.join(gaps)}", values=values)
    return rule.finding(record, "pass", f"{quantity}: {len(values)} values agree", values=values)


def values_agree(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """Check every quantity that a rule names."""
    for quantity in rule.quantities:
        yield judge_agreement(case.name, rule, quantity, *gather(case, quantity))


def show(value: Scalar) -> str:
    """Format a value for a message: integers with separators, floats with the digits that matter."""
    if isinstance(value, float):
        return f"{value:.9g}"
    return f"{value:,}" if isinstance(value, int) else value
