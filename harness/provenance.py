"""Where a number came from: source hashes, versions, hardware, command line."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE_ROOT = Path(__file__).resolve().parent


def hash_sources(folders: Iterable[Path]) -> str:
    """Hash the Python and TOML sources below `folders`: relative names and contents, in sorted order."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix in {".py", ".toml"} and "__pycache__" not in path.parts:
                name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
                digest.update(f"{name}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
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
    """The command as typed, with the program's path cut to its name."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


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
