"""What an inspection of a model file says, whoever made the file."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from harness.errors import ArtifactError

# Enough for the largest published models; a file that declares more is not listed to its end.
MAX_TENSORS = 200_000
MAX_NAME_LENGTH = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorRow:
    """One named tensor.

    Attributes:
        name: as the file has it, control characters escaped.
        shape: sizes of the axes.
        dtype: number type, or our scheme and coder.
        stored_bytes: bytes of its own in the file; 0 for a tensor that shares another's storage.
        num_numbers: product of the shape.
        num_stored: coded numbers and scales of its own; 0 for a tensor that shares another's storage.
        tied_to: name of the tensor whose storage it shares, else "".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored_bytes: int
    num_numbers: int
    num_stored: int
    tied_to: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What a file stores.

    Attributes:
        format: in words, such as "safetensors" or "GGUF v3".
        file_bytes: size of the file.
        rows: the tensors, in the order of the file.
        bytes_by_part: adds up to `file_bytes`.
        num_params_effective: numbers of the tensors as the file lays them out, tied ones once; None where only the
            method knows (generated or shared weights of our own artifacts).
        notes: what could not be read, and why.
    """

    format: str
    file_bytes: int
    rows: tuple[TensorRow, ...] = ()
    bytes_by_part: Mapping[str, int] = field(default_factory=dict)
    num_params_effective: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_params_stored(self) -> int | None:
        """Coded numbers and scales, tied tensors once; None where the file could not be looked into."""
        if not self.rows and self.num_params_effective is None:
            return None
        return sum(row.num_stored for row in self.rows)

    @property
    def num_named(self) -> int:
        """Numbers of all named tensors, tied ones as often as they are named."""
        return sum(row.num_numbers for row in self.rows)

    @property
    def ties(self) -> Mapping[str, tuple[str, ...]]:
        """Names that share one storage, by the first of them."""
        groups: dict[str, tuple[str, ...]] = {}
        for row in self.rows:
            if row.tied_to:
                groups[row.tied_to] = (*groups.get(row.tied_to, ()), row.name)
        return groups


def escape(text: str) -> str:
    """Make a name from a file safe to print: control and format characters as escapes, at most 200 characters."""
    shown = text if len(text) <= MAX_NAME_LENGTH else f"{text[:MAX_NAME_LENGTH]}..."
    return "".join(
        ch if ch.isprintable() and unicodedata.category(ch) not in ("Cf", "Co", "Cs") else ascii(ch)[1:-1]
        for ch in shown
    )


def read_exactly(stream: BinaryIO, num_bytes: int, what: str) -> bytes:
    """Read exactly `num_bytes`, or raise ArtifactError saying what is cut off."""
    data = stream.read(num_bytes)
    if len(data) != num_bytes:
        raise ArtifactError(f"truncated: {what} needs {num_bytes} bytes, {len(data)} are left")
    return data


def numel(shape: tuple[int, ...]) -> int:
    """Product of a shape, exactly."""
    count = 1
    for size in shape:
        count *= size
    return count


def split_bytes(rows: tuple[TensorRow, ...], file_bytes: int, label: str = "tensors") -> dict[str, int]:
    """Bytes of tensors (or what the rows are), and all the rest (headers, padding, other members)."""
    listed = sum(row.stored_bytes for row in rows)
    return {label: listed, "other": file_bytes - listed}


def find_overlaps(spans: list[tuple[int, int, str]], end: int) -> Iterator[str]:
    """Yield a message for each span (start, stop, name) that leaves the file or overlaps the one before it."""
    last_stop, last_name = 0, ""
    for start, stop, name in sorted(spans):
        if stop > end or start < 0 or stop < start:
            yield f"{name} lies at bytes {start} to {stop}, outside the {end} bytes there are"
        elif start < last_stop and stop > start:
            yield f"{name} overlaps {last_name}"
        if stop > last_stop:
            last_stop, last_name = stop, name
