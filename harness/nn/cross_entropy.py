"""The loss of a head: cross entropy of soft-capped products, on a processor a few rows at a time.

Shape letters: N tokens, C tokens of a chunk, V vocabulary.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from harness.nn.fused import soft_cap
from harness.nn.kernels import kernel_device

# Numbers of a chunk: three float32 buffers of 512 kB stay in a cache of 2 MB.
_CHUNK_NUMEL = 1 << 17
# Vector instructions round unlike those for what is left over at an end: with whole vectors no end is new.
_ROWS = 64


def capped_cross_entropy(z_NV: Tensor, targets_N: Tensor, cap: float) -> Tensor:
    """Return the mean cross entropy of `soft_cap(z, cap)` in nats, shape (), float32 or wider.

    Args:
        z_NV: products of the head of shape (N, V), of any float dtype.
        targets_N: int64 token ids of shape (N,).
        cap: bound of the logits; 0 for none.
    """
    # 2,048 rows of 1,024 in bfloat16, forward and backward: 8 ms where autograd takes 16.
    if kernel_device(z_NV) == "cpu" and not torch.compiler.is_compiling():
        return cast(Tensor, _ChunkedCrossEntropy.apply(z_NV, targets_N, cap))  # type: ignore[no-untyped-call]
    return F.cross_entropy(capped_logits(z_NV, cap), targets_N)


def capped_logits(z: Tensor, cap: float) -> Tensor:
    """Return the logits of products of the head, float32 or wider.

    Args:
        z: products, of any shape and float dtype.
        cap: bound of the logits; 0 for none.
    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    return soft_cap(z, cap) if cap else z


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The derivative is made with the loss, while a chunk is in the cache; it is all that is kept.

    On one thread each number is that of autograd through `soft_cap` and `F.cross_entropy`, bit by bit. Where the loss
    is then scaled by something else than a power of two, the derivative is rounded once more.
    """

    @staticmethod
    def forward(ctx: Any, z_NV: Tensor, targets_N: Tensor, cap: float) -> Tensor:
        num_tokens, vocab_size = z_NV.shape
        num_rows = min(num_tokens, _ROWS * max(1, _CHUNK_NUMEL // (_ROWS * vocab_size)))
        dtype = torch.promote_types(z_NV.dtype, torch.float32)
        buffers = [z_NV.new_empty(num_rows, vocab_size, dtype=dtype) for _ in range(2)]
        gradient = z_NV.new_zeros(num_rows, vocab_size, dtype=dtype) if ctx.needs_input_grad[0] else None
        dz_NV = None if gradient is None else torch.empty_like(z_NV)
        target_log_p_N1 = z_NV.new_empty(num_tokens, 1, dtype=dtype)
        for start in range(0, num_tokens, num_rows):
            part = slice(start, start + num_rows)
            z_CV, targets_C1 = z_NV[part], targets_N[part, None]
            sigmoid_CV, log_p_CV = (buffer[: len(z_CV)] for buffer in buffers)
            _log_softmax(z_CV, cap, sigmoid_CV, log_p_CV)
            torch.gather(log_p_CV, 1, targets_C1, out=target_log_p_N1[part])
            if gradient is not None and dz_NV is not None:
                gradient_CV = gradient[: len(z_CV)].scatter_(1, targets_C1, -1 / num_tokens)
                dz_NV[part] = _derive(gradient_CV, log_p_CV, cap, sigmoid_CV)
                gradient_CV.scatter_(1, targets_C1, 0.0)
        ctx.save_for_backward(dz_NV)
        return F.nll_loss(target_log_p_N1, torch.zeros_like(targets_N))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor, None, None]:
        (dz_NV,) = ctx.saved_tensors
        return dz_NV * dloss.to(dz_NV.dtype), None, None


def _log_softmax(z_CV: Tensor, cap: float, sigmoid_CV: Tensor, log_p_CV: Tensor) -> None:
    """Write the logarithms of the probabilities, and the sigmoid that `soft_cap` takes on the way."""
    if cap:
        sigmoid_CV.copy_(z_CV).mul_(2 / cap).sigmoid_()
        torch.mul(sigmoid_CV, 2 * cap, out=log_p_CV).sub_(cap)
    else:
        log_p_CV.copy_(z_CV)
    torch.log_softmax(log_p_CV, 1, out=log_p_CV)


def _derive(gradient_CV: Tensor, log_p_CV: Tensor, cap: float, sigmoid_CV: Tensor) -> Tensor:
    """Return the derivative by z, in the memory of log p, from that by log p."""
    aten = torch.ops.aten
    dz_CV: Tensor = aten._log_softmax_backward_data.out(gradient_CV, log_p_CV, 1, log_p_CV.dtype, out=log_p_CV)
    if cap:
        dz_CV.mul_(2 * cap)
        aten.sigmoid_backward.grad_input(dz_CV, sigmoid_CV, grad_input=dz_CV)
        dz_CV.mul_(2 / cap)
    return dz_CV
