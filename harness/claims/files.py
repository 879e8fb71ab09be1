"""Where claim files lie: beside methods, or anywhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from harness.claims.schema import Claim, LoadedClaims, read_claims
from harness.errors import UsageError, suggest
from harness.registry import CLAIMS_FILE, claim_packages


def find_claims() -> Iterator[LoadedClaims]:
    """Yield the claim files of plugins.

    Raises:
        HarnessError: one is no claim file.
    """
    for _, package in sorted(claim_packages().items()):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            if (path := Path(folder) / CLAIMS_FILE).is_file():
                yield read_claims(path)


def find_claim(text: str) -> tuple[LoadedClaims, Claim]:
    """Return a claim by its name, such as mpo.C5, or as FILE#ID.

    Raises:
        UsageError: there is none, or the file is no claim file.
    """
    path, mark, claim_id = text.rpartition("#")
    files = [read_claims(Path(path))] if mark else list(find_claims())
    found = [(loaded, claim) for loaded in files for claim in loaded.content.claims]
    known = {claim.id if mark else loaded.name_of(claim): (loaded, claim) for loaded, claim in found}
    if (name := claim_id if mark else text) not in known:
        raise UsageError(f"no claim '{text}'. {suggest(name, known)}")
    return known[name]
