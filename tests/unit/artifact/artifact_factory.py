"""Small artifacts for tests, and a way to forge one: any header, with lengths and digest made to fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness.artifact.byte_coders import COMPRESSORS, decompress
from harness.artifact.container import PlannedTensor, write_artifact
from harness.artifact.header import FORMAT_VERSION, HEADER_CODER, MAGIC, PREAMBLE, canonical_json

META = {"format": "claims-harness artifact", "method": "dense", "settings": {"model": {"width": 8}}}
BLOBS = {"tokenizer": b"tokens " * 40}


def plan(seed: int = 0) -> list[PlannedTensor]:
    """Five tensors of unlike kinds; the head is identical to the embedding."""
    rng = np.random.default_rng(seed)
    embedding = rng.normal(size=(32, 16))
    values = {
        "embedding": (embedding, "int8-row", "embedding"),
        "blocks.0.q": (rng.normal(size=(2, 24, 16)), "int6-step", "blocks"),
        "blocks.0.gain": (1 + rng.normal(size=16) * 0.1, "fp16", "scalars"),
        "mask": (rng.integers(0, 2, (8, 8)), "integers", "masks"),
        "head": (embedding, "int8-row", "head"),
    }
    return [PlannedTensor(name=n, value=v, scheme=s, part=p) for n, (v, s, p) in values.items()]


def write_good(path: Path, seed: int = 0) -> Path:
    """Write the artifact of `plan`."""
    write_artifact(path, meta=META, tensors=plan(seed), blobs=BLOBS)
    return path


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and payloads of an artifact."""
    _, _, stored_bytes, raw_bytes = PREAMBLE.unpack(data[: PREAMBLE.size])
    end = PREAMBLE.size + stored_bytes
    return json.loads(decompress(HEADER_CODER, data[PREAMBLE.size : end], raw_bytes)), data[end:-32]


def join(raw_header: bytes, payloads: bytes, version: int = FORMAT_VERSION) -> bytes:
    """An artifact with any header and a digest that fits."""
    stored = COMPRESSORS[HEADER_CODER](raw_header)
    body = PREAMBLE.pack(MAGIC, version, len(stored), len(raw_header)) + stored + payloads
    return body + hashlib.sha256(body).digest()


def forge(path: Path, change: Callable[[dict[str, Any]], object], payloads: bytes | None = None) -> Path:
    """Change the header of the artifact at `path`, keeping everything else consistent."""
    header, kept = split(path.read_bytes())
    change(header)
    path.write_bytes(join(canonical_json(header), kept if payloads is None else payloads))
    return path
