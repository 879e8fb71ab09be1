"""Which kernels a network runs: those of the device that its tensors lie on, or, for a forecast, of another kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor


class _Pretence:
    device_type: str | None = None


def kernel_device(x: Tensor) -> str:
    """Return the type of device whose kernels `x` is to run through: "cpu", "cuda", ..."""
    return _Pretence.device_type or x.device.type


@contextmanager
def kernels_of(device_type: str) -> Iterator[None]:
    """Choose kernels as on another type of device for a while; a forecast does so, on tensors without memory."""
    before, _Pretence.device_type = _Pretence.device_type, device_type
    try:
        yield
    finally:
        _Pretence.device_type = before
