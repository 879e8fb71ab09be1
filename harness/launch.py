"""`harness run --devices N`: the ranks of one run on this machine, started and watched by torch's own launcher.

Each rank is the command that was typed. Standard input of the ranks is a pipe of this process, by whose end they know
that it is gone (`harness.worker`).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from harness.cell_process import THREADS
from harness.errors import RunError, UsageError
from harness.training.ranks import choose_device

_STARTED = "HARNESS_RANK_STARTED"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
# The ranks end after the step in hand and write a checkpoint; a second signal does not wait.
_STOP_SECONDS = 600
INTERRUPTED = 130


def must_start_ranks(num_ranks: int) -> bool:
    """Whether `--devices` asks this process to start others: not for one, and not in a rank that was started so.

    Raises:
        UsageError: torchrun started this process.
    """
    if _STARTED in os.environ:
        return False
    if "WORLD_SIZE" in os.environ:
        raise UsageError("--devices starts the processes itself: drop it under torchrun, or drop torchrun")
    return num_ranks > 1


def start_ranks(arguments: Sequence[str], *, num_ranks: int, device: str) -> int:
    """Run `harness ARGUMENTS` in several processes that are the ranks of one run, and return their exit code.

    Rank 0 speaks for all; what another rank failed by is said if rank 0 cannot know it.

    Args:
        arguments: as typed, `--devices` among them.
        num_ranks: processes; on GPUs one each.
        device: as `harness run --device` takes it.

    Raises:
        UsageError: this machine has fewer GPUs.
        RunError: a rank other than 0 failed or was killed.
    """
    if choose_device(device) != "cpu" and num_ranks > torch.cuda.device_count():
        raise UsageError(f"--devices {num_ranks}: torch sees {torch.cuda.device_count()} GPU(s); see `harness doctor`")
    with tempfile.TemporaryDirectory(prefix="harness-ranks-") as said, _surroundings(num_ranks):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=num_ranks,
            run_id=str(uuid.uuid4()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            shutdown_timeout=_STOP_SECONDS,
            logs_specs=DefaultLogsSpecs(log_dir=said, redirects=dict.fromkeys(range(1, num_ranks), Std.ALL)),
        )
        try:
            elastic_launch(config, sys.executable)("-P", "-m", "harness.worker", *arguments)
        except ChildFailedError as error:
            return _exit_code(error.failures, Path(said))
        except SignalException:
            return INTERRUPTED  # rank 0 has said how to go on
    return 0


def _exit_code(failures: Mapping[int, ProcessFailure], said: Path) -> int:
    """Return the code of rank 0 if it failed by itself, not because another did.

    Raises:
        RunError: another rank failed.
    """
    codes = {rank: failure.exitcode for rank, failure in sorted(failures.items())}
    if codes.get(0, 0) > 0 and codes[0] != INTERRUPTED:
        return codes[0]
    for rank, code in codes.items():
        if code > 0 and code != INTERRUPTED:
            raise RunError(f"rank {rank}: {_last_error(said, rank) or f'exit code {code}'}")
    for rank, code in codes.items():
        if code < 0 and code != -signal.SIGTERM:
            raise RunError(f"rank {rank} was killed by signal {-code}; go on with harness run --resume and the folder")
    return INTERRUPTED


def _last_error(said: Path, rank: int) -> str:
    lines = [
        line.removeprefix("error: ")
        for path in said.rglob(f"{rank}/stderr.log")
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.startswith("error: ")
    ]
    return lines[-1] if lines else ""


@contextmanager
def _surroundings(num_ranks: int) -> Iterator[None]:
    """Set what ranks inherit, keep the launcher's own messages quiet, and leave all as it was."""
    environment = {_STARTED: "1", THREADS: os.environ.get(THREADS, str(max(1, (os.cpu_count() or 1) // num_ranks)))}
    before = {name: os.environ.get(name) for name in environment}
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    os.environ.update(environment)
    logging.disable(logging.CRITICAL)
    try:
        with _watched_input():
            yield
    finally:
        logging.disable(logging.NOTSET)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _watched_input() -> Iterator[None]:
    """Have standard input be the end of a pipe that only this process can close."""
    kept, (reading, writing) = os.dup(0), os.pipe()
    os.dup2(reading, 0)
    os.close(reading)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(writing)
