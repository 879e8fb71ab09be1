"""The ranks of one run: torchrun's environment read once, one process or many."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.distributed as dist

from harness.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """Which process of how many this is.

    Attributes:
        rank: index of this process, 0 to `size` - 1; rank 0 alone writes files.
        size: number of processes of the run.
        device: torch device of this process.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def is_main(self) -> bool:
        """Whether this process writes the record."""
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """Return rank 0's `value` on every rank (a decision that a clock made, a path)."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        if self.size == 1:
            return flag
        flags: list[Any] = [None] * self.size
        dist.all_gather_object(flags, flag)
        return any(flags)


def choose_device(name: str) -> str:
    """Turn `auto`, `cpu` or `cuda` into a torch device of this process.

    Raises:
        UsageError: the name is unknown, or there is no such device.
    """
    if name not in {"auto", "cpu", "cuda"}:
        raise UsageError(f"--device {name}: choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device; use --device cpu, or see `harness doctor`")
    if name == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}"


def resolve_precision(precision: str, device: str) -> Literal["float32", "bfloat16"]:
    """Turn `auto` into bfloat16 where the device multiplies it natively, else float32.

    Args:
        precision: of the recipe.
        device: torch device of this process.
    """
    if precision != "auto":
        return cast("Literal['float32', 'bfloat16']", precision)
    if device != "cpu":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    has_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if has_bfloat16 else "float32"


def is_lost_rank(error: RuntimeError) -> bool:
    """Whether an error says that another process of the run is gone; gloo raises a plain RuntimeError."""
    return isinstance(error, dist.DistError) or "gloo/" in str(error)


@contextmanager
def join_ranks(device_name: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started (gloo on the processor, nccl on GPUs); one process without it."""
    device = choose_device(device_name)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if device != "cpu":
        torch.cuda.set_device(device)
    if size == 1:
        yield Ranks(device=device)
        return
    dist.init_process_group("gloo" if device == "cpu" else "nccl")
    try:
        yield Ranks(rank=dist.get_rank(), size=size, device=device)
    finally:
        dist.destroy_process_group()
