"""`harness claims`: read claim files, judge them by the evidence at hand, and write a new one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from harness.claims.evidence import Evidence
from harness.claims.files import find_claim, find_claims
from harness.claims.reproduction import Runs
from harness.claims.schema import ClaimFile, LoadedClaims, read_claims
from harness.claims.verdict import Judgement, judge
from harness.errors import UsageError
from harness.files import write_atomic

DEFAULT_RUNS = (Path("records"), Path("comparisons"))
Judged = list[tuple[LoadedClaims, list[Judgement]]]

TEMPLATE = """\
#:schema claims.schema.json
# A claim file: `harness claims check THIS --evidence DIR` judges it. `harness claims language` lists the functions that
# fetch evidence, `harness claims schema --out claims.schema.json` writes the schema that editors complete from.
schema = 1

[source]
id = "example"
title = "What was published"
url = "https://example.org/post"
date = "2026-01-01"

# Numbers as they were printed: the last digit says how exact they are.
[facts.params_before]
value = "17.6B"
where = "second sentence"

[facts.params_after]
value = "417M"
where = "second sentence"

[facts.factor]
value = "42x"
where = "headline"

[margins.some]
value = "1%"
reason = "what would not change anybody's mind"

[[claims]]
id = "X1"
statement = "the model shrinks 42 times"

[[claims.predicates]]
says = "the two sizes give the factor of the headline"
holds_if = "params_before / params_after == factor"
"""


def judge_plugins(run_folders: Sequence[Path]) -> Judged:
    """Judge the claims of all plugins by the runs under some folders.

    Raises:
        HarnessError: a claim file is wrong.
    """
    evidence = Evidence(Runs(_present(run_folders)), None)
    return [(loaded, judge(loaded, evidence)) for loaded in find_claims()]


def judge_file(path: Path, evidence_folder: Path | None, run_folders: Sequence[Path]) -> Judged:
    """Judge the claims of one file.

    Args:
        path: of the file.
        evidence_folder: record folders of others; runs of ours in it count, too.
        run_folders: of our own runs.

    Raises:
        HarnessError: the file is wrong, or a folder is not there.
    """
    if evidence_folder is not None and not evidence_folder.is_dir():
        raise UsageError(f"--evidence {evidence_folder}: no such folder")
    loaded = read_claims(path)
    folders = [*_present(run_folders), *([evidence_folder] if evidence_folder else [])]
    return [(loaded, judge(loaded, Evidence(Runs(folders), evidence_folder)))]


def judge_claim(name: str, run_folders: Sequence[Path]) -> tuple[LoadedClaims, Judgement]:
    """Judge one claim, such as mpo.C5 or FILE#ID, beside the others of its file.

    Raises:
        UsageError: there is none of that name.
    """
    loaded, claim = find_claim(name)
    judgements = judge(loaded, Evidence(Runs(_present(run_folders)), None))
    return loaded, next(each for each in judgements if each.claim is claim)


def write_template(path: Path) -> None:
    """Write a claim file to fill in.

    Raises:
        UsageError: the file is there, or its folder is not.
    """
    if path.exists():
        raise UsageError(f"{path} is there already; choose another name")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; make it first")
    write_atomic(path, TEMPLATE.encode())


def schema_text() -> str:
    """Return the JSON Schema of claim files."""
    schema = ClaimFile.model_json_schema()
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"


def _present(folders: Sequence[Path]) -> list[Path]:
    """Return the folders that are there; those that were asked for have to be.

    Raises:
        UsageError: one that was asked for is not there.
    """
    if missing := [folder for folder in folders if folder not in DEFAULT_RUNS and not folder.is_dir()]:
        raise UsageError(f"--records {missing[0]}: no such folder")
    return [folder for folder in folders if folder.is_dir()]
