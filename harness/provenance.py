"""Where a number came from: source hashes, versions, hardware, command line."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE_ROOT = Path(__file__).resolve().parent
# While it is written, its name ends in a number.
_BYTECODE = re.compile(r"\.pyc(\.\d+)?$")


def files_below(folder: Path) -> list[Path]:
    """List every file below a folder, also behind links, but for the bytecode that the interpreter keeps there.

    Whatever lies there may hold weights, so nothing is left out by its kind.
    """
    found: list[Path] = []
    seen: set[Path] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place)
        if here.resolve() in seen:  # links can make a circle
            folders.clear()
            continue
        seen.add(here.resolve())
        folders.sort()
        found += [here / name for name in names if not (here.name == "__pycache__" and _BYTECODE.search(name))]
    return sorted(path for path in found if path.is_file())


def hash_sources(folders: Iterable[Path]) -> str:
    """Hash all files below `folders`: relative names and contents, in sorted order."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in files_below(folder):
            name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            content = path.read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


@cache
def harness_code_sha256() -> str:
    """Hash of this program's own sources."""
    return hash_sources([PACKAGE_ROOT])


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """Model name of the processor, as the operating system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def command_line() -> str:
    """The command as typed, with the program's path cut to its name; a module of ours (`python -m`) is `harness`."""
    program = Path(sys.argv[0])
    return shlex.join(["harness" if program.parent == PACKAGE_ROOT else program.name, *sys.argv[1:]])


def describe_environment(device: str, num_ranks: int, num_threads: int) -> dict[str, Any]:
    """Collect versions, processor and device of a run, in the field names of the record."""
    return {
        "python": platform.python_version(),
        "torch": _version("torch"),
        "numpy": _version("numpy"),
        "harness": _version("claims-harness"),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": f"{cpu_name()} ({os.cpu_count()} logical)",
        "num_threads": num_threads,
        "device": device,
        "num_ranks": num_ranks,
        "command_line": command_line(),
    }


def has_module(name: str) -> bool:
    """Whether a module can be imported, without importing it."""
    return importlib.util.find_spec(name) is not None
