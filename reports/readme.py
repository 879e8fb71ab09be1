"""The part of README.md that says what was found, made from the published `report.json`.

    python -m reports.readme README.md reports/published/report.json

`make report` runs it after the page, so that the README says what the records give.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.files import write_atomic
from harness.tables import clean_markdown

BEGIN, END = "<!-- found: written by make report -->\n", "<!-- found: end -->\n"
VERDICTS = ("confirmed", "contradicted", "undecided", "unverifiable", "evidence")


def found(document: Mapping[str, Any]) -> str:
    """Return the block: verdicts by source, then for each what does not hold and what smaller runs say."""
    return "".join(f"{line}\n" for line in _lines(document))


def put_into(text: str, block: str) -> str:
    """Return a text with the block between its marks.

    Raises:
        ValueError: the marks are not there.
    """
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return text[:start] + block + text[end:]


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    claims, sources = document["claims"], document["sources"]
    yield f"With the records here, `harness claims` judges {len(claims)} claims of {len(sources)} publications:"
    yield ""
    yield f"| source | {' | '.join(VERDICTS)} |"
    yield f"| --- |{' --- |' * len(VERDICTS)}"
    for source in sources:
        counts = " | ".join(str(source["verdicts"].get(verdict, 0)) for verdict in VERDICTS)
        yield f"| {source['id']} | {counts} |"
    for source in sources:
        mine = [claim for claim in claims if claim["name"].startswith(f"{source['id']}.")]
        yield ""
        yield f"**{clean_markdown(source['title'])}**"
        for says, chosen in (
            ("holds", [claim for claim in mine if claim["verdict"] == "confirmed"]),
            ("does not hold", [claim for claim in mine if claim["verdict"] == "contradicted"]),
            ("smaller runs speak for", [claim for claim in mine if claim["reduced"] == "supports"]),
            ("smaller runs speak against", [claim for claim in mine if claim["reduced"] == "opposes"]),
        ):
            if chosen:
                yield f"- {says}: {'; '.join(_short(claim) for claim in chosen)}"


def _short(claim: Mapping[str, Any]) -> str:
    return f"`{claim['name'].partition('.')[2]}` {clean_markdown(claim['statement'])}"


def main(readme: Path, document: Path) -> None:
    """Write the block of a document into a README."""
    block = found(json.loads(document.read_text(encoding="utf-8")))
    write_atomic(readme, put_into(readme.read_text(encoding="utf-8"), block).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
