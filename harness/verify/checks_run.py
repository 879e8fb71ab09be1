"""Static checks of the run: bytes against parts and caps, steps, budget, times."""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.records.caps import charges
from harness.records.native import ARTIFACT_FILE, RECORD_FILE
from harness.records.safeio import file_bytes
from harness.records.values import Value
from harness.verify.agreement import (
    show,
)
from harness.verify.case import NativeCase
from harness.verify.findings import Finding, FindingStatus
from harness.verify.rules import Rule


def parts_add_up(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """B3: fails when the parts of the artifact do not add up to the size of the file."""
    case.require(ARTIFACT_FILE)
    claim = case.claim("artifact.parts", sum(case.artifact_part.parts.values()))
    fact = Value(origin="measured", value=file_bytes(case.folder, ARTIFACT_FILE), path=ARTIFACT_FILE)
    status: FindingStatus = "pass" if claim.value == fact.value else "fail"
    message = f"the parts add up to {show(claim.value)} bytes, the file has {show(fact.value)}"
    yield rule.finding(case.name, status, message, values=[claim, fact])


def cap_is_respected(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """B4: fails when the file, with its code where the rules count it, has more bytes than its cap."""
    if not charges(case.artifact_part):
        yield rule.finding(case.name, "pass", "no cap was set")
        return
    case.require(ARTIFACT_FILE)
    size_bytes = file_bytes(case.folder, ARTIFACT_FILE)
    for charge in charges(case.artifact_part.model_copy(update={"artifact_bytes": size_bytes})):
        values = [
            case.claim(charge.key, charge.cap_bytes),
            Value(origin="measured", value=charge.charged_bytes, path=ARTIFACT_FILE),
        ]
        message = f"{charge.charged_bytes:,} bytes are charged ({charge.what}), the cap is {charge.cap_bytes:,}"
        yield rule.finding(case.name, "pass" if charge.is_kept else "fail", message, values=values)


def time_adds_up(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """T1: fails when the parts exceed the wall-clock time; notes much time that no part explains."""
    time = case.time
    parts_seconds = math.fsum(
        getattr(time, f"{name}_seconds")
        for name in ("train", "compression", "validation", "compilation", "export", "data")
    )
    wall_seconds, num_ranks = time.wall_seconds, case.record.max_num_ranks
    claim = case.claim("time.wall_seconds", wall_seconds)
    fact = Value(origin="measured", value=parts_seconds, path=RECORD_FILE, line=claim.line, label="sum of parts")
    status: FindingStatus = "pass"
    message = f"the parts take {parts_seconds:,.1f} s of {wall_seconds:,.1f} s"
    if parts_seconds > stretched(wall_seconds, rule):
        status = "fail"
    elif time.device_seconds > stretched(wall_seconds * num_ranks, rule):
        status = "fail"
        message = f"{time.device_seconds:,.1f} device seconds do not fit into {num_ranks} x {wall_seconds:,.1f} s"
    elif wall_seconds - parts_seconds > max(
        rule.limits["unexplained_seconds"], rule.limits["unexplained_fraction"] * wall_seconds
    ):
        status = "note"
    yield rule.finding(case.name, status, message, values=[claim, fact])


def stretched(seconds: float, rule: Rule) -> float:
    """Return the most seconds that still count as these."""
    return seconds * (1 + rule.relative) + rule.absolute


def machine_was_free(case: NativeCase, rule: Rule) -> Iterator[Finding]:
    """T3: notes a record whose times were taken on a machine that did other work."""
    is_contended = case.record.contended
    message = "the machine did other work: seconds of this record are upper bounds" if is_contended else "no contention"
    line = case.lines.get("contended")
    yield rule.finding(case.name, "note" if is_contended else "pass", message, path=RECORD_FILE, line=line)
