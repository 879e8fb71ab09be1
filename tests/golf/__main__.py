"""Write the generated record folders to disk: `python -m tests.golf DIR [clean|broken|unverifiable]`."""

from __future__ import annotations

import sys
from pathlib import Path

from .broken import BROKEN
from .clean import CLEAN
from .folders import write_all
from .unverifiable import UNVERIFIABLE

KINDS = {"clean": CLEAN, "broken": {case.name: case.build for case in BROKEN}, "unverifiable": UNVERIFIABLE}


def main(arguments: list[str]) -> None:
    if not arguments or any(kind not in KINDS for kind in arguments[1:]):
        sys.exit(__doc__)
    for kind in arguments[1:] or KINDS:
        folders = write_all(KINDS[kind], Path(arguments[0]) / kind)
        print(f"{Path(arguments[0]) / kind}: {len(folders)} folders")


if __name__ == "__main__":
    main(sys.argv[1:])
