"""Static checks of what was scored and set: tune scores, settings, splits, encoding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from harness.metrics import bits_per_byte, leaked_bits, perplexity
from harness.records.agreement import config_differences
from harness.records.logs import LOG_FILE
from harness.records.native import CONFIG_FILE, RECORD_FILE
from harness.records.schema import DENSE_WAY, BesidePart, EvalModePart, MetricsPart, TokenizerPart
from harness.records.scores import SCORES_FILE
from harness.records.values import Value
from harness.verify.agreement import judge_agreement, show
from harness.verify.case import NativeCase, UnavailableError
from harness.verify.findings import Finding, FindingStatus
from harness.verify.rules import Rule


def tune_metrics_hold(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """M5: fails when a tune score does not follow from its own totals or misses a part of the split."""
    metrics = case.record.metrics
    blocks = {"tune": metrics.tune, "tune_before_export": metrics.tune_before_export}
    for name, block in blocks.items():
        if block is not None:
            yield _judge_arithmetic(case, rule, f"metrics.{name}", block)
    if not any(blocks.values()):
        yield rule.finding(case.name, "pass", "no tune score is claimed")


def ways_beside_hold(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """M8: fails when a way beside a compression does not follow from its perplexity, or stores more than it.

    A way that could not be gone has a reason in place of numbers.
    """
    rows = case.record.beside
    if not rows:
        yield rule.finding(case.name, "pass", "nothing stands beside it")
        return
    own = next((row for row in rows if row.more_nats is None and row.perplexity is not None), None)
    if own is None or not own.perplexity or not own.num_params:
        yield rule.finding(case.name, "fail", "beside has no row of the record's own way", path=RECORD_FILE)
        return
    wrong = [message for row in rows if (message := _wrong_beside(row, own.num_params, own.perplexity, rule))]
    if wrong:
        yield rule.finding(case.name, "fail", f"beside, {wrong[0]}", path=RECORD_FILE)
        return
    yield rule.finding(case.name, "pass", f"{len(rows)} ways beside it hold", path=RECORD_FILE)


def _wrong_beside(row: BesidePart, own_params: int, own_perplexity: float, rule: Rule) -> str:
    """Say what is wrong with a way beside a record; empty where nothing is."""
    if row.num_params is None:
        return "" if row.problem else f"{row.name}: neither numbers nor a reason why there are none"
    if row.name != DENSE_WAY and row.num_params > (1 + rule.limits["more_params"]) * own_params:
        return f"{row.name}: {row.num_params:,} parameters, more than the {own_params:,} of its own"
    if row.more_nats is None or not row.perplexity:
        return ""
    expected = math.log(row.perplexity / own_perplexity)
    if abs(row.more_nats - expected) > rule.relative * max(1.0, abs(expected)):
        return f"{row.name}: more_nats is {row.more_nats:.6g}; its perplexities give {expected:.6g}"
    return ""


def _judge_arithmetic(case: NativeCase, rule: Rule, key: str, metrics: MetricsPart) -> Finding:
    if not metrics.num_bytes or not metrics.num_tokens:
        return rule.finding(case.name, "fail", f"{key}: no token or byte was scored", path=RECORD_FILE)
    loss_nats = metrics.total_nats / metrics.num_tokens
    split = case.record.data.splits.tune
    expected: dict[str, float] = {
        "val_bpb": bits_per_byte(metrics.total_nats, metrics.num_bytes),
        "loss_nats": loss_nats,
        "perplexity": perplexity(loss_nats),
    }
    if not metrics.partial:
        expected["num_tokens"] = expected_targets(metrics.eval_mode, split.num_tokens, case.record.data.tokenizer)
    for field, value in expected.items():
        claim = case.claim(f"{key}.{field}", getattr(metrics, field))
        fact = Value(origin="measured", value=value, path=RECORD_FILE, line=claim.line, label="recomputed")
        finding = judge_agreement(case.name, rule, f"{key}.{field}", [claim, fact], [])
        if finding.status != "pass":
            return finding
    return rule.finding(case.name, "pass", f"{key}: follows from its totals", path=RECORD_FILE)


def source_is_not_beaten(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """M7: fails when the scored code is shorter than the true source's by more bits than chance gives."""
    metrics, sources = case.test_metrics, case.record.data.source_nats
    if not sources:
        yield rule.finding(case.name, "pass", "the true source of the text is not known")
        return
    if metrics.partial or metrics.eval_mode.mode != "sliding":
        yield rule.finding(case.name, "pass", "not every token was scored once, so the true source is no bound")
        return
    if "test" not in sources:
        raise UnavailableError(f"{RECORD_FILE} has no data.source_nats.test")
    claim = case.claim("data.source_nats.test", sources["test"])
    fact = Value(origin="measured", value=case.totals.total_nats, path=SCORES_FILE, label="sum of block_nats")
    bits = leaked_bits(case.totals.total_nats, sources["test"])
    status: FindingStatus = "fail" if bits > rule.limits["leak_bits"] else "pass"
    told = f": {bits:,.1f} bits shorter is a leak" if status == "fail" else ""
    message = f"{show(fact.value)} nats were scored, the true source takes {show(claim.value)}{told}"
    yield rule.finding(case.name, status, message, values=[claim, fact])


def settings_match(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """E2: fails when config.toml differs from the record in method, data or a setting."""
    apart = config_differences(case.record, case.config)
    if not apart:
        yield rule.finding(case.name, "pass", "the settings agree", path=CONFIG_FILE)
        return
    key, claimed, configured = apart[0]
    more = f"; and {len(apart) - 1} more" if len(apart) > 1 else ""
    says = f"{RECORD_FILE} has {claimed!r:.60}, {CONFIG_FILE} {configured!r:.60}"
    yield rule.finding(case.name, "fail", f"{key}: {says}{more}", path=CONFIG_FILE)


def expected_targets(mode: EvalModePart, num_tokens: int, tokenizer: TokenizerPart) -> int:
    """Return how many targets a whole split has in an eval mode.

    Args:
        mode: "sliding" scores every token but a start token at the head once; "disjoint" all but the first token of
            each whole window; "challenge" takes the first token as context and drops the tail that fills no window;
            "challenge-sliding" scores `stride` targets from each start after the first.
        num_tokens: tokens of the split.
        tokenizer: says whether the split begins with a start token of its own.
    """
    num_targets = max(0, num_tokens - 1)
    if mode.mode == "sliding":
        return num_targets if tokenizer.separator else num_tokens
    if mode.mode == "disjoint":
        return (num_tokens + tokenizer.begins_texts) // mode.context * (mode.context - 1)
    whole = num_targets // mode.context * mode.context
    if mode.mode == "challenge" or whole <= mode.stride:
        return whole
    return mode.context + whole - mode.stride


def split_is_covered(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """D1: fails when tokens or bytes of the test split were left out unsaid, or none was but is said; notes others."""
    split, scores = case.record.data.splits.test, case.totals
    metrics = case.test_metrics
    expected_tokens = expected_targets(metrics.eval_mode, split.num_tokens, case.record.data.tokenizer)
    pairs: Sequence[tuple[str, int, int]] = [("tokens", expected_tokens, scores.num_tokens)]
    if metrics.eval_mode.mode == "sliding":
        pairs = [*pairs, ("bytes", split.num_bytes, scores.num_bytes)]
    for unit, expected, found in pairs:
        values = [
            case.claim(f"data.splits.test.num_{unit}", expected),
            Value(origin="measured", value=found, path=SCORES_FILE, label=f"sum of block_{unit}"),
        ]
        message = f"{found:,} of {expected:,} {unit} of the test split were scored"
        if metrics.partial and found < expected:
            yield rule.finding(case.name, "note", f"partial score: {message}", values=values)
            return
        if metrics.partial and unit == pairs[-1][0]:
            yield rule.finding(case.name, "fail", f"metrics.test.partial is true, but {message}", values=values)
            return
        yield rule.finding(case.name, "pass" if found == expected else "fail", message, values=values)
        if found != expected:
            return


def test_is_opened_once(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """D2: fails when the test split was opened before the export, or record and log count other openings.

    A scoring that was cut off opens it again: more than one opening, all after the export, is a note.
    """
    openings = [entry.line for entry in case.log.events if entry.event == "test_open"]
    export = case.log.last("export")
    claim = case.claim("data.test_openings", len(case.record.data.test_openings))
    line = openings[0] if openings else None
    fact = Value(origin="logged", value=len(openings), path=LOG_FILE, line=line)
    message = f"the record lists {claim.value} openings of the test split, the log {fact.value}"
    status: FindingStatus = "pass"
    if not openings or claim.value != fact.value:
        status = "fail"
    elif export is None or openings[0] < export.line:
        status, message = "fail", f"{fact.place}: the test split was opened before the artifact was written"
    elif len(openings) > 1:
        status, message = "note", f"{message}, all after the artifact was written"
    yield rule.finding(case.name, status, message, values=[claim, fact])


def encoding_is_stated(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """D3: fails when a strictly read corpus has replacements; notes replacements that are stated."""
    data = case.record.data
    claim = case.claim("data.num_replaced", data.num_replaced)
    mode = f"--encoding-errors {data.encoding_errors}"
    message = f"{data.num_replaced:,} invalid places of the text were replaced ({mode})"
    status: FindingStatus = "pass"
    if data.num_replaced:
        status = "fail" if data.encoding_errors == "strict" else "note"
    yield rule.finding(case.name, status, message, values=[claim])
