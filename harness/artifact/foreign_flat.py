"""Reading the headers of .safetensors, GGUF and .npy files: own bounded readers, no tensor is loaded."""

from __future__ import annotations

import ast
import json
import math
import struct
import warnings
from dataclasses import dataclass
from typing import Any, BinaryIO

from harness.artifact.inspection import (
    MAX_TENSORS,
    Inspection,
    TensorRow,
    escape,
    find_overlaps,
    numel,
    read_exactly,
    split_bytes,
)
from harness.errors import ArtifactError

# The format allows 100 MB; 8 MiB are 40,000 tensors, and Python needs many times as much for nested brackets.
MAX_SAFETENSORS_HEADER = 8 << 20
MAX_NPY_HEADER = 10_000
MAX_GGUF_STEPS = 2_000_000
MAX_GGUF_DIMS = 8

SAFETENSORS_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8}
SAFETENSORS_BITS |= {"U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "C64": 64}
SAFETENSORS_BITS |= {"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}

# type: (name, numbers in a block, bytes of a block, scales and minima in a block). From ggml-common.h; the IQ types
# keep their scales inside code words, of which only the block's own scale is counted.
GGML_TYPES = {
    0: ("F32", 1, 4, 0),
    1: ("F16", 1, 2, 0),
    2: ("Q4_0", 32, 18, 1),
    3: ("Q4_1", 32, 20, 2),
    6: ("Q5_0", 32, 22, 1),
    7: ("Q5_1", 32, 24, 2),
    8: ("Q8_0", 32, 34, 1),
    9: ("Q8_1", 32, 36, 2),
    10: ("Q2_K", 256, 84, 34),
    11: ("Q3_K", 256, 110, 17),
    12: ("Q4_K", 256, 144, 18),
    13: ("Q5_K", 256, 176, 18),
    14: ("Q6_K", 256, 210, 17),
    15: ("Q8_K", 256, 292, 1),
    16: ("IQ2_XXS", 256, 66, 1),
    17: ("IQ2_XS", 256, 74, 1),
    18: ("IQ3_XXS", 256, 98, 1),
    19: ("IQ1_S", 256, 50, 1),
    20: ("IQ4_NL", 32, 18, 1),
    21: ("IQ3_S", 256, 110, 1),
    22: ("IQ2_S", 256, 82, 1),
    23: ("IQ4_XS", 256, 136, 9),
    24: ("I8", 1, 1, 0),
    25: ("I16", 1, 2, 0),
    26: ("I32", 1, 4, 0),
    27: ("I64", 1, 8, 0),
    28: ("F64", 1, 8, 0),
    29: ("IQ1_M", 256, 56, 1),
    30: ("BF16", 1, 2, 0),
    34: ("TQ1_0", 256, 54, 1),
    35: ("TQ2_0", 256, 66, 1),
    39: ("MXFP4", 32, 17, 1),
}
_GGUF_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_GGUF_STRING, _GGUF_ARRAY = 8, 9


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ArtifactError("header names a tensor twice")
    return keys


def inspect_safetensors(stream: BinaryIO, file_bytes: int) -> Inspection:
    """List the tensors of a .safetensors file from its header."""
    header_bytes = int.from_bytes(read_exactly(stream, 8, "header length"), "little")
    if header_bytes > min(MAX_SAFETENSORS_HEADER, file_bytes - 8):
        raise ArtifactError(f"header of {header_bytes} bytes in a file of {file_bytes}")
    header = json.loads(read_exactly(stream, header_bytes, "header"), object_pairs_hook=_unique_keys)
    if not isinstance(header, dict):
        raise ArtifactError("header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    rows, spans, notes = [], [], []
    for name, entry in header.items():
        row, span, note = _safetensors_row(name, entry)
        rows.append(row)
        spans.append(span)
        notes += note
    notes += find_overlaps(spans, file_bytes - 8 - header_bytes)
    if metadata:
        notes.append(f"metadata: {escape(json.dumps(metadata, sort_keys=True))}")
    return Inspection(
        format="safetensors",
        file_bytes=file_bytes,
        rows=tuple(rows),
        bytes_by_part=split_bytes(tuple(rows), file_bytes),
        num_params_effective=sum(row.num_numbers for row in rows),
        notes=tuple(notes),
    )


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _safetensors_row(name: str, entry: Any) -> tuple[TensorRow, tuple[int, int, str], list[str]]:
    shown = escape(name)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ArtifactError(f"header entry of {shown} has not the fields dtype, shape, data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    sizes_ok = isinstance(shape, list) and len(shape) <= 32 and all(map(_is_size, shape))
    if not (sizes_ok and isinstance(offsets, list) and len(offsets) == 2 and all(map(_is_size, offsets))):
        raise ArtifactError(f"header entry of {shown} has an impossible shape or place")
    start, stop = offsets
    count, notes = numel(tuple(shape)), []
    if (bits := SAFETENSORS_BITS.get(str(dtype))) is None:
        notes.append(f"{shown}: unknown type {escape(str(dtype))}")
    elif (stop - start) * 8 != count * bits:
        notes.append(f"{shown}: {count} numbers of {dtype} in {stop - start} bytes")
    row = TensorRow(
        name=shown,
        shape=tuple(shape),
        dtype=escape(str(dtype)),
        stored_bytes=max(stop - start, 0),
        num_numbers=count,
        num_stored=count,
    )
    return row, (start, stop, shown), notes


@dataclass(slots=True)
class _GgufReader:
    """Reads the head of a GGUF file within the file's size and a number of steps."""

    stream: BinaryIO
    file_bytes: int
    steps: int = 0

    def number(self, form: str) -> int:
        self.steps += 1
        if self.steps > MAX_GGUF_STEPS:
            raise ArtifactError(f"head has more than {MAX_GGUF_STEPS} items")
        (value,) = struct.unpack(form, read_exactly(self.stream, struct.calcsize(form), "head"))
        return int(value)

    def length(self, unit_bytes: int) -> int:
        count = self.number("<Q")
        if count * unit_bytes > self.file_bytes - self.stream.tell():
            raise ArtifactError(f"head declares {count} items of {unit_bytes} bytes, more than the file holds")
        return count

    def text(self) -> str:
        count = self.length(1)
        if count > 1 << 16:
            self.stream.seek(count, 1)
            return f"<{count} bytes>"
        return read_exactly(self.stream, count, "a string").decode("utf-8", "backslashreplace")

    def value(self, kind: int, depth: int = 0) -> int | str | None:
        """Read a value; only texts and whole numbers are kept, arrays are passed over."""
        if kind == _GGUF_STRING:
            return self.text()
        if kind == _GGUF_ARRAY and depth < 4:
            self._skip_array(depth)
            return None
        if kind not in _GGUF_SCALARS:
            raise ArtifactError(f"head has a value of unknown type {kind}")
        raw = read_exactly(self.stream, _GGUF_SCALARS[kind], "a value")
        return None if kind in (6, 12) else int.from_bytes(raw, "little")

    def _skip_array(self, depth: int) -> None:
        kind = self.number("<I")
        if kind in _GGUF_SCALARS:
            count = self.length(_GGUF_SCALARS[kind])
            self.stream.seek(count * _GGUF_SCALARS[kind], 1)
            return
        for _ in range(self.length(8)):
            self.value(kind, depth + 1)


def inspect_gguf(stream: BinaryIO, file_bytes: int) -> Inspection:
    """List the tensors of a GGUF file, version 2 or 3, from its head."""
    reader = _GgufReader(stream, file_bytes)
    read_exactly(stream, 4, "magic")
    version = reader.number("<I")
    if version not in (2, 3):
        raise ArtifactError(f"GGUF version {version} (or big-endian), versions 2 and 3 can be read")
    # A tensor's entry has at least 24 bytes, a key with its value 13.
    num_tensors, num_keys = reader.length(24), reader.length(13)
    if num_tensors > MAX_TENSORS:
        raise ArtifactError(f"head declares {num_tensors} tensors, at most {MAX_TENSORS}")
    keys = {reader.text(): reader.value(reader.number("<I")) for _ in range(num_keys)}
    entries = [_read_gguf_entry(reader) for _ in range(num_tensors)]
    alignment = keys.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
        raise ArtifactError(f"alignment of {alignment} bytes")
    data_start = math.ceil(stream.tell() / alignment) * alignment
    rows = tuple(row for row, _ in entries)
    spans = [(offset, offset + row.stored_bytes, row.name) for row, offset in entries]
    notes = list(find_overlaps(spans, max(file_bytes - data_start, 0)))
    notes += [f"{row.name}: unknown type" for row in rows if row.dtype.startswith("type ")]
    if any(row.name == "token_embd.weight" for row in rows) and all(row.name != "output.weight" for row in rows):
        notes.append("no output.weight: the head is tied to token_embd.weight")
    return Inspection(
        format=f"GGUF v{version}",
        file_bytes=file_bytes,
        rows=rows,
        bytes_by_part=split_bytes(rows, file_bytes),
        num_params_effective=sum(row.num_numbers for row in rows),
        notes=(*notes, *(f"{key}: {escape(str(keys[key]))}" for key in ("general.architecture",) if key in keys)),
    )


def _read_gguf_entry(reader: _GgufReader) -> tuple[TensorRow, int]:
    name = escape(reader.text())
    num_dims = reader.number("<I")
    if num_dims > MAX_GGUF_DIMS:
        raise ArtifactError(f"{name} has {num_dims} axes")
    # The file lists the fastest axis first.
    shape = tuple(reader.number("<Q") for _ in range(num_dims))[::-1]
    kind, offset = reader.number("<I"), reader.number("<Q")
    label, block, block_bytes, scales = GGML_TYPES.get(kind, (f"type {kind}", 1, 0, 0))
    count = numel(shape)
    if shape and shape[-1] % block:
        raise ArtifactError(f"{name}: rows of {shape[-1]} numbers in {label} blocks of {block}")
    blocks = count // block
    row = TensorRow(
        name=name,
        shape=shape,
        dtype=label,
        stored_bytes=blocks * block_bytes,
        num_numbers=count,
        num_stored=count + blocks * scales,
    )
    return row, offset


def _npy_fields(stream: BinaryIO) -> dict[str, Any]:
    """The dictionary in the head of a .npy stream, without the standard reader's repairs and warnings."""
    magic = read_exactly(stream, 8, "head of an array")
    length_bytes = {1: 2, 2: 4, 3: 4}.get(magic[6])
    if not magic.startswith(b"\x93NUMPY") or length_bytes is None:
        raise ArtifactError("an array without the head of .npy version 1, 2 or 3")
    head_bytes = int.from_bytes(read_exactly(stream, length_bytes, "head of an array"), "little")
    if head_bytes > MAX_NPY_HEADER:
        raise ArtifactError(f"an array with a head of {head_bytes} bytes, at most {MAX_NPY_HEADER}")
    text = read_exactly(stream, head_bytes, "head of an array").decode("utf-8" if magic[6] == 3 else "latin-1")
    fields = ast.literal_eval(text.strip())
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise ArtifactError("an array whose head has not the fields descr, fortran_order, shape")
    return fields


def read_npy_head(stream: BinaryIO, name: str) -> tuple[TensorRow, int]:
    """Read the head of a .npy stream.

    Returns:
        The tensor, and the bytes of the head.
    """
    import numpy as np

    with warnings.catch_warnings():
        # A head of odd text can provoke syntax and deprecation warnings; it is refused or listed, not discussed.
        warnings.simplefilter("ignore")
        fields = _npy_fields(stream)
        dtype = np.dtype(fields["descr"])
    sizes = fields["shape"]
    if not (isinstance(sizes, tuple) and len(sizes) <= 64 and all(map(_is_size, sizes))):
        raise ArtifactError(f"{escape(name)}: an array of impossible shape")
    count = numel(sizes)
    row = TensorRow(
        name=escape(name),
        shape=sizes,
        dtype="object" if dtype.hasobject else escape(str(dtype)),
        stored_bytes=0 if dtype.hasobject else count * dtype.itemsize,
        num_numbers=0 if dtype.hasobject else count,
        num_stored=0 if dtype.hasobject else count,
    )
    return row, stream.tell()


def inspect_npy(stream: BinaryIO, file_bytes: int) -> Inspection:
    """Describe the array of a .npy file from its head."""
    row, head_bytes = read_npy_head(stream, "array")
    notes = []
    if row.dtype == "object":
        notes.append("an array of Python objects is a pickle and is never loaded")
    elif row.stored_bytes + head_bytes != file_bytes:
        notes.append(f"head and array need {row.stored_bytes + head_bytes} bytes, the file has {file_bytes}")
    return Inspection(
        format="npy",
        file_bytes=file_bytes,
        rows=(row,),
        bytes_by_part=split_bytes((row,), file_bytes),
        num_params_effective=row.num_numbers,
        notes=tuple(notes),
    )
