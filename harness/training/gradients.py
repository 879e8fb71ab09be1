"""Sums of gradients in a fixed order, the same whatever the number of ranks.

Micro-batches are the leaves of a balanced binary tree, in their order. Each rank sums a whole subtree of
consecutive micro-batches, then the subtotals are summed as the top of the same tree, so 1, 2 and 4 ranks give
the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from harness.errors import UsageError

# 64 MiB of float32 travel at a time: gathering adds that much memory a rank, not a copy of all gradients
_CHUNK_NUMEL = 1 << 24


class TreeSum:
    """Sums equally shaped lists of tensors as a binary counter does: at most log2(n) + 1 lists are held."""

    def __init__(self) -> None:
        self._levels: list[list[Tensor] | None] = []

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Add the next list; the tensors may be kept, and are never written to."""
        carry, level = list(tensors), 0
        while level < len(self._levels) and (left := self._levels[level]) is not None:
            carry = _add(left, carry, may_write=level > 0)
            self._levels[level] = None
            level += 1
        if level == len(self._levels):
            self._levels.append(None)
        self._levels[level] = carry

    def total(self) -> list[Tensor]:
        """Return the sums, in tensors that share no memory, and start again from nothing."""
        levels, self._levels = self._levels, []
        total: list[Tensor] | None = None
        for level, part in enumerate(levels):
            if part is not None:
                total = _own(part) if total is None else _add(part, total, may_write=level > 0)
        assert total is not None, "a sum of nothing"
        return total


def _add(left: list[Tensor], right: list[Tensor], *, may_write: bool) -> list[Tensor]:
    if may_write:
        torch._foreach_add_(left, right)
        return left
    return list(torch._foreach_add(left, right))


def _own(tensors: list[Tensor]) -> list[Tensor]:
    """Copy tensors that share memory: autograd may give one to two leaves, or an expanded number."""
    seen: set[int] = set()
    owned = []
    for tensor in tensors:
        storage = tensor.untyped_storage()
        is_shared = storage.data_ptr() in seen or storage.nbytes() < tensor.numel() * tensor.element_size()
        seen.add(storage.data_ptr())
        owned.append(tensor.clone(memory_format=torch.contiguous_format) if is_shared else tensor)
    return owned


def sum_over_ranks(tensors: Sequence[Tensor], num_ranks: int) -> list[Tensor]:
    """Sum each tensor over the ranks, given the sums over each rank's own micro-batches.

    On gloo the order is that of one rank. On nccl it is a plain all_reduce, whose order the library chooses:
    results of unlike numbers of ranks then agree to rounding only.

    Args:
        tensors: the totals of this rank's `TreeSum`.
        num_ranks: processes of the run; with 1 nothing is sent.
    """
    if num_ranks == 1:
        return list(tensors)
    is_ordered = dist.get_backend() != "nccl"
    results = list(tensors)
    for dtype in {tensor.dtype: None for tensor in tensors}:  # ordered, as on all ranks
        indices = [index for index, tensor in enumerate(tensors) if tensor.dtype == dtype]
        flat = torch.cat([tensors[index].reshape(-1) for index in indices])
        for chunk in torch.split(flat, _CHUNK_NUMEL):
            if is_ordered:
                _sum_in_order(chunk, num_ranks)
            else:
                dist.all_reduce(chunk)
        sizes = [tensors[index].numel() for index in indices]
        for index, part in zip(indices, torch.split_with_sizes(flat, sizes), strict=True):
            results[index] = part.reshape(tensors[index].shape)
    return results


def _sum_in_order(chunk: Tensor, num_ranks: int) -> None:
    parts = [torch.empty_like(chunk) for _ in range(num_ranks)]
    dist.all_gather(parts, chunk)
    tree = TreeSum()
    for part in parts:
        tree.add([part])
    chunk.copy_(tree.total()[0])


def micro_batches_of_rank(num_micro_batches: int, rank: int, num_ranks: int) -> range:
    """Return the consecutive micro-batches of one rank: a whole subtree of the sum.

    Raises:
        UsageError: the ranks would not get equal shares whose number is a power of two.
    """
    if not _divides(num_micro_batches, num_ranks):
        possible = [str(n) for n in range(1, num_micro_batches + 1) if _divides(num_micro_batches, n)]
        raise UsageError(
            f"{num_micro_batches} micro-batches a step do not divide over {num_ranks} ranks: each must get "
            f"the same power of two, so that the sum does not depend on the number of ranks. "
            f"Use {', '.join(possible)} ranks, or change train.micro_batch_tokens."
        )
    share = num_micro_batches // num_ranks
    return range(rank * share, (rank + 1) * share)


def _divides(num_micro_batches: int, num_ranks: int) -> bool:
    share, rest = divmod(num_micro_batches, num_ranks)
    return num_ranks == 1 or (rest == 0 and share > 0 and share & (share - 1) == 0)
