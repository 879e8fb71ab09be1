"""A pruned weight as a mask and the numbers that are left, so that both are counted for what they are.

The mask is stored as whole numbers: its bytes count, it is no parameter. The numbers left stand in one row, without
zeros. Where rows have scales of their own, each row is divided by its largest number, and these are stored too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.artifact.container import PlannedTensor
from harness.artifact.quantize import parse_scheme
from harness.errors import ArtifactError, UsageError

Array = NDArray[Any]
MASK, VALUES, ROWS = "mask", "values", "row_scales"
ROW_SCHEME = "fp16"


def split_weight(planned: PlannedTensor) -> list[PlannedTensor]:
    """Return mask, numbers left and, for schemes with a scale a row, row scales of a weight (O, I).

    Raises:
        UsageError: the scheme cannot be split so.
    """
    scheme = parse_scheme(planned.scheme)
    if scheme.kind not in ("float", "grid", "step"):
        raise UsageError(
            f"{planned.name}: scheme {planned.scheme} does not store a mask apart. Set storage=zeros, or a scheme "
            "fp32, fp16, int4..int8 with -row or -tensor"
        )
    weight_OI: Array = np.asarray(planned.value, np.float32)
    mask_OI = weight_OI != 0
    parts = {MASK: (mask_OI.astype(np.float32), "integers", "masks")}
    name = planned.scheme
    if scheme.kind == "grid" and scheme.group == "row":
        scale_O = _row_scales(weight_OI)
        weight_OI, name = weight_OI / scale_O[:, None], name.replace("-row", "-tensor")
        parts[ROWS] = (scale_O, ROW_SCHEME, ROWS)
    parts[VALUES] = (weight_OI[mask_OI], name, planned.part)
    return [
        PlannedTensor(name=f"{planned.name}.{kind}", value=value, scheme=scheme_name, part=part)
        for kind, (value, scheme_name, part) in parts.items()
    ]


def num_scales(num_rows: int, scheme_name: str) -> int:
    """Count the scales that a weight of so many rows is stored with beside its numbers."""
    scheme = parse_scheme(scheme_name)
    of_rows = num_rows if scheme.kind == "grid" and scheme.group == "row" else 0
    return of_rows + (1 if scheme.has_scale else 0)


def _row_scales(weight_OI: Array) -> Array:
    """The largest magnitude of each row as it will be stored; 1 where a row is empty or too small for that."""
    scale_O = np.abs(weight_OI).max(axis=1, initial=0.0).astype(np.float16).astype(np.float32)
    return np.where((scale_O > 0) & np.isfinite(scale_O), scale_O, np.float32(1))


def join_weight(name: str, tensors: Mapping[str, Array]) -> Array:
    """Rebuild the weight (O, I) called `name` from the decoded tensors.

    Raises:
        ArtifactError: mask, numbers and scales do not fit each other.
    """
    mask_OI, values = (_find(f"{name}.{kind}", tensors) for kind in (MASK, VALUES))
    if mask_OI.ndim != 2 or not np.isin(mask_OI, (0, 1)).all() or values.shape != (np.count_nonzero(mask_OI),):
        raise ArtifactError(f"artifact tensor {name}: {values.shape} numbers do not fit its mask {mask_OI.shape}")
    weight_OI = np.zeros(mask_OI.shape, np.float32)
    weight_OI[mask_OI == 1] = values
    scale_O = tensors.get(f"{name}.{ROWS}")
    if scale_O is None:
        return weight_OI
    if scale_O.shape != mask_OI.shape[:1]:
        raise ArtifactError(f"artifact tensor {name}: {scale_O.shape} scales do not fit its mask {mask_OI.shape}")
    return np.asarray(weight_OI * scale_O[:, None], np.float32)


def _find(name: str, tensors: Mapping[str, Array]) -> Array:
    if name not in tensors:
        raise ArtifactError(f"artifact lacks the tensor {name}: other settings?")
    return tensors[name]
