"""Foreign records, bytes and parameters: claims against logs and files, arithmetic, the cap."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.records.submission import LoggedRun, Reading, Statement
from harness.verify.findings import Finding, FindingStatus, Severity
from harness.verify.foreign_case import ForeignCase, outcome, show_number
from harness.verify.judging import agree, judge, judge_seed, seed_claims, verdict_of, whole_claims
from harness.verify.rules import Rule
from harness.verify.witnesses import (
    Witness,
    distinct_runs,
    find,
    missing_seeds,
    nearest,
    of_runs,
    over_seeds,
    readings_of,
    remember,
)

# Sizes of one run that are added to each other: all of them would be millions.
MAX_PARTS = 5


def total_bytes_are_logged(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XB1: fails when the claimed total is no logged total, or is the model without its code."""
    for claim in [*whole_claims(case, "bytes_total"), *seed_claims(case, "bytes_total")]:
        yield from _judge_total(case, rule, claim)
    for run in distinct_runs(case.submission.runs):
        totals = [reading for reading in run.of("bytes_total") if reading.label != "total"]
        code = [reading for reading in run.of("bytes_code") if reading.value > 0]
        models = {model.value: model for model in reversed(compressed_models(run))}
        alone = [(total, models[total.value]) for total in totals if total.value in models]
        if alone and code:
            total, model = alone[0]
            message = (
                f"{total.place} says {show_number(total)}, which is the model alone ({model.place}); "
                f"the code has {show_number(code[-1])}"
            )
            yield case.say(rule, "fail", message, code[-1], total)


def _judge_total(case: ForeignCase, rule: Rule, claim: Reading) -> Iterator[Finding]:
    if claim.seed is not None and not case.submission.runs_of(claim.seed):
        return
    witnesses, parts = remember(case.submission, ("totals", claim.seed), lambda: _total_witnesses(case, claim.seed))
    if find(claim, witnesses) is None and (part := find(claim, parts)) is not None and witnesses:
        own = [witness for witness in witnesses if witness.reading.path == part.reading.path]
        total = nearest(claim, own or witnesses)
        assert total is not None
        is_loose = claim.source == "readme" and (
            claim.last_place >= 1000 or _is_right_elsewhere(case, claim, witnesses)
        )
        message = (
            f"{claim.place} is {show_number(claim)}: the compressed model alone ({part.reading.place}, {part.what}); "
            f"with the code it is {total.value:,.0f} bytes"
        )
        if not is_loose:
            case.convicted.add(("bytes_total", claim.seed))
        yield case.say(rule, "note" if is_loose else "fail", message, claim, total.reading)
    elif (largest := _true_extreme(case, claim)) is not None:
        message = f"{claim.place} is {show_number(claim)}; {largest.place} says {show_number(largest)}"
        yield case.say(rule, "fail", message, claim, largest, severity="minor")
    elif claim.seed is None:
        yield judge(
            case,
            rule,
            claim,
            witnesses,
            severity=None if claim.statistic == "value" and not claim.other_value else "minor",
        )
    else:
        is_copy = claim.source == "readme" and _is_right_elsewhere(case, claim, witnesses)
        near = nearest(claim, witnesses)
        cap = case.submission.byte_cap
        is_slight = near is not None and abs(near.value - claim.value) <= rule.limits["other_run_fraction"] * near.value
        is_under = near is not None and (cap is None or max(near.value, claim.value) <= cap)
        is_minor = claim.last_place >= 1000 or is_copy or (is_slight and is_under)
        severity: Severity = "minor" if is_minor else "major"
        yield from judge_seed(case, rule, claim, _totals, severity=severity)


def _true_extreme(case: ForeignCase, claim: Reading) -> Reading | None:
    """Return the logged total that a claimed maximum leaves out, where every claimed seed is logged."""
    if claim.statistic != "max" or claim.seed is not None or missing_seeds(case.submission):
        return None
    claimed = set(case.submission.claimed_seeds)
    totals = [final_totals(run)[-1] for run in case.submission.runs if final_totals(run) and run.seeds & claimed]
    largest = max(totals, key=lambda reading: reading.value, default=None)
    slack = claim.last_place + 0.5
    return largest if largest is not None and largest.value > claim.value + slack else None


def _total_witnesses(case: ForeignCase, seed: str | None) -> tuple[list[Witness], list[Witness]]:
    """Return what a total may rest on, and the models alone; of one seed, or of the whole record."""
    runs = case.submission.runs_of(seed) if seed is not None else case.submission.runs
    witnesses = list(of_runs(runs, _totals))
    parts = list(of_runs(runs, compressed_models))
    if seed is None:
        witnesses += over_seeds(case.submission, _totals)
        parts += over_seeds(case.submission, compressed_models)
    witnesses += _with_script(case, [witness for witness in parts if witness.kind == "run"])
    return witnesses, parts


def _is_right_elsewhere(case: ForeignCase, claim: Reading, witnesses: Sequence[Witness]) -> bool:
    """Whether the summary, or another column for the same seed, states a right total."""
    others = [c for c in case.submission.claimed("bytes_total") if c.seed == claim.seed and c is not claim]
    return any(find(other, [w for w in witnesses if w.kind != "part"]) is not None for other in others)


def _with_script(case: ForeignCase, models: Sequence[Witness]) -> list[Witness]:
    """Return model plus shipped script, for logs that print no total, where it is plain which script is meant."""
    scripts = [entry for entry in case.submission.scripts if entry.path.endswith(".py") and "/" not in entry.path]
    if len(scripts) != 1 or scripts[0].num_bytes == 0:
        return []
    return [
        replace(model, value=model.value + scripts[0].num_bytes, what=f"{model.what}, model + {scripts[0].path}")
        for model in models
    ]


def code_bytes_hold(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XB2: fails when the claimed code bytes are not those of the shipped files; logged ones only soften it."""
    files = [file for file in file_witnesses(case) if file.value > 0]
    for claim in [*whole_claims(case, "bytes_code"), *seed_claims(case, "bytes_code")]:
        runs = case.submission.runs_of(claim.seed) if claim.seed is not None else case.submission.runs
        logged = [*of_runs(runs, readings_of("bytes_code")), *over_seeds(case.submission, readings_of("bytes_code"))]
        file, log = find(claim, files), find(claim, logged)
        if file is not None or (log is not None and ("compressed" in log.reading.label.split() or not files)):
            yield agree(case, rule, claim, file or log)
        elif not files and not logged:
            yield case.say(rule, "unverifiable", f"{claim.place}: no code is shipped and no log prints its size", claim)
        elif log is not None:
            shipped = nearest(claim, files)
            assert shipped is not None
            is_slight = abs(shipped.value - claim.value) <= rule.relative * claim.value
            message = (
                f"{claim.place} is {show_number(claim)} as logged; "
                f"the shipped code ({shipped.what}) has {shipped.value:,.0f} bytes"
            )
            yield case.say(
                rule, "note" if is_slight else "fail", message, claim, log.reading, shipped.reading, severity="minor"
            )
        else:
            yield verdict_of(case, rule, claim, claim, [*logged, *files], big=None)


def file_witnesses(case: ForeignCase) -> list[Witness]:
    """Return the sizes that "the code" may mean: each shipped script, all Python files, all scripts."""
    scripts = case.submission.scripts
    others = [entry for entry in scripts if not entry.path.endswith(".py")]
    python = [entry for entry in scripts if entry.path.endswith(".py")]
    own = [entry for entry in python if "/" not in entry.path]
    sets = [
        *([entry] for entry in python),
        *([entry] for entry in others),
        own,
        python,
        scripts,
    ]
    found = []
    for files in sets:
        if not files:
            continue
        what = files[0].path if len(files) == 1 else f"{len(files)} files"
        reading = Reading(
            quantity="bytes_code", value=float(sum(entry.num_bytes for entry in files)), origin="measured",
            source="file", path=files[0].path, label="size" if len(files) == 1 else f"size of {what}",
        )  # fmt: skip
        found.append(Witness(value=reading.value, slack=0.0, reading=reading, what=what))
    return found


def model_bytes_are_logged(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XB3: fails when the claimed size of the compressed model is logged nowhere."""
    choose = readings_of("bytes_model", "bytes_total")
    witnesses = [*of_runs(case.submission.runs, choose), *over_seeds(case.submission, choose)]
    for claim in whole_claims(case, "bytes_model"):
        yield judge(case, rule, claim, witnesses)
    for claim in seed_claims(case, "bytes_model"):
        yield from judge_seed(case, rule, claim, choose)


def bytes_add_up(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XB4: fails when the claimed total is not the claimed model plus the claimed code."""
    parts = {
        quantity: [
            c for c in case.submission.claimed(quantity, source="summary") if c.seed is None and c.statistic == "value"
        ]
        for quantity in ("bytes_total", "bytes_model", "bytes_code")
    }
    if not all(len(claims) == 1 for claims in parts.values()):
        return
    total, model, code = (claims[0] for claims in parts.values())
    if any((claim.quantity, None) in case.convicted for claim in (total, model, code)):
        return
    expected = model.value + code.value
    slack = total.last_place + model.last_place + code.last_place
    message = f"{total.place} is {show_number(total)}; {show_number(model)} + {show_number(code)} is {expected:,.0f}"
    yield case.say(rule, outcome(abs(expected - total.value) <= slack), message, model, total)


def cap_is_kept(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XB5: fails when a claimed total, or every total that a claimed run logged, is over the cap."""
    cap = case.submission.byte_cap
    if cap is None:
        return
    claims = [claim for claim in case.submission.claimed("bytes_total") if _is_over(claim, cap)]
    over = [
        run
        for run in distinct_runs(case.submission.runs)
        if (totals := final_totals(run)) and min(r.value for r in totals) > cap
    ]
    logged = {total.value for run in over for total in final_totals(run)}
    for claim in {claim.value: claim for claim in claims if claim.value not in logged}.values():
        yield case.say(rule, "fail", f"{claim.place} is {show_number(claim)}: over the cap of {cap:,} bytes", claim)
    for run in over:
        total = min(final_totals(run), key=lambda reading: reading.value)
        yield case.say(rule, "fail", f"{total.place} says {show_number(total)}: over the cap of {cap:,} bytes", total)
    if not claims and not over and ("bytes_total", None) not in case.convicted:
        yield from _headroom(case, rule, cap)


def _is_over(claim: Reading, cap: int) -> bool:
    """Whether a claim states more than the cap beyond its print; "MB" may be MiB, "<16MB" names the cap itself."""
    is_plain = claim.statistic != "std" and claim.other_value is None and claim.bound != "<"
    return is_plain and claim.value - claim.last_place > cap


def _headroom(case: ForeignCase, rule: Rule, cap: int) -> Iterator[Finding]:
    totals = [reading for run in case.submission.runs for reading in final_totals(run)]
    totals += [
        c for c in case.submission.claimed("bytes_total") if c.statistic in ("value", "max") and c.last_place == 0
    ]
    if not totals:
        yield case.say(rule, "unverifiable", "no total size is claimed or logged")
        return
    largest = max((t for t in totals if t.value <= cap), key=lambda reading: reading.value, default=None)
    if largest is None:
        return
    left = cap - largest.value
    message = f"{largest.place}: {largest.value:,.0f} bytes, {left:,.0f} below the cap"
    yield case.say(rule, "note" if left < rule.limits["near_bytes"] else "pass", message, largest)


def final_totals(run: LoggedRun) -> list[Reading]:
    """Return the totals of a run that count: those with a codec; untagged ones only where they are the last word."""
    totals = run.of("bytes_total")
    tagged = [reading for reading in totals if reading.label != "total"]
    plain = [reading for reading in totals if reading.label == "total"]
    return tagged or plain[1:][-1:]


def log_confesses(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XB6: fails when a claimed run says itself that it broke a rule of the contest."""
    for run in case.submission.runs:
        for statement in run.violations[:3]:
            message = f'{statement.path}:{statement.line} says itself: "{statement.text}"'
            status: FindingStatus = "note" if _fits_after(case, run, statement) else "fail"
            yield case.say(rule, status, message, path=statement.path, line=statement.line)


def _fits_after(case: ForeignCase, run: LoggedRun, statement: Statement) -> bool:
    """Whether the run logged a total within the cap after it had found itself over a size."""
    is_validity = re.match(r"(?i)valid\s*:", statement.text) is not None
    cap = case.submission.byte_cap
    return (
        not is_validity
        and cap is not None
        and any(reading.value <= cap and (reading.line or 0) > statement.line for reading in run.of("bytes_total"))
    )


def params_are_logged(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XP1: fails when no run has the claimed number of parameters."""
    # every seed has the same model: one log is enough
    witnesses = list(of_runs(case.submission.runs, readings_of("params")))
    claims = [*whole_claims(case, "params"), *seed_claims(case, "params")]
    is_one_right = any(claim.source == "summary" and find(claim, witnesses) is not None for claim in claims)
    for claim in claims:
        finding = verdict_of(case, rule, claim, claim, witnesses, big=None)
        # beside the right number another may count what is shared, or unrolled
        yield replace(finding, status="note", severity=None) if finding.status == "fail" and is_one_right else finding
    yield from _unlike_models(case, rule)


def _unlike_models(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """Runs of the claimed seeds whose models have unlike numbers of parameters."""
    claimed = set(case.submission.claimed_seeds)
    families: dict[str, list[Reading]] = defaultdict(list)
    for run in case.submission.runs:
        if run.of("params") and run.seeds & claimed:
            families[re.sub(r"\d+", "#", run.path)].append(run.of("params")[-1])
    for models in families.values():
        odd = next((model for model in models if model.value != models[0].value), None)
        if odd is None:
            continue
        message = (
            f"{odd.place} says {show_number(odd)}, {models[0].place} {show_number(models[0])}: seeds of unlike models"
        )
        yield case.say(rule, "fail", message, models[0], odd)


def compressed_models(run: LoggedRun) -> list[Reading]:
    """Return the sizes of the compressed model; the line without a codec is the raw one."""
    return [reading for reading in run.of("bytes_model") if reading.label != "model"]


def _totals(run: LoggedRun) -> list[Reading]:
    totals = run.of("bytes_total")
    made = []
    for model in compressed_models(run)[-MAX_PARTS:]:
        made += [
            replace(
                model, value=model.value + code.value, quantity="bytes_total", label=f"{model.label} + code", text=""
            )
            for code in run.of("bytes_code")[-MAX_PARTS:]
        ]
    return [*totals, *made]
