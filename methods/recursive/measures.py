"""What claims about recursive sharing are judged by: how orthogonal loop vectors are as they begin."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from methods.recursive.inits import make_loop_vectors

SEED = 0
_SCALE = 0.01


def loop_vector_cosine(kind: str, loops: int, width: int) -> float:
    """Largest cosine between two loop vectors as they begin, drawn as `gaussian` or `qr`."""
    torch.manual_seed(SEED)
    vectors_LD = make_loop_vectors(kind, loops, width, _SCALE).detach().double()
    unit_LD = vectors_LD / vectors_LD.norm(dim=1, keepdim=True)
    return float((unit_LD @ unit_LD.T - torch.eye(loops, dtype=torch.float64)).abs().max())


MEASURES: Mapping[str, Callable[..., float]] = {"loop_vector_cosine": loop_vector_cosine}
