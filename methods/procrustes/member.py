"""A weight of the group that one rotation acts on: its class, and how errors in it count.

Shape letters: D residual features, N other features of the weight. Weights are oriented (D, N): rows are features of
the residual stream, which the rotation Q mixes; a weight becomes Q W.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.procrustes.classes import Exact, Factors, StructuredClass


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One weight of a group, and how errors in it count: tr((W - S)^T R (W - S) C) times its share.

    Attributes:
        weight: (D, N), W oriented with the residual features as rows.
        structure: the class that it is to be in; Exact for one that stays dense.
        row_metric: (D, D), R in the present basis; None for the identity.
        column_metric: (N, N), C; None for the identity.
        share: factor of its error in the sum over a group.
    """

    weight: Tensor
    structure: StructuredClass
    row_metric: Tensor | None = None
    column_metric: Tensor | None = None
    share: float = 1.0

    @property
    def is_exact(self) -> bool:
        """Whether the weight stays dense."""
        return isinstance(self.structure, Exact)

    def rotated_metric(self, rotation_DD: Tensor) -> Tensor:
        """Return Q R Q^T."""
        if self.row_metric is None:
            return torch.eye(len(rotation_DD)).to(rotation_DD)
        return rotation_DD @ self.row_metric @ rotation_DD.T

    def complete(self, rotation_DD: Tensor, factors: Factors) -> Factors:
        """Return the factors with the last one replaced by the best for the rotated weight."""
        metric_DD = self.rotated_metric(rotation_DD)
        return self.structure.complete(rotation_DD @ self.weight, metric_DD, self.column_metric, factors)

    def error(self, rotation_DD: Tensor, factors: Factors) -> Tensor:
        """Return its part of the sum, a scalar; differentiable."""
        error_DN = rotation_DD @ self.weight - self.structure.dense(factors)
        weighted_DN = self.rotated_metric(rotation_DD) @ error_DN
        if self.column_metric is not None:
            weighted_DN = weighted_DN @ self.column_metric
        return self.share * (error_DN * weighted_DN).sum()

    def energy(self) -> Tensor:
        """Return what its error would be were S zero, a scalar."""
        weighted_DN = self.weight if self.row_metric is None else self.row_metric @ self.weight
        if self.column_metric is not None:
            weighted_DN = weighted_DN @ self.column_metric
        return self.share * (self.weight * weighted_DN).sum()

    def fit(self, rotation_DD: Tensor) -> Factors:
        """Return factors near the rotated weight, from those of its projection."""
        rotated_DN = rotation_DD @ self.weight
        start = self.structure.project(rotated_DN)
        if self.row_metric is None and self.column_metric is None:
            return start
        return self.structure.fit(rotated_DN, self.rotated_metric(rotation_DD), self.column_metric, start)

    def spread(self) -> Tensor:
        """Return R W C W^T R (D, D), whose leading directions cost the most to leave out."""
        weighted_DN = self.weight if self.row_metric is None else self.row_metric @ self.weight
        right_DN = weighted_DN if self.column_metric is None else weighted_DN @ self.column_metric
        return right_DN @ weighted_DN.T

    def narrow(self) -> Member:
        """Return a member with at most D columns and the same error at each rotation and left factor, if there is one.

        Where the right factor is free, the error depends on W and C through W C W^T alone: any root of it does.
        """
        if not self.structure.is_free_on_the_right:
            return self
        weighted_DN = self.weight if self.column_metric is None else self.weight @ self.column_metric
        values_D, vectors_DD = torch.linalg.eigh(weighted_DN @ self.weight.T)
        root_DD = vectors_DD * values_D.clamp_min(0).sqrt()
        return replace(
            self, weight=root_DD, structure=replace(self.structure, columns=len(root_DD)), column_metric=None
        )
