"""Every number on a page is in report.json, and what it says of a file is what the file says."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from page_parser import Element, numbers_of, parse_page

from reports.ledger import NONE_TEXT, Ledger, resolve

ROOT = Path(__file__).resolve().parents[3]
PUBLISHED = ROOT / "reports" / "published"


def check_printed(text: str, value: Any) -> None:
    """Assert that a text is a number's print, to its last digit."""
    if isinstance(value, str):
        assert text == value
        return
    digits = re.sub(r"[,%]", "", text)
    printed = float(digits)
    mantissa, _, exponent = digits.partition("e")
    decimals = len(mantissa.partition(".")[2])
    unit = 10.0 ** (int(exponent or 0) - decimals)
    true = value * 100 if text.endswith("%") else value
    if abs(true) >= 1e6 and "e" not in digits and printed < 1e6 and true / printed > 1e5:
        true /= 1e6  # a column of megabytes
    # three significant digits may end before the point
    assert math.isclose(printed, true, abs_tol=0.51 * unit, rel_tol=6e-3 if len(mantissa) <= 5 else 0), (text, value)


def check_page(page: Element, document: dict[str, Any]) -> int:
    numbers = list(numbers_of(page))
    for source, text in numbers:
        check_printed(text, resolve(document, source))
    for cell in (each for each in page.find("td") if each.attributes.get("class") == "right"):
        assert cell.find(**{"data-source": ""}) or cell.text.strip() == NONE_TEXT, cell.text
    return len(numbers)


def test_every_number_of_the_page_is_in_the_document(site) -> None:
    assert check_page(parse_page(site.html), site.document) > 400


def test_every_number_of_the_published_page_is_in_its_document() -> None:
    document = json.loads((PUBLISHED / "report.json").read_text())
    assert check_page(parse_page((PUBLISHED / "index.html").read_text()), document) > 3000


def test_what_stands_under_a_file_is_what_the_file_holds(site) -> None:
    document, checked = site.document, 0
    for source, _ in numbers_of(parse_page(site.html)):
        file, _, field = source.partition("#")
        if not file.endswith("record.json"):
            continue
        content = json.loads((site.root / file).read_text())
        assert resolve({"files": {file: content}}, f"{file}#{field}") == resolve(document, f"{file}#{field}")
        checked += 1
    assert checked > 100


def test_published_records_are_those_of_the_repository() -> None:
    document = json.loads((PUBLISHED / "report.json").read_text())
    for entry in document["records"]:
        stored = json.loads((ROOT / entry["file"]).read_text())
        # fields that an older record does not have yet have their defaults there
        assert only(document["files"][entry["file"]], stored) == stored, entry["file"]


def only(value: Any, like: Any) -> Any:
    """Return a value without the keys that another does not have."""
    if isinstance(value, dict) and isinstance(like, dict):
        return {key: only(value[key], like[key]) for key in value if key in like}
    if isinstance(value, list) and isinstance(like, list) and len(value) == len(like):
        return [only(*pair) for pair in zip(value, like, strict=True)]
    return value


def test_means_and_spreads_are_those_of_the_seeds(site) -> None:
    # worked out from the files, by the textbook formulas
    groups = [each for each in site.document["groups"] if each["kind"] == "records"]
    plain = next(each for group in groups for each in group["contenders"] if len(each["seeds"]) == 3)
    files = [json.loads((site.root / f"{run['folder']}/record.json").read_text()) for run in plain["seeds"]]
    scores = [file["metrics"]["test"]["val_bpb"] for file in files]
    mean = sum(scores) / 3
    sd = math.sqrt(sum((score - mean) ** 2 for score in scores) / 2)
    assert plain["mean_bpb"] == pytest.approx(mean)
    assert plain["sd_bpb"] == pytest.approx(sd)
    # t of 2 degrees of freedom at 97.5%: 4.30265
    assert plain["high_bpb"] - plain["low_bpb"] == pytest.approx(2 * 4.30265 * sd / math.sqrt(3), rel=1e-5)


def test_keys_with_dots_are_found_and_what_is_missing_is_no_number() -> None:
    document = {"files": {"r.json": {"parts": {"a.b": 3, "a": {"c": 4}}, "list": [1, {"x": 2}]}}}
    assert resolve(document, "r.json#parts.a.b") == 3
    assert resolve(document, "r.json#parts.a.c") == 4
    assert resolve(document, "r.json#list.1.x") == 2
    for wrong in ("r.json#parts.b", "r.json#list.2", "r.json#list.x", "other.json#parts", "r.json"):
        with pytest.raises(KeyError):
            resolve(document, wrong)
    assert Ledger(document=document).number("r.json#nothing", "count").text == NONE_TEXT
