"""Rules as data: what each is called, how grave it is, how near is near enough; a user's file may overlay."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import UsageError, suggest
from harness.records.values import Value
from harness.verify.findings import Family, Finding, FindingStatus, Level, Severity

RULES_FILE = "rules.toml"
_OVERLAY_FIELDS = ("severity", "absolute", "relative", "limits", "waive", "title", "text", "fix")


class Rule(BaseModel):
    """One rule.

    Attributes:
        id: short and stable, named in every output.
        title: a few words.
        family: what it is about.
        level: the verification level that checks it.
        severity: how grave a failure is.
        is_severity_fixed: whether a user's file set the severity, so that a check does not weigh a single failure.
        text: what must hold, in a sentence.
        fix: what the author of a failing record can do.
        absolute: tolerated difference, in the unit of the quantity.
        relative: tolerated difference as a fraction of the larger value.
        limits: other numbers that the check uses, by name.
        quantities: quantities whose values must agree, for rules that compare.
        waive: reason why failures count as notes; only a user's file sets it.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    id: str
    title: str
    family: Family
    level: Level
    severity: Severity
    is_severity_fixed: bool = False
    text: str
    fix: str
    absolute: float = Field(default=0.0, ge=0)
    relative: float = Field(default=0.0, ge=0)
    limits: dict[str, float] = {}
    quantities: list[str] = []
    waive: str | None = None

    def finding(
        self,
        record: str,
        status: FindingStatus,
        message: str,
        *,
        values: Sequence[Value] = (),
        path: str | None = None,
        line: int | None = None,
    ) -> Finding:
        """Make a finding of this rule.

        Args:
            record: path of the record folder as found.
            status: what the rule says; a waived failure becomes a note.
            message: what was found.
            values: evidence; the last value of each origin is shown, the last of all gives path and line.
            path: file of the evidence where no value has it.
            line: line of the evidence.
        """
        if status == "fail" and self.waive is not None:
            status, message = "note", f"{message} (waived: {self.waive})"
        shown = {value.origin: value.value for value in values}
        return Finding(
            record=record,
            rule=self.id,
            family=self.family,
            status=status,
            severity=self.severity if status == "fail" else None,
            claimed=shown.get("claimed"),
            logged=shown.get("logged"),
            measured=shown.get("measured"),
            path=path if path is not None or not values else values[-1].path,
            line=line if path is not None or not values else values[-1].line,
            message=message,
            fix="" if status == "pass" else self.fix,
        )

    def gap(self, record: str, reason: str, *, values: Sequence[Value] = (), path: str | None = None) -> Finding:
        """Make an unverifiable finding: the evidence is missing or failed another rule, which has the fix."""
        return replace(self.finding(record, "unverifiable", reason, values=values, path=path), fix="")


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleBook:
    """All rules, in the order in which they are checked.

    Attributes:
        version: of the shipped rules, with a mark of the overlay where there is one.
        headline_rules: ids of the rules that compare the headline number, of native and of foreign records.
        rules: by id.
        changes: what the overlay changed, one line each, to be printed.
    """

    version: str
    headline_rules: Sequence[str]
    rules: Mapping[str, Rule]
    changes: Sequence[str] = ()

    def of_level(self, level: Level) -> list[Rule]:
        """Return the rules that belong to one level itself."""
        return [rule for rule in self.rules.values() if rule.level == level]


def load_rules(overlay: Path | None = None) -> RuleBook:
    """Load the shipped rules and lay a user's file over them, by id.

    Args:
        overlay: a TOML file with tables `[rules.ID]` that hold the fields to change.

    Raises:
        UsageError: the overlay is unreadable, names an unknown rule or a field that cannot be changed.
    """
    text = resources.files(__package__).joinpath(RULES_FILE).read_text(encoding="utf-8")
    shipped = tomllib.loads(text)
    book = RuleBook(
        version=shipped["version"],
        headline_rules=tuple(shipped["headline_rules"]),
        rules={key: Rule(id=key, **fields) for key, fields in shipped["rules"].items()},
    )
    return book if overlay is None else _lay_over(book, overlay)


def _lay_over(book: RuleBook, overlay: Path) -> RuleBook:
    try:
        raw = overlay.read_bytes()
        tables = tomllib.loads(raw.decode("utf-8")).get("rules", {})
    except OSError as error:
        raise UsageError(f"--rules {overlay}: cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--rules {overlay}: cannot be read as TOML: {error}") from error
    if not isinstance(tables, dict) or not all(isinstance(fields, dict) for fields in tables.values()):
        raise UsageError(f"--rules {overlay}: expected tables like [rules.{book.headline_rules[0]}]")
    rules, changes = dict(book.rules), []
    for key, fields in tables.items():
        if key not in rules:
            raise UsageError(f"--rules {overlay}: no rule '{key}'. {suggest(key, rules)}")
        rules[key], lines = _change(rules[key], fields, overlay)
        changes += lines
    mark = hashlib.sha256(raw).hexdigest()[:8]
    return RuleBook(version=f"{book.version}+{mark}", headline_rules=book.headline_rules, rules=rules, changes=changes)


def _change(rule: Rule, fields: Mapping[str, Any], overlay: Path) -> tuple[Rule, list[str]]:
    where = f"--rules {overlay}: rule {rule.id}"
    if odd := sorted(set(fields) - set(_OVERLAY_FIELDS)):
        raise UsageError(f"{where}: '{odd[0]}' cannot be changed. {suggest(odd[0], _OVERLAY_FIELDS)}")
    old = rule.model_dump()
    new = {**old, **fields, "is_severity_fixed": "severity" in fields}
    if isinstance(limits := fields.get("limits"), dict):
        if unknown := sorted(set(limits) - set(rule.limits)):
            raise UsageError(f"{where}: no limit '{unknown[0]}'. {suggest(unknown[0], rule.limits)}")
        new["limits"] = {**rule.limits, **limits}
    try:
        changed = Rule.model_validate(new)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    lines = [
        f"{rule.id} {name}: {old[name]!r} -> {getattr(changed, name)!r}"
        for name in fields
        if getattr(changed, name) != old[name]
    ]
    return changed, lines
