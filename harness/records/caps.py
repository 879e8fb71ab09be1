"""Caps on the stored bytes: what a record is charged, and against which cap."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import NamedTuple

from harness.records.schema import ArtifactPart

CAPS_FILE = "caps.toml"


class Charge(NamedTuple):
    """Bytes held against one cap.

    Attributes:
        cap_bytes: the most that are allowed.
        charged_bytes: those that count.
        what: what they are, and whose cap it is, in words.
        key: key of the record that sets the cap.
    """

    cap_bytes: int
    charged_bytes: int
    what: str
    key: str

    @property
    def is_kept(self) -> bool:
        """Whether the bytes are within the cap."""
        return self.charged_bytes <= self.cap_bytes


@cache
def contest_caps() -> Mapping[str, int]:
    """Return the cap of each known contest in bytes, by name."""
    text = resources.files(__package__).joinpath(CAPS_FILE).read_text(encoding="utf-8")
    return tomllib.loads(text)


def charges(artifact: ArtifactPart) -> list[Charge]:
    """List what an artifact is charged.

    Args:
        artifact: its part of the record.

    Returns:
        One charge for each cap that was set: the user's own counts the file alone, a contest's also its code.
    """
    found = []
    if artifact.max_artifact_bytes is not None:
        what = "the file, by --max-artifact-bytes"
        found.append(Charge(artifact.max_artifact_bytes, artifact.artifact_bytes, what, "artifact.max_artifact_bytes"))
    if artifact.rules is not None:
        charged_bytes = artifact.artifact_bytes + artifact.decoder_closure_bytes
        what = f"the file and the code that decodes it, by --rules {artifact.rules}"
        found.append(Charge(contest_caps()[artifact.rules], charged_bytes, what, "artifact.rules"))
    return found
