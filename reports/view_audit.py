"""What the files say against themselves, what was not verified and why, on what machines, from which files."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.document import ENVIRONMENT_KEYS
from reports.ledger import NONE_TEXT, Cell, Ledger, Sheet, columns, resolve, words
from reports.places import slug_of

Fields = Mapping[str, Any]
_STATUSES = ("fail", "unverifiable", "note", "pass")
_ORIGINS = ("claimed", "logged", "measured")
_SUMMARY = (
    ("records and folders", "records"),
    ("of them pass", "records_pass"),
    ("fail", "records_fail"),
    ("lack evidence", "records_unverifiable"),
    ("findings: pass", "pass"),
    ("fail, major", "fail_major"),
    ("fail, minor", "fail_minor"),
    ("unverifiable", "unverifiable"),
    ("note", "note"),
)
_LEVEL_GAPS = {
    "static": "Artifacts were not decoded, not scored again and not trained again for this page",
    "decode": "Artifacts were decoded but not scored again and not trained again for this page",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Something that was not verified.

    Attributes:
        what: the claim, the record or the kind of check.
        why: in a sentence.
        command: would settle it; empty for none.
        cost: what that takes; empty where unknown.
        href: where it stands on the page.
    """

    what: str
    why: str
    command: str = ""
    cost: str = ""
    href: str = ""


def audit_summary(ledger: Ledger) -> list[tuple[str, Cell]]:
    """Return the counts of records and findings."""
    summary = ledger.document["audit"]["summary"]
    shown = [(text, key) for text, key in _SUMMARY if key in summary]
    return [(text, ledger.computed(f"audit.summary.{key}", "count")) for text, key in shown]


def audited_sheet(ledger: Ledger, *, native: bool) -> Sheet:
    """Return the headline of every record as claimed, logged and measured.

    Args:
        ledger: of the document.
        native: the records of this program, or those of others.
    """
    anchors = {entry["folder"]: entry["slug"] for entry in ledger.document["records"] if not entry["is_trial"]}
    rows = []
    for at, row in enumerate(ledger.document["audit"]["records"]):
        if (row["kind"] == "native") != native:
            continue
        path, partial = f"audit.records.{at}", " PARTIAL" if row["is_partial"] else ""
        numbers = [_origin(ledger, f"{path}.val_bpb.{origin}") for origin in _ORIGINS]
        counts = [ledger.computed(f"{path}.counts.{status}", "count") for status in _STATUSES]
        href = f"#{anchors[row['record']]}" if row["record"] in anchors else ""
        if not href and any(row["counts"][status] for status in ("fail", "unverifiable", "note")):
            href = f"#{audit_anchor(row['record'])}"
        rows.append(
            [
                words(row["record"], href=href),
                words(row["verdict"] + partial, style=row["verdict"]),
                *numbers,
                *counts,
            ]
        )
    names = ("record", "verdict", *_ORIGINS, *_STATUSES)
    title = "Records of this program" if native else "Folders of others"
    return Sheet(
        title=f"{title}: headline val_bpb and findings", columns=columns(*names, numbers="|".join(names[2:])), rows=rows
    )


def audit_anchor(record: str) -> str:
    """Return the id of the findings of a folder."""
    return f"audit-{slug_of(record)}"


def _origin(ledger: Ledger, path: str) -> Cell:
    value = resolve(ledger.document, f"report.json#{path}")
    if isinstance(value, float):
        return ledger.computed(path, "bpb")
    return ledger.computed(path, "plain") if value is not None else words("")


def findings_by_record(ledger: Ledger) -> list[tuple[str, str, Sheet]]:
    """Return record, anchor and table of findings of each record that has some that did not pass."""
    titles = {rule["id"]: rule["title"] for rule in ledger.document["audit"]["rules"]}
    rows: dict[str, list[list[Cell]]] = {}
    found = enumerate(ledger.document["audit"]["findings"])
    for at, each in sorted(found, key=lambda pair: _STATUSES.index(pair[1]["status"])):
        path = f"audit.findings.{at}"
        place = f"{each['path'] or NONE_TEXT}{':' + str(each['line']) if each['line'] else ''}"
        status = each["status"] + (f", {each['severity']}" if each["severity"] else "")
        numbers = [_origin(ledger, f"{path}.{origin}") for origin in _ORIGINS]
        said = each["message"] + (f" Fix: {each['fix']}" if each["fix"] else "")
        rows.setdefault(each["record"], []).append(
            [
                words(status, style=each["status"]),
                words(f"{each['rule']} {titles.get(each['rule'], '')}"),
                *numbers,
                words(place, style="code"),
                words(said),
            ]
        )
    names = ("status", "rule", *_ORIGINS, "evidence", "finding")
    return [
        (
            record,
            audit_anchor(record),
            Sheet(title=record, columns=columns(*names, numbers="|".join(_ORIGINS)), rows=own),
        )
        for record, own in rows.items()
    ]


def gaps(ledger: Ledger) -> Iterator[Gap]:
    """Yield what was not verified: by level, records, claims."""
    document = ledger.document
    paths = " ".join(shlex.quote(path) for path in document["paths"])
    if level := document["audit"]["level"]:
        yield Gap(
            what=f"level {level} only",
            why=_LEVEL_GAPS[level],
            command=f"harness verify {paths} --level evaluate",
            cost="minutes; needs torch and the corpora",
        )
    for each in document["unreadable"]:
        yield Gap(
            what=each["folder"],
            why=f"the record cannot be read: {each['why']}",
            command=f"harness verify {shlex.quote(each['folder'])}",
        )
    for entry in document["records"]:
        record = document["files"][entry["file"]]
        if record["status"] != "complete":
            yield Gap(
                what=entry["folder"],
                why=f"the run is {record['status']}: no score to show",
                command=f"harness run --resume {shlex.quote(entry['folder'])}",
            )
    for claim in document["claims"]:
        if claim["verdict"] == "undecided":
            yield Gap(
                what=claim["name"],
                why=claim["why"].removesuffix(f"; {claim['decide']}"),
                command=claim["decide"],
                cost=claim["cost"],
                href=f"#claim-{claim['name']}",
            )
    for claim in document["claims"]:
        if claim["verdict"] == "unverifiable":
            yield Gap(what=claim["name"], why=f"not published: {claim['unpublished']}", href=f"#claim-{claim['name']}")
    counts = Counter(each["record"] for each in document["audit"]["findings"] if each["status"] == "unverifiable")
    for record, number in counts.items():
        yield Gap(
            what=record,
            why=f"{number} of its statements cannot be checked: the evidence was not shipped",
            href=f"#{audit_anchor(record)}",
        )


def environments_sheet(ledger: Ledger) -> Sheet:
    """Return every machine and set of versions, with the number of records made there."""
    rows = [
        [*(words(value) for value in each["values"]), ledger.computed(f"environments.{at}.records", "count")]
        for at, each in enumerate(ledger.document["environments"])
    ]
    names = [key.removeprefix("num_") for key in ENVIRONMENT_KEYS]
    return Sheet(title="Environments", columns=columns(*names, "records", numbers="records"), rows=rows)


def inputs_sheet(ledger: Ledger) -> Sheet:
    """Return every file that the report was made from, with size and hash."""
    rows = [
        [words(each["file"]), ledger.computed(f"inputs.{at}.bytes", "count"), words(each["sha256"], style="code")]
        for at, each in enumerate(ledger.document["inputs"])
    ]
    return Sheet(title="Files and hashes", columns=columns("file", "bytes", "sha256", numbers="bytes"), rows=rows)


def repeat_commands(ledger: Ledger) -> Sequence[tuple[str, str]]:
    """Return what is repeated by which command."""
    paths = " ".join(shlex.quote(path) for path in ledger.document["paths"])
    first = ledger.document["claims"][0]["name"] if ledger.document["claims"] else "NAME"
    return [
        ("this page, the same bytes", f"harness report {paths} --out site/"),
        ("every verdict", "harness claims"),
        ("one verdict with its evidence", f"harness claims show {first}"),
        ("what is open, and what it would cost", "harness claims cost"),
        ("files, hashes, arithmetic, logs of each record", f"harness verify {paths}"),
        ("sizes and parameters from the stored files", f"harness verify {paths} --level decode"),
        ("scores from the stored files", f"harness verify {paths} --level evaluate"),
        ("training", f"harness verify {paths} --level retrain"),
    ]
