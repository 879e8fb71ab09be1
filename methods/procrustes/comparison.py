"""A rotation beside what it has to beat, at the same total of stored parameters, on one pretrained model.

Shape letters: B windows, T tokens.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.errors import UsageError
from harness.nn.config import LinearRole
from harness.pretrained.moments import Moments, PassedMoments
from harness.pretrained.perplexity import window_nats
from harness.pretrained.residual import Place, ResidualModel, iterate_linears
from harness.pretrained.slicing import largest_width, slice_model, stream_bases
from harness.pretrained.unrotate import keep_means_out
from harness.records.schema import DENSE_WAY
from harness.stats import Interval, paired_interval
from methods.procrustes.budgets import EXACT_ROLES, ByShare, largest_choice, low_rank, many_parts
from methods.procrustes.compress import Compression, Skips, Solver, by_descent, compress, without_rotation
from methods.procrustes.weighting import Choice, Weighting

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROTATION = "rotation"


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonSettings:
    """The rotation to compare, and what the others have in common with it.

    Attributes:
        choose: gives the class of each map for the rotation, oriented with the residual features as rows.
        skips: how the rotation's change of bases is stored.
        solve: finds the rotation.
        weighting: how its errors count; the row without rotation counts them alike.
        by_share: classes of the row without rotation, which may spend what it needs not for skip matrices.
        exact_roles: linear maps that stay dense in the SVD rows, as in `choose`.
        bases_per_pass: bases whose moments are in memory at a time, see `PassedMoments`.
        seed: of the tokens that gradients are drawn at, and of Gaussian weights.
    """

    choose: Choice
    skips: Skips = "dense"
    solve: Solver = field(default_factory=by_descent)
    weighting: Weighting = "activations"
    by_share: ByShare = many_parts
    exact_roles: tuple[LinearRole, ...] = EXACT_ROLES
    bases_per_pass: int = 1
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One way to compress a model.

    Attributes:
        name: of the way.
        num_params: numbers stored, the whole model's, skip matrices included; None where there was a problem.
        relative_error: root mean square of |W - S| / |W| over the compressed maps; None where no map has one.
        window_nats: mean surprise in each test window, nats a token; empty for Gaussian weights, which say nothing.
        seconds: of the compression, moments included.
        problem: why the way could not be gone; empty where it was.
    """

    name: str
    num_params: int | None
    relative_error: float | None
    window_nats: tuple[float, ...]
    seconds: float
    problem: str = ""

    @property
    def perplexity(self) -> float | None:
        """Over the test windows; None without any."""
        return math.exp(math.fsum(self.window_nats) / len(self.window_nats)) if self.window_nats else None

    def more_nats_than(self, other: Row) -> tuple[float, Interval]:
        """Return the mean over windows of this row's surprise less the other's, and its 95% interval (paired).

        Raises:
            UsageError: there are fewer than two windows.
        """
        differences = [a - b for a, b in zip(self.window_nats, other.window_nats, strict=True)]
        return math.fsum(differences) / max(len(differences), 1), paired_interval(differences)


def fair_comparison(
    model: PreTrainedModel, settings: ComparisonSettings, *, calibration_BT: Tensor, test_BT: Tensor
) -> tuple[Row, ...]:
    """Compress copies of a model in every way that a rotation has to beat, none with more parameters than it.

    The rows: "dense", "rotation", "no rotation", "truncated SVD", "whitened SVD", where errors are weighted by
    gradients "SVD, by gradients", "slicing"; and the null control: what the solver does to the weights without
    moments, and what it does to Gaussian weights of the same shapes and deviations. A way that cannot be gone says why.
    Norms that subtract a mean remove its direction in each basis, as those of the records do.

    Args:
        model: as `load_pretrained` gives it; left as it is.
        settings: of the rotation.
        calibration_BT: token ids that moments are measured on.
        test_BT: token ids that perplexities are of, other ones.

    Raises:
        UsageError: the model's family cannot be rotated, or a class of the rotation does not fit a map.
    """
    comparison = _Comparison(model, settings, calibration_BT, test_BT)
    return comparison.rows()


class _Comparison:
    def __init__(
        self, model: PreTrainedModel, settings: ComparisonSettings, calibration_BT: Tensor, test_BT: Tensor
    ) -> None:
        self._model, self._settings = model, settings
        self._calibration_BT, self._test_BT = calibration_BT, test_BT

    def rows(self) -> tuple[Row, ...]:
        settings = self._settings
        dense = self._folded()
        rotation = self._compressed(ROTATION, settings.choose, settings.solve, settings.weighting, settings.skips)
        total = rotation.num_params
        assert total is not None
        removed = dense.num_bases * dense.width if dense.family.centres else 0

        def fixed(name: str, by_share: ByShare, weighting: Weighting) -> Row:
            def compressed() -> Row:
                choose = largest_choice(dense, by_share, "none", total - removed)
                return self._compressed(name, choose, without_rotation, weighting, "none")

            return _attempt(name, compressed)

        svd = partial(low_rank, exact_roles=settings.exact_roles)
        rows = [
            Row(
                name=DENSE_WAY,
                num_params=dense.num_params(),
                relative_error=0.0,
                window_nats=self._score(dense),
                seconds=0.0,
            ),
            rotation,
            fixed("no rotation", settings.by_share, settings.weighting),
            fixed("truncated SVD", svd, "none"),
            fixed("whitened SVD", svd, "activations"),
        ]
        if settings.weighting == "gradients":
            rows.append(fixed("SVD, by gradients", svd, "gradients"))
        rows.append(_attempt("slicing", lambda: self._sliced(total)))
        for name, is_gaussian in (("rotation without moments", False), ("the same of Gaussian weights", True)):
            again = partial(self._compressed, name, settings.choose, settings.solve, "none", settings.skips)
            rows.append(_attempt(name, partial(again, is_gaussian=is_gaussian)))
        return tuple(rows)

    def _folded(self) -> ResidualModel:
        return ResidualModel(copy.deepcopy(self._model))

    def _moments(self, residual: ResidualModel, weighting: Weighting) -> Mapping[Place, Moments]:
        return PassedMoments(
            residual,
            self._calibration_BT,
            with_gradients=weighting == "gradients",
            # One basis for all parts needs all moments at once.
            bases_per_pass=residual.num_bases if self._settings.skips == "shared" else self._settings.bases_per_pass,
            seed=self._settings.seed,
        )

    def _compressed(
        self,
        name: str,
        choose: Choice,
        solve: Solver,
        weighting: Weighting,
        skips: Skips,
        *,
        is_gaussian: bool = False,
    ) -> Row:
        start, residual = time.perf_counter(), self._folded()
        if is_gaussian:
            draw_gaussian(residual, self._settings.seed)
        moments = self._moments(residual, weighting) if weighting in ("activations", "gradients") else None
        done = compress(residual, choose, solve, weighting=weighting, moments=moments, skips=skips)
        keep_means_out(residual)
        return Row(
            name=name,
            num_params=residual.num_params(),
            relative_error=mean_error(done),
            seconds=time.perf_counter() - start,
            window_nats=() if is_gaussian else self._score(residual),
        )

    def _sliced(self, total: int) -> Row:
        start, residual = time.perf_counter(), self._folded()
        bases = stream_bases(residual, self._moments(residual, "activations"), self._calibration_BT)
        slice_model(residual, bases, largest_width(residual, total))
        seconds = time.perf_counter() - start
        return Row(
            name="slicing",
            num_params=residual.num_params(),
            relative_error=None,
            window_nats=self._score(residual),
            seconds=seconds,
        )

    def _score(self, residual: ResidualModel) -> tuple[float, ...]:
        return tuple(window_nats(residual.model, self._test_BT).tolist())


def _attempt(name: str, make: Callable[[], Row]) -> Row:
    """Make a row; one that cannot be made says why, and leaves the others alone."""
    try:
        return make()
    except (UsageError, torch.linalg.LinAlgError) as error:
        why = str(error).strip().splitlines()[0]
        return Row(name=name, num_params=None, relative_error=None, window_nats=(), seconds=0.0, problem=why)


def mean_error(done: Compression) -> float | None:
    """Return the root mean square of the relative errors of all compressed weights; None if there are none."""
    squares = [error**2 for error in done.relative_errors.values()]
    return (sum(squares) / len(squares)) ** 0.5 if squares else None


@torch.no_grad()
def draw_gaussian(residual: ResidualModel, seed: int = 0) -> None:
    """Replace the weights of blocks by Gaussian ones of the same deviation."""
    generator = torch.Generator().manual_seed(seed)
    for _, module in iterate_linears(residual):
        assert isinstance(module, nn.Linear)
        module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * module.weight.std())
