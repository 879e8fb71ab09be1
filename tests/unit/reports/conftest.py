"""One report of everything, made once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from report_factory import make_evidence, only_given_claims, write_claims

from reports.command import write_report


@dataclass(frozen=True)
class Site:
    """A report and what it was made from."""

    root: Path
    paths: list[Path]
    claims: Path
    out: Path

    @property
    def html(self) -> str:
        return (self.out / "index.html").read_text(encoding="utf-8")

    @property
    def markdown(self) -> str:
        return (self.out / "report.md").read_text(encoding="utf-8")

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "report.json").read_text())
        return found


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A report on records, a comparison, sweeps, a foreign folder and claims, with strangers' texts in all of them."""
    root = tmp_path_factory.mktemp("evidence")
    paths = make_evidence(root)
    claims = write_claims(root / "paper.toml", is_hostile=True)
    with pytest.MonkeyPatch.context() as monkeypatch:
        only_given_claims(monkeypatch)
        write_report(paths, root / "site", claim_files=[claims])
    yield Site(root, paths, claims, root / "site")
