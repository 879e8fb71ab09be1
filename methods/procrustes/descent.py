"""The rotation of least weighted error, by descent over rotations with the factors solved for at each step.

Shape letters: D residual features, N other features of a weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.procrustes.classes import Factors
from methods.procrustes.member import Member


@dataclass(frozen=True, kw_only=True, slots=True)
class DescentOptions:
    """How `descend` goes about it.

    Attributes:
        max_rounds: times that the path begins anew from the rotation reached.
        num_steps: L-BFGS steps of a round.
        history: steps that L-BFGS remembers.
        tolerance: stop when a round lowers the error by less than this part of it.
    """

    max_rounds: int = 4
    num_steps: int = 50
    history: int = 20
    tolerance: float = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Descent:
    """What `descend` found.

    Attributes:
        matrix: the orthogonal Q (D, D); weights become Q W.
        factors: of each member, the best found under Q.
        errors: weighted error of the group at the start and after each round.
    """

    matrix: Tensor
    factors: tuple[Factors, ...]
    errors: tuple[float, ...]


def descend(members: Sequence[Member], start_DD: Tensor, options: DescentOptions | None = None) -> Descent:
    """Lower the weighted error of a group over rotations and factors, never raising it.

    The last factor of each member enters linearly, and is solved for at every rotation; where it is best, the gradient
    in all else is that at a fixed last factor (variable projection). Rotations are Q(X) Q_0 with Q(X) Cayley's
    transform of X - X^T.

    Args:
        members: weights of equal height D, not all exact; float64 is advised.
        start_DD: the orthogonal rotation to begin with.
        options: by default those of `DescentOptions`.

    Source: the weighted stage of ProcrustesGPT, arXiv:2506.02818, whose objective this is with R or C the identity,
        there by conjugate gradients at fixed factors; Golub and Pereyra 1973, "The differentiation of pseudo-inverses
        and nonlinear least squares problems whose variables separate", SIAM J. Numer. Anal. 10.
    """
    options = options or DescentOptions()
    narrow = [member.narrow() for member in members if not member.is_exact]
    rotation_DD = start_DD
    factors = [member.complete(start_DD, member.structure.project(start_DD @ member.weight)) for member in narrow]
    errors = [sum(member.error(start_DD, found).item() for member, found in zip(narrow, factors, strict=True))]
    for _ in range(options.max_rounds):
        candidate = _improve(narrow, rotation_DD, factors, options)
        # A line search that fails can end above its start, and not a number is no improvement either.
        if not candidate[2] < errors[-1]:
            break
        rotation_DD, factors, error = candidate
        errors.append(error)
        if errors[-2] - error <= options.tolerance * errors[-2]:
            break
    reached = iter(factors)
    wide = [
        member.structure.project(rotation_DD @ member.weight)
        if member.is_exact
        else member.complete(rotation_DD, _widen(member, next(reached)))
        for member in members
    ]
    return Descent(matrix=rotation_DD, factors=tuple(wide), errors=tuple(errors))


def _improve(
    members: Sequence[Member], start_DD: Tensor, start: Sequence[Factors], options: DescentOptions
) -> tuple[Tensor, list[Factors], float]:
    """Return the rotation, the factors and the error after one round."""
    free_DD = torch.zeros_like(start_DD).requires_grad_()
    leading = [[factor.clone().contiguous().requires_grad_() for factor in factors[:-1]] for factors in start]
    last = [factors[-1] for factors in start]

    def evaluate() -> Tensor:
        rotation_DD = _cayley(free_DD) @ start_DD
        total = rotation_DD.new_zeros(())
        for index, member in enumerate(members):
            with torch.no_grad():
                last[index] = member.complete(rotation_DD, (*leading[index], last[index]))[-1]
            total = total + member.error(rotation_DD, (*leading[index], last[index]))
        return total

    variables = [free_DD, *(factor for factors in leading for factor in factors)]
    optimiser = torch.optim.LBFGS(
        variables,
        max_iter=options.num_steps,
        history_size=options.history,
        tolerance_grad=0,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        total = evaluate()
        total.backward()
        return total

    optimiser.step(closure)
    with torch.no_grad():
        error = evaluate().item()
        rotation_DD = _cayley(free_DD) @ start_DD
        found = [
            tuple(factor.detach() for factor in (*factors, final)) for factors, final in zip(leading, last, strict=True)
        ]
    return rotation_DD, found, error


def _cayley(free_DD: Tensor) -> Tensor:
    skew_DD = free_DD - free_DD.T
    identity_DD = torch.eye(len(skew_DD)).to(skew_DD)
    return torch.linalg.solve(identity_DD + skew_DD, identity_DD - skew_DD)


def _widen(member: Member, factors: Factors) -> Factors:
    """Return factors of the shapes that the member itself has; its last one is solved for anew."""
    if member.structure.is_free_on_the_right:
        return (*factors[:-1], factors[-1].new_zeros(*factors[-1].shape[:-1], member.weight.size(1)))
    return factors
