"""A report as SARIF 2.1.0, for GitHub code scanning and editors: an alert for whatever did not pass."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from harness import __version__
from harness.records.safeio import JSON
from harness.verify.findings import Finding, InternalError, Report, RuleText, Severity
from harness.verify.render import describe, ordinals, safe

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVEL: Mapping[Severity, str] = {"major": "error", "minor": "warning"}


def to_sarif(report: Report, command: str) -> str:
    """Return the SARIF log of a report as text.

    Args:
        report: the report.
        command: the command line that made it.
    """
    rules: list[JSON] = [_rule(rule_id, rule) for rule_id, rule in report.rules.items()]
    run: dict[str, JSON] = {
        "tool": {"driver": {"name": "claims-harness", "version": __version__, "rules": rules}},
        "invocations": [_invocation(report, command)],
        "results": list(_results(report)),
        "properties": _properties(report),
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, allow_nan=False)


def _rule(rule_id: str, rule: RuleText) -> JSON:
    return {
        "id": rule_id,
        "shortDescription": _message(rule.title),
        "fullDescription": _message(rule.text),
        "help": _message(rule.fix),
        "defaultConfiguration": {"level": _LEVEL[rule.severity]},
        "properties": {"tags": [rule.family]},
    }


def _message(text: str) -> dict[str, JSON]:
    """Make a message in which a stranger's brackets are no link and braces no placeholder (SARIF 3.11.5, 3.11.6)."""
    plain = safe(text)
    for mark, escaped in {"[": "\\[", "]": "\\]", "{": "{{", "}": "}}"}.items():
        plain = plain.replace(mark, escaped)
    return {"text": plain}


def _invocation(report: Report, command: str) -> JSON:
    return {
        "executionSuccessful": not report.internal_errors,
        "exitCode": report.exit_code,
        "commandLine": safe(command),
        "toolExecutionNotifications": [_notification(error) for error in report.internal_errors],
    }


def _notification(error: InternalError) -> JSON:
    return {
        "level": "error",
        "message": _message(error.message),
        "associatedRule": {"id": error.rule},
        "locations": [_location(error.record)],
    }


def _properties(report: Report) -> JSON:
    return {
        "verificationLevel": report.level,
        "strict": report.is_strict,
        "rulesVersion": report.rules_version,
        "ruleChanges": [safe(change) for change in report.rule_changes],
        "summary": {**report.summary()},
    }


def _results(report: Report) -> Iterator[JSON]:
    indices = {rule_id: index for index, rule_id in enumerate(report.rules)}
    keys = [f"{finding.rule} {_uri(finding.record, finding.path)}" for finding in report.findings]
    for finding, key, number in zip(report.findings, keys, ordinals(keys), strict=True):
        if finding.status == "pass":
            continue
        yield {
            "ruleId": finding.rule,
            "ruleIndex": indices[finding.rule],
            "level": _level(finding, report),
            "message": _message(f"{finding.status}: {' | '.join(describe(finding))}"),
            "locations": [_location(finding.record, finding.path, finding.line)],
            "partialFingerprints": {"primaryLocationLineHash": _fingerprint(key, number)},
            "properties": _evidence(finding),
        }


def _level(finding: Finding, report: Report) -> str:
    # SARIF calls what cannot be decided kind "open", and then demands level "none" (3.27.10). GitHub ignores the kind
    # and documents no alert of level "none", so that missing evidence could go unseen: it is a note, and the result's
    # properties have the exact status. With --strict it weighs as much as a failure of its rule.
    if report.verdict([finding]) != "fail":
        return "note"
    return _LEVEL[finding.severity or report.rules[finding.rule].severity]


def _location(record: str, path: str | None = None, line: int | None = None) -> JSON:
    # GitHub shows no alert without a file and asks for a line: a whole file, or folder, is its line 1.
    return {"physicalLocation": {"artifactLocation": {"uri": _uri(record, path)}, "region": {"startLine": line or 1}}}


def _uri(record: str, path: str | None) -> str:
    """Return the place of a file, or of a folder, relative to the current folder where it lies below that."""
    folder = Path(record)
    with suppress(ValueError):  # relative as it stands, or elsewhere
        folder = folder.relative_to(Path.cwd())
    place = folder / (path or "").lstrip("/")
    uri = quote(place.as_posix(), errors="replace")
    return f"file://{uri}" if place.is_absolute() else uri


def _fingerprint(key: str, number: int) -> str:
    """Identify a finding across runs: not by line and message, which change with every edit of the record.

    It goes under the only name that GitHub reads.
    """
    return f"{hashlib.sha256(key.encode()).hexdigest()[:16]}:{number}"


def _evidence(finding: Finding) -> JSON:
    shown = finding.to_json()
    names = ("record", "status", "claimed", "logged", "measured")
    return {name: safe(value) if isinstance(value := shown[name], str) else value for name in names}
