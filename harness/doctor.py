"""What this machine can and cannot do for a run, each line with the mend."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.provenance import cpu_name, has_module

EXTRAS = {
    "train": ("torch", "datasets", "sentencepiece"),
    "hf": ("transformers",),
    "tasks": ("lm_eval",),
    "ray": ("ray",),
    "report": ("matplotlib", "jinja2"),
}
# Never downloaded, so their presence says nothing of what a run without a network can read.
LOCAL_SOURCES = ("text:PATH", "shards:DIR", "synthetic")
MIN_FREE_DISK_BYTES = 2 * 10**9
MIN_FREE_MEMORY_BYTES = 2 * 10**9


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One line of `harness doctor`."""

    status: Literal["pass", "note", "fail"]
    subject: str
    message: str


def _check_python() -> Iterator[Diagnosis]:
    status: Literal["pass", "fail"] = "pass" if sys.version_info >= (3, 11) else "fail"
    yield Diagnosis(status, "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Diagnosis("pass", "processor", f"{cpu_name()}, {os.cpu_count()} logical")


def _check_extras() -> Iterator[Diagnosis]:
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if not has_module(name)]
        if missing:
            message = f"missing {', '.join(missing)}; pip install 'claims-harness[{extra}]'"
            yield Diagnosis("note", f"extra {extra}", message)
        else:
            yield Diagnosis("pass", f"extra {extra}", f"{', '.join(modules)} found")


def _check_torch() -> Iterator[Diagnosis]:
    if not has_module("torch"):
        return
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Diagnosis("pass", "device", f"torch {torch.__version__}, CUDA: {names}")
    else:
        yield Diagnosis("note", "device", f"torch {torch.__version__}, no CUDA device: runs use the processor")
    threads = torch.get_num_threads()
    if threads > 1 and os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        message = f"{threads} spinning threads; beside other work set OMP_NUM_THREADS=1 or OMP_WAIT_POLICY=PASSIVE"
        yield Diagnosis("note", "threads", message)
    else:
        yield Diagnosis("pass", "threads", f"{threads} compute threads")
    if shutil.which("cc") or shutil.which("gcc") or shutil.which("clang"):
        yield Diagnosis("pass", "compiler", "found; torch.compile can be used on the processor")
    else:
        yield Diagnosis("note", "compiler", "none found: --set train.compile=true will not work on the processor")


def _check_space() -> Iterator[Diagnosis]:
    import psutil

    available_bytes = psutil.virtual_memory().available
    free_bytes = shutil.disk_usage(Path.cwd()).free
    low_memory, low_disk = available_bytes < MIN_FREE_MEMORY_BYTES, free_bytes < MIN_FREE_DISK_BYTES
    yield Diagnosis("note" if low_memory else "pass", "memory", f"{available_bytes / 1e9:.1f} GB available")
    yield Diagnosis("note" if low_disk else "pass", "disk", f"{free_bytes / 1e9:.1f} GB free here")
    writable = os.access(Path.cwd(), os.W_OK)
    yield Diagnosis("pass" if writable else "fail", "folder", "writable" if writable else "not writable; use --out")


def _check_methods() -> Iterator[Diagnosis]:
    from harness.registry import scan_plugins

    registry = scan_plugins()
    yield Diagnosis("pass", "methods", ", ".join(sorted(registry.methods)) or "none found")
    for problem in registry.problems:
        yield Diagnosis("fail", "plugin", problem)


def _check_data() -> Iterator[Diagnosis]:
    from harness.data.corpora import list_sources

    cached = [source.name for source in list_sources() if source.is_cached and source.name not in LOCAL_SOURCES]
    message = f"on this machine: {', '.join(cached)}" if cached else "nothing cached; the first run fetches its corpus"
    yield Diagnosis("pass" if cached else "note", "data", message)


CHECKS: tuple[Callable[[], Iterator[Diagnosis]], ...] = (
    _check_python,
    _check_extras,
    _check_torch,
    _check_space,
    _check_methods,
    _check_data,
)


def diagnose() -> list[Diagnosis]:
    """Run every check; an error of one becomes its line and does not hide the others."""
    lines: list[Diagnosis] = []
    for check in CHECKS:
        try:
            lines.extend(check())
        except Exception as error:  # noqa: BLE001  a broken installation, which is why one runs this
            first_line = str(error).partition("\n")[0]
            message = f"{type(error).__name__}: {first_line}"
            lines.append(Diagnosis("fail", check.__name__.removeprefix("_check_"), message))
    return lines
