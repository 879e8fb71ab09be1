"""Names of files on the page: as they were given, and never an absolute path of the machine that made it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

# A file name has 255 bytes at most, and more than this is read by nobody.
MAX_SLUG = 100


def slug_of(text: str) -> str:
    """Return a text that can be the id of an element, a file name and the end of an address.

    What loses more than slashes to that ends in a hash of the text, so that names in other scripts stay apart.
    """
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")
    if slug and slug == text.replace("/", "-") and len(slug) <= MAX_SLUG:
        return slug
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{slug[:MAX_SLUG]}-{digest}".strip("-")


class Slugs:
    """Slugs of which none is given twice."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def free(self, prefix: str, text: str) -> str:
        """Return a prefix with the slug of a text, numbered where another text has it."""
        first = f"{prefix}-{slug_of(text)}"
        found = next(each for n in count(1) if (each := first if n == 1 else f"{first}-{n}") not in self._taken)
        self._taken.add(found)
        return found


class Places:
    """Labels of paths below some roots.

    Args:
        roots: as given; an absolute one is known by its last name.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._labels: list[tuple[str, str]] = []
        taken: set[str] = set()
        for root in dict.fromkeys(roots):
            is_plain = not root.is_absolute() and ".." not in root.parts and root.parts
            name = root.as_posix() if is_plain else root.resolve().name or "root"
            label, number = name, 1
            while label in taken:
                number += 1
                label = f"{name}-{number}"
            taken.add(label)
            self._labels += [(str(root), label), (str(root.resolve()), label)]
        self._labels.sort(key=lambda pair: -len(pair[0]))

    def label(self, path: Path) -> str:
        """Return the name of a path on the page."""
        for root, label in self._labels:
            if path == Path(root):
                return label
            if path.is_relative_to(root):
                return f"{label}/{path.relative_to(root).as_posix()}"
        return path.name

    def relabel(self, value: Any) -> Any:
        """Return JSON values with absolute roots in texts replaced by their labels."""
        if isinstance(value, str):
            for root, label in self._labels:
                if root.startswith("/") and root in value:
                    # as a whole path: what only begins or ends alike is another
                    value = re.sub(rf"(?<![\w./-]){re.escape(root)}(?![\w-]|\.\w)", label.replace("\\", r"\\"), value)
            return value
        if isinstance(value, dict):
            return {key: self.relabel(child) for key, child in value.items()}
        return [self.relabel(child) for child in value] if isinstance(value, list | tuple) else value
