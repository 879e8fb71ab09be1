"""The Ray cluster that cells run on: one that is there, or one on this machine for the time being; what a cell needs.

Ray is imported inside functions: nothing else of this program needs it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError, missing_extra
from harness.provenance import has_module

# Tasks carry a few kilobytes; Ray would take a third of the memory.
_OBJECT_STORE_BYTES = 80 * 2**20
_CONNECT_SECONDS = 10.0
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # cells are told their device; Ray need not hide GPUs from those that use none, nor announce that it will not
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """What one cell asks of a node.

    Attributes:
        num_cpus: processors that it holds.
        num_gpus: devices that it holds.
        num_threads: compute threads of its process.
        device: cpu or cuda.
    """

    num_cpus: int
    num_gpus: int
    num_threads: int
    device: str


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to Ray, or start one on this machine and stop it at the end; a connection that is there is used.

    Args:
        address: HOST:PORT of a cluster, "auto" for the one this machine is a node of, None to start one here.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: no cluster answers.
    """
    if not has_module("ray"):
        raise missing_extra("harness compare --engine ray", "ray")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    # What Ray prints of lost workers would stand in the table; the engine says it in a line.
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        _connect(ray, address)
        try:
            yield
        finally:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        ray.init("local", include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, **quiet)
        return
    try:
        _check_answers(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
        ray.init(address, **quiet)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        said = str(error).partition("\n")[0]
        raise UsageError(
            f"--address {address}: no Ray cluster there ({said:.160}); start one with `ray start --head`, give the "
            "HOST:PORT that it prints, or drop --address to use this machine alone"
        ) from error


def _check_answers(address: str) -> None:
    """Refuse an address where nothing listens at once; Ray would try for minutes, and print."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not colon or "/" in host or not port.isdigit():
        raise ValueError("it is no HOST:PORT")
    with socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS):
        return


def node_resources() -> list[Mapping[str, float]]:
    """Return what each living node of the cluster offers."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def cell_need(
    nodes: Sequence[Mapping[str, float]],
    *,
    device: str,
    is_timed: bool,
    num_jobs: int | None,
    num_threads: int | None,
) -> Need:
    """Work out what a cell asks for: on a GPU one of them and its share of the processors, else a share of a node.

    A cell under a budget of time is alone on its device: it holds a whole GPU, or all processors of a node, and since
    seconds on unlike nodes compare nothing, all nodes must offer the same. Another cell has as many processors as
    threads: as many as the environment says, or its part of a node if `num_jobs` cells run at a time.

    Args:
        nodes: what each offers.
        device: auto takes GPUs where a node has some.
        is_timed: whether the budget is one of time.
        num_jobs: cells at a time; None for one on each node, or GPU.
        num_threads: of OMP_NUM_THREADS, where it is set.

    Raises:
        UsageError: no node offers what a cell needs, or the nodes are unlike under a budget of time.
    """
    on_gpu = device == "cuda" or (device == "auto" and any(node.get("GPU", 0) >= 1 for node in nodes))
    usable = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]
    usable = [(cpus, gpus) for cpus, gpus in usable if cpus >= 1 and (gpus >= 1 or not on_gpu)]
    if not usable:
        raise UsageError(
            f"--device {device}: no node of the Ray cluster offers {'a GPU' if on_gpu else 'a processor'}; "
            "see `ray status`"
        )
    if is_timed and len(set(usable)) > 1:
        raise UsageError(
            "cells under a budget of time run on like nodes, and these offer unlike processors or GPUs; give a budget "
            "in steps, tokens or FLOPs, or a cluster of like nodes"
        )
    share = min(max(1, cpus // gpus) if on_gpu else cpus for cpus, gpus in usable)
    if num_jobs is not None and not on_gpu and not is_timed:
        share = min(share, max(1, sum(cpus for cpus, _ in usable) // num_jobs))
    num_threads = num_threads or share
    largest = max(cpus for cpus, _ in usable)
    if num_threads > largest:
        raise UsageError(f"OMP_NUM_THREADS={num_threads}: no node has more than {largest} processors; lower it")
    num_cpus = share if is_timed else num_threads
    return Need(num_cpus=num_cpus, num_gpus=int(on_gpu), num_threads=num_threads, device="cuda" if on_gpu else "cpu")
