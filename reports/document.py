"""`report.json`: every number of the report, and the content of the files that they come from.

The page and the Markdown are made from this document alone. A number's source is `FILE#FIELD`: a field of a file under
`files`, or with the file `report.json` one of this document, for what was computed from several files.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from harness import __version__
from harness.claims.schema import LoadedClaims
from harness.claims.verdict import Judgement
from harness.claims.views import VERDICTS, judgement_data, published_numbers
from harness.grid import GRID_FILE
from harness.records.native import RECORD_FILE
from harness.responses import RESPONSES_FOLDER, Response, hash_record
from reports.gather import Material
from reports.groups import comparison_groups, record_groups
from reports.places import Places, Slugs

REPORT_SCHEMA_VERSION = 1
REPORT_FILE = "report.json"
PROGRAM = "claims-harness"
# Digits of computed numbers that are kept: beyond them, processors differ.
NUM_DIGITS = 10
ENVIRONMENT_KEYS = ("harness", "torch", "numpy", "python", "platform", "cpu", "device", "num_threads")
Fields = dict[str, Any]


def build_document(material: Material) -> Fields:
    """Put everything that was gathered into one JSON document.

    Args:
        material: as gathered; logs are read here, for the curves.
    """
    places = Places(material.paths)
    files = {places.label(each.folder / RECORD_FILE): each.record.to_json() for each in material.records}
    files |= {
        places.label(each.folder / GRID_FILE): each.grid.model_dump(mode="json", by_alias=True)
        for each in material.grids
    }
    claim_files: dict[Path, str] = {}
    for loaded, _ in material.judged:
        label = _free_label(_claims_label(loaded, places), files)
        claim_files[loaded.path] = label
        files[label] = loaded.content.model_dump(mode="json", by_alias=True)
    claims = list(_claims(material, claim_files))
    computed: Fields = {
        "sources": list(_sources(material, claim_files)),
        "claims": claims,
        "counts": _counts(material, claims),
        "groups": [*comparison_groups(material, places), *record_groups(material, places)],
        "ladders": [
            {"folder": places.label(folder), "trends": data["trends"]} for folder, data in material.ladders.items()
        ],
        "sweeps": list(_sweeps(material, places)),
        "audit": _audit(material, places),
        "responses": [_response(each, material, claims, places) for each in material.responses],
    }
    return {
        "schema": REPORT_SCHEMA_VERSION,
        "program": f"{PROGRAM} {__version__}",
        "paths": [places.label(path) for path in material.paths],
        **places.relabel(rounded(computed)),
        "records": list(_records(material, places)),
        "unreadable": places.relabel(
            [{"folder": places.label(key), "why": why} for key, why in material.unreadable.items()]
        ),
        "environments": list(_environments(material)),
        "inputs": list(_inputs(material, claim_files, places)),
        "files": files,
    }


def rounded(value: Any) -> Any:
    """Return JSON values with every float cut to the digits that do not depend on the processor."""
    if isinstance(value, float):
        return float(f"{value:.{NUM_DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(child) for key, child in value.items()}
    return [rounded(child) for child in value] if isinstance(value, list | tuple) else value


def _free_label(label: str, taken: Container[str]) -> str:
    """Number a label that another file has: files outside the roots are known by their last names."""
    numbers = (label if number == 1 else f"{label}-{number}" for number in count(1))
    return next(each for each in numbers if each not in taken)


def _claims_label(loaded: LoadedClaims, places: Places) -> str:
    """The claim file of a plugin is named by its package, since it may lie among installed ones."""
    parts = loaded.path.parts
    for parent in ("methods", "baselines"):
        if parent in parts[:-2] and parts[-3] == parent:
            return "/".join(parts[-3:])
    return places.label(loaded.path)


def _claims(material: Material, labels: Mapping[Path, str]) -> Iterator[Fields]:
    for loaded, judgements in material.judged:
        for index, each in enumerate(judgements):
            kinds = dict.fromkeys(answer.predicate.kind for answer in each.answers)
            names = [name for name, *_ in published_numbers(loaded, each)]
            yield {
                **judgement_data(loaded, each),
                "file": labels[loaded.path],
                "index": index,
                "kinds": list(kinds) or ["nothing to check"],
                "facts": [name for name in names if name in loaded.content.facts],
                "margins": [name for name in names if name in loaded.content.margins],
                "unpublished": each.claim.unpublished,
                "stated_reading": each.claim.stated_reading,
            }


def _sources(material: Material, labels: Mapping[Path, str]) -> Iterator[Fields]:
    for loaded, judgements in material.judged:
        yield {
            **loaded.content.source.model_dump(),
            "file": labels[loaded.path],
            "num_claims": len(judgements),
            "verdicts": _count_verdicts(judgements),
        }


def _count_verdicts(judgements: Sequence[Judgement]) -> dict[str, int]:
    found = Counter(each.verdict for each in judgements)
    return {verdict: found[verdict] for verdict in VERDICTS}  # type: ignore[index]


def _counts(material: Material, claims: Sequence[Fields]) -> Fields:
    verdicts = Counter(claim["verdict"] for claim in claims)
    return {
        "claims": len(claims),
        "sources": len(material.judged),
        "verdicts": {verdict: verdicts[verdict] for verdict in VERDICTS},
        "reduced": sum(bool(claim["reduced"]) for claim in claims),
        "sealed": sum(claim["standing"] == "sealed" for claim in claims),
        "exploratory": sum(claim["standing"] == "exploratory" for claim in claims),
        "records": len(material.records),
        "trials": len(material.trials),
        "foreign": sum(row.kind != "native" for row in material.findings.rows) if material.findings else 0,
        "comparisons": len(material.grids),
        "runs_seconds": sum(found.record.budget.spent.seconds for found in material.records),
    }


def _sweeps(material: Material, places: Places) -> Iterator[Fields]:
    for path, sweep in material.sweeps.items():
        yield {
            "file": places.label(path),
            "name": sweep.name,
            "seed": sweep.seed,
            "eval_mode": sweep.eval_mode.model_dump(),
            "split_sha256": sweep.split_sha256,
            "points": [{"artifact_bytes": size, "val_bpb": bpb} for size, bpb in sweep.points],
        }


def _audit(material: Material, places: Places) -> Fields:
    """The findings, without those that passed, which are counted."""
    if material.findings is None:
        return {
            "level": "",
            "rules_version": "",
            "rule_changes": [],
            "summary": {},
            "records": [],
            "findings": [],
            "rules": [],
        }
    found: Fields = dict(material.findings.document("harness report", with_passes=False))
    for each in (*found["records"], *found["findings"]):
        each["record"] = places.label(Path(each["record"]))
    listed = found["findings"]
    used = sorted({finding["rule"] for finding in listed})
    kept = ("level", "rules_version", "rule_changes", "summary", "records")
    rules = [
        {"id": rule, "title": text.title, "text": text.text}
        for rule, text in material.findings.rules.items()
        if rule in used
    ]
    return {**{key: found[key] for key in kept}, "findings": listed, "rules": rules}


def _records(material: Material, places: Places) -> Iterator[Fields]:
    verdicts = {}
    if material.findings is not None:
        report = material.findings
        verdicts = {row.record: report.verdict(report.of_record(row.record)) for row in report.rows}
    slugs = Slugs()
    for found in material.records:
        label = places.label(found.folder)
        yield {
            "folder": label,
            "file": f"{label}/{RECORD_FILE}",
            "slug": slugs.free("record", label),
            "is_trial": found.folder in material.trials,
            "verdict": verdicts.get(str(found.folder), "not verified"),
        }


def _response(each: Response, material: Material, claims: Sequence[Fields], places: Places) -> Fields:
    part = each.part
    if part.kind == "claim":
        now = {claim["name"]: claim["claim_sha256"] for claim in claims if claim["name"] == part.subject}
    else:
        now = {places.label(folder): hash_record(folder) for folder in _replied_to(each, material)}
    # of several of one name, those as they stood
    meant = [name for name, sha256 in now.items() if sha256 == part.subject_sha256]
    return {
        **part.model_dump(by_alias=True),
        "folder": places.label(each.folder),
        "text": each.text,
        "problem": each.problem,
        "is_current": bool(meant),
        "subjects": meant or list(now),
    }


def _replied_to(each: Response, material: Material) -> list[Path]:
    """The folders of the name that a reply is to: the one that it lies beside, if that is there."""
    folders = [found.folder for found in material.records]
    if material.findings is not None:
        folders += [Path(row.record) for row in material.findings.rows if row.kind != "native"]
    named = [folder for folder in folders if folder.resolve().name == each.part.subject]
    place = each.folder.resolve().parent
    beside = [folder for folder in named if folder.resolve().parent / RESPONSES_FOLDER / each.part.subject == place]
    return beside or named


def _environments(material: Material) -> Iterator[Fields]:
    environments = [found.record.environment for found in material.records]
    found = Counter(tuple(getattr(each, key) for key in ENVIRONMENT_KEYS) for each in environments)
    yield from ({"values": list(values), "records": number} for values, number in found.items())


def _inputs(material: Material, labels: Mapping[Path, str], places: Places) -> Iterator[Fields]:
    paths = dict(labels)
    paths |= {each.folder / GRID_FILE: places.label(each.folder / GRID_FILE) for each in material.grids}
    paths |= {path: places.label(path) for path in material.sweeps}
    paths |= {found.folder / RECORD_FILE: places.label(found.folder / RECORD_FILE) for found in material.records}
    for path, label in paths.items():
        raw = path.read_bytes()
        yield {"file": label, "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
