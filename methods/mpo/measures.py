"""What claims about chains of cores are judged by: errors of TT-SVD, measured on random matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch

from harness.method import Task
from harness.nn.factorise import Modes, TensorTrain, rebuild
from harness.registry import find_method
from harness.settings import resolve_settings
from methods.mpo.layer import MPOLinear

_VOCAB_OF_THE_PAPER = 65
SEED = 0


def _relative_error(weight_OI: torch.Tensor, modes: Modes, chi: int) -> float:
    cores = TensorTrain.of(weight_OI, modes, chi).cores
    return float((rebuild(list(cores)) - weight_OI).norm() / weight_OI.norm())


def _errors_of_a_fresh_model(chi: int) -> list[float]:
    """Errors of TT-SVD of the matrices of a freshly initialised dense PicoGPT, N(0, 0.02^2), in float64."""
    info = find_method("mpo")
    settings = resolve_settings(info, "picogpt-chi4", ())
    method = info.load()(settings.model, Task(vocab_size=_VOCAB_OF_THE_PAPER, context=settings.train.context))
    with torch.device("meta"):
        network = method.build()
    generator = torch.Generator().manual_seed(SEED)
    maps = [module for module in network.modules() if isinstance(module, MPOLinear)]
    return [
        _relative_error(
            0.02 * torch.randn(*each.modes.shape, generator=generator, dtype=torch.float64), each.modes, chi
        )
        for each in maps
    ]


def fresh_error_max(chi: int) -> float:
    """Largest relative error (Frobenius) over the matrices of a fresh dense PicoGPT."""
    return max(_errors_of_a_fresh_model(chi))


def fresh_error_mean(chi: int) -> float:
    """Mean relative error (Frobenius) over the matrices of a fresh dense PicoGPT."""
    errors = _errors_of_a_fresh_model(chi)
    return sum(errors) / len(errors)


def split_error(sites: int, chi: int) -> float:
    """Relative error of a random 512 x 512 matrix split 8 x 64 (two sites) or 8 x 8 x 8 (three), which refines it."""
    digits = {2: (8, 64), 3: (8, 8, 8)}[sites]
    weight = torch.randn(512, 512, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    return _relative_error(weight, Modes(digits, digits), chi)


def full_bond_error() -> float:
    """Relative error at bonds that cut nothing: 128 x 128 in two sites of 8 x 8 and 16 x 16."""
    weight = torch.randn(128, 128, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    return _relative_error(weight, Modes((8, 16), (8, 16)), 64)


def gradient_error() -> float:
    """Largest relative difference of autograd's gradients of the cores from finite differences, in float64."""
    torch.manual_seed(SEED)
    layer = MPOLinear(Modes((2, 3), (3, 2)), (1, 2, 1)).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    target = torch.randn(5, 6, dtype=torch.float64)

    def loss() -> torch.Tensor:
        return cast(torch.Tensor, ((layer(x) - target) ** 2).sum())

    loss().backward()  # type: ignore[no-untyped-call]
    worst, step = 0.0, 1e-5
    for core in layer.cores:
        assert core.grad is not None, "every core has a part in the loss"
        for place in range(core.numel()):
            flat = core.data.view(-1)
            before = float(flat[place])
            sides = []
            for shift in (step, -step):
                flat[place] = before + shift
                sides.append(float(loss().detach()))
            flat[place] = before
            numeric = (sides[0] - sides[1]) / (2 * step)
            exact = float(core.grad.view(-1)[place])
            worst = max(worst, abs(numeric - exact) / max(abs(exact), 1e-3))
    return worst


MEASURES: Mapping[str, Callable[..., float]] = {
    "fresh_error_max": fresh_error_max,
    "fresh_error_mean": fresh_error_mean,
    "split_error": split_error,
    "full_bond_error": full_bond_error,
    "gradient_error": gradient_error,
}
