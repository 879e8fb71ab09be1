"""How errors in each weight count: alike, or by guesses from the weights, or by moments measured on text.

Shape letters: D residual features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from harness.pretrained.moments import Moments
from harness.pretrained.residual import Place
from methods.procrustes.classes import StructuredClass
from methods.procrustes.member import Member
from methods.procrustes.ports import Stream

Weighting = Literal["none", "weights", "activations", "gradients"]
Choice = Callable[[Place, int, int], StructuredClass]
# Added to the diagonal of metrics in units of its mean: features that no calibration token uses still matter a little.
DAMPING = 1e-3


def weigh_basis(
    residual: Stream, basis: int, choose: Choice, weighting: Weighting, moments: Mapping[Place, Moments]
) -> dict[Place, Member]:
    """Return the weights that face a basis, in float64, with the metrics of their errors.

    With R on the side of the residual features and C on the other:
    "none": neither, as in the published first stage.
    "weights": R guesses what is in the stream there: for a weight that reads, from the weights that have written to
        it and the embeddings; for one that writes, from the weights that will read.
    "activations": moments of the inputs, as in the published weighted stage; each weight's outputs count alike.
    "gradients": also those of the gradients on the other side, so that errors are in nats.

    Args:
        residual: not rotated yet.
        basis: number of the basis.
        choose: gives the class of the weight at a place, from its rows D and columns.
        weighting: as above.
        moments: of each place, with gradients for "gradients"; not read for "none" and "weights".
    """
    members = {}
    for place in residual.places(basis):
        weight_DN = residual.weight(place).double()
        structure = choose(place, *weight_DN.shape)
        if weighting == "none":
            members[place] = Member(weight=weight_DN, structure=structure)
        elif weighting == "weights":
            metric = _guess_stream(residual, basis, place.reads)
            members[place] = Member(weight=weight_DN, structure=structure, row_metric=metric)
        else:
            members[place] = _weigh_by_moments(residual, place, weight_DN, structure, moments[place], weighting)
    return members


def _weigh_by_moments(
    residual: Stream,
    place: Place,
    weight_DN: Tensor,
    structure: StructuredClass,
    moments: Moments,
    weighting: Weighting,
) -> Member:
    has_bias = residual.module(place).bias is not None
    # A bias takes up the mean of the error, so that only its variance is left.
    inputs = _damp(moments.covariance if has_bias else moments.second)
    outputs = None
    if weighting == "gradients" and moments.gradient is not None:
        outputs = _damp(moments.gradient)
    row, column = (inputs, outputs) if place.reads else (outputs, inputs)
    member = Member(weight=weight_DN, structure=structure, row_metric=row, column_metric=column)
    # Half of the second derivative; without gradients the outputs of each weight count alike.
    share = 0.5 if outputs is not None else 1 / member.energy().clamp_min(torch.finfo(torch.float64).tiny).item()
    return replace(member, share=share)


def _guess_stream(residual: Stream, basis: int, reads: bool) -> Tensor:
    """Guess E[x x^T] of the stream (D, D) before a basis, or which features are read from there on; mean diagonal 1."""
    tables = [table.double() for table in residual.tables]
    seen = tables if reads else tables[:1]
    total_DD = torch.stack([table.T @ table / len(table) for table in seen]).sum(0)
    for other in range(basis + 1) if reads else range(basis, residual.num_bases):
        for place in residual.places(other):
            if place.reads != reads:
                weight_DN = residual.weight(place).double()
                total_DD = total_DD + weight_DN @ weight_DN.T / weight_DN.size(1)
    return total_DD / total_DD.diagonal().mean()


def _damp(metric: Tensor) -> Tensor:
    floor = metric.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    return metric + DAMPING * floor * torch.eye(len(metric)).to(metric)
