"""README says what the published report says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reports.readme import found, put_into

ROOT = Path(__file__).resolve().parents[3]


def test_the_readme_has_the_block_of_the_published_report() -> None:
    readme = (ROOT / "README.md").read_text()
    document = json.loads((ROOT / "reports/published/report.json").read_text())
    assert put_into(readme, found(document)) == readme


def test_strangers_text_is_escaped_and_missing_marks_are_said() -> None:
    claim = {"name": "a.C1", "statement": "<b> | @you", "verdict": "contradicted", "reduced": "opposes"}
    block = found({"claims": [claim], "sources": [{"id": "a", "title": "t*", "verdicts": {"contradicted": 1}}]})
    assert "| a | 0 | 1 | 0 | 0 | 0 |" in block
    assert "- does not hold: `C1` &lt;b> \\| @&#8203;you" in block
    assert "- smaller runs speak against: `C1`" in block
    with pytest.raises(ValueError, match="substring not found"):
        put_into("no marks", block)
