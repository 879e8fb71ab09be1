"""Checkpoints: one file, whole or absent, with a checksum; and the states of the random generators.

Layout: magic (8 bytes), length of the payload (8 bytes, little endian), its SHA-256 (32 bytes), and the
payload as torch.save writes it.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
import struct
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from harness.errors import RunError
from harness.files import flush_folder

_MAGIC = b"CHCKPT01"
_HEADER = struct.Struct("<8sQ32s")
_PLAIN_TYPES = (str, int, float, bool, bytes, type(None))


class _HashingFile:
    """Passes bytes on to a file and hashes them.

    An error of the disk is kept for later: torch's writer would turn it into one of its own.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.num_bytes = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.num_bytes += len(data)
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Do nothing; the file is flushed once, at its end."""


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; the one before stays until the new one is complete on disk.

    Args:
        path: the file to write or replace.
        state: nested dicts, lists and tuples of tensors, strings and numbers.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    _check_plain(state, "state")
    # one name, not a random one: what a killed process left is overwritten and does not pile up
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            _write(file, state)
        temporary.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        kept = "The one before is kept; make" if path.exists() else "Make"
        raise RunError(
            f"cannot write the checkpoint {path}: {error.strerror or error}. "
            f"{kept} room or make the folder writable, then go on with --resume"
        ) from error
    finally:
        _remove(temporary)


def _write(file: BinaryIO, state: Mapping[str, Any]) -> None:
    file.write(bytes(_HEADER.size))
    payload = _HashingFile(file)
    torch.save(state, cast(BinaryIO, payload))
    if payload.error is not None:
        raise payload.error
    file.seek(0)
    file.write(_HEADER.pack(_MAGIC, payload.num_bytes, payload.digest.digest()))
    file.flush()
    os.fsync(file.fileno())


def _remove(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:
        return  # the error that is on its way says more


def _check_plain(value: Any, where: str) -> None:
    """Refuse at once what could not be loaded again without unpickling code."""
    if isinstance(value, Tensor) or type(value) in _PLAIN_TYPES:
        return
    if type(value) in (dict, OrderedDict):
        items = [(f"{where}[{key!r}]", part) for key, item in value.items() for part in (key, item)]
    elif type(value) in (list, tuple):
        items = [(f"{where}[{index}]", item) for index, item in enumerate(value)]
    else:
        raise TypeError(f"{where} is a {type(value).__name__}; a checkpoint holds tensors, numbers and text")
    for inner, item in items:
        _check_plain(item, inner)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, tensors on the CPU; nothing in it is executed.

    Raises:
        RunError: the file is missing, unreadable, truncated, altered, or not a checkpoint.
    """
    advice = "start the run again without --resume"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"no checkpoint at {path}: the run wrote none yet, or it is finished; {advice}") from None
    except OSError as error:
        raise RunError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    if content[: len(_MAGIC)] != _MAGIC:
        raise RunError(f"{path} is not a checkpoint of this program (or of another version); {advice}")
    expected_bytes = _HEADER.size
    if len(content) >= _HEADER.size:
        _, payload_bytes, digest = _HEADER.unpack_from(content)
        expected_bytes += payload_bytes
    if len(content) != expected_bytes:
        raise RunError(f"checkpoint {path} has {len(content):,} of {expected_bytes:,} bytes; {advice}")
    payload = memoryview(content)[_HEADER.size :]
    if hashlib.sha256(payload).digest() != digest:
        raise RunError(f"checkpoint {path} was altered: its SHA-256 does not match; {advice}")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise RunError(f"torch {torch.__version__} cannot read {path}; use the version that wrote it") from error
    return state


def rng_state() -> dict[str, Any]:
    """Return the states of the generators of torch, its CUDA devices, numpy and Python, as plain values."""
    legacy: Any = np.random.get_state(legacy=False)
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": {
            "key": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
            "pos": int(legacy["state"]["pos"]),
            "has_gauss": int(legacy["has_gauss"]),
            "gauss": float(legacy["gauss"]),
        },
        "python": [version, list(internal), gauss],
    }


def restore_rng(state: Mapping[str, Any]) -> None:
    """Set the generators to the states of `rng_state`; CUDA devices that are not here are left out."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for device, device_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(device_state, device)
    legacy = state["numpy"]
    key = legacy["key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, legacy["pos"], legacy["has_gauss"], legacy["gauss"]))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
