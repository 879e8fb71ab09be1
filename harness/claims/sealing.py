"""Sealing: a run says in its record what it was made to decide, before anything is trained.

The hash covers what the verdict hangs on: the predicates, and the published numbers and margins that they name. Words
may be mended later; a margin, a number or an expression may not, or the run is exploratory.

A claim may be extended: predicates appended at the end leave what was asked before as it was, so that a run that was
sealed for the first k predicates stays sealed for these k, and is no sealed evidence for the ones that came after it.
"""

from __future__ import annotations

import hashlib
import json

from harness.claims.expressions import names_in
from harness.claims.schema import Claim, LoadedClaims
from harness.records.schema import SealPart


def make_seal(loaded: LoadedClaims, claim: Claim, *, stopping: str) -> SealPart:
    """Return the seal of a run for a claim as it stands now.

    Args:
        loaded: the claim's file.
        claim: of the file.
        stopping: budget of the run.
    """
    others = [loaded.claim(each) for each in claim.plan.also] if claim.plan else []
    names = set[str]().union(*(_names(each) for each in (claim, *others)))
    return SealPart(
        claim=loaded.name_of(claim),
        sha256=hash_claim(loaded, claim),
        margins={name: margin.value for name, margin in loaded.content.margins.items() if name in names},
        num_seeds=claim.plan.seeds if claim.plan else 1,
        stopping=stopping,
        also={loaded.name_of(each): hash_claim(loaded, each) for each in others},
    )


def hash_claim(loaded: LoadedClaims, claim: Claim) -> str:
    """Return the sha256 of what a claim's verdict hangs on, in hex."""
    names, content = _names(claim), loaded.content
    printed = {name: fact.value for name, fact in content.facts.items()}
    printed |= {name: margin.value for name, margin in content.margins.items()}
    value = {
        "claim": loaded.name_of(claim),
        "scale": claim.scale,
        "stated_reading": claim.stated_reading,
        "predicates": [[each.holds_if, each.reading, each.is_reduced] for each in claim.predicates],
        "numbers": {name: value for name, value in printed.items() if name in names},
    }
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def hashes_by_length(loaded: LoadedClaims, claim: Claim) -> list[str]:
    """Return the hash of a claim cut to its first predicate, to its first two, ..., and whole.

    A run is sealed for predicate i, counted from 0, where its seal is one of the hashes from i on.
    """
    cuts = (claim.predicates[:length] for length in range(1, len(claim.predicates) + 1))
    # cut without its checks: readings may be named that only later predicates have
    return [hash_claim(loaded, claim.model_copy(update={"predicates": cut})) for cut in cuts]


def _names(claim: Claim) -> set[str]:
    return set[str]().union(*(names_in(predicate.tree) for predicate in claim.predicates))
