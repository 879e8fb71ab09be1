"""The matrices of a network stored at any point of their rate-distortion curve, and the point that fits a file size."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harness.artifact.gptq import quantise_gptq
from harness.artifact.quantize import Quantised
from harness.artifact.rate_distortion import RateDistortion
from harness.artifact.writer import ArtifactSummary, PlannedTensor
from harness.errors import RunError
from harness.method import BYTES_TOLERANCE, ExportSettings, Method
from harness.nn.network import Network

Moments = Mapping[str, NDArray[np.float64]]

# Schemes that are exported side by side to see which tensors a method takes for matrices.
_PROBES = ("fp32", "int8-row")
_CENTRE_SCHEME = "int6-row"
MAX_CORRECTIONS = 3  # of a file that is to fill a size
# At more bits a weight than those of int6 plus this a finer step buys nothing: the network is too small for the size.
_MOST_EXTRA_BITS = 6.0
# At so many fewer every symbol is zero.
_MOST_FEWER_BITS = 12.0


def plan(method: Method, network: Network, export: ExportSettings, matrices: str) -> Sequence[PlannedTensor]:
    """Plan the tensors of a network with all matrices under one scheme, not quantised yet."""
    return method.export(network, export.model_copy(update={"matrices": matrices}))


def matrix_names(method: Method, network: Network, export: ExportSettings) -> frozenset[str]:
    """Return the names of the stored tensors whose scheme is that of matrices; may be empty."""
    first, second = ({each.name: each.scheme for each in plan(method, network, export, probe)} for probe in _PROBES)
    return frozenset(name for name, scheme in first.items() if second.get(name) != scheme)


def moment_of(tensor: PlannedTensor, moments: Moments) -> NDArray[np.float64] | None:
    """Find the moment of a stored matrix: that of the linear map whose weight has its name; None where none is."""
    module, _, leaf = tensor.name.rpartition(".")
    moment = moments.get(module) if leaf == "weight" else None
    return moment if moment is not None and tensor.value.shape[1:] == (len(moment),) else None


def choose_by_gptq(tensor: PlannedTensor, moments: Moments) -> PlannedTensor:
    """Choose the symbols of a planned matrix by GPTQ; one without moments, or that holds its own, stays as it is.

    Raises:
        UsageError: its scheme has no scale.
        RunError: the moment or the weight is not finite.
    """
    moment_II = moment_of(tensor, moments)
    if moment_II is None or isinstance(tensor.value, Quantised):
        return tensor
    return replace(tensor, value=quantise_gptq(tensor.value, moment_II, tensor.scheme, name=tensor.name))


class RatedTensors:
    """The planned tensors of a network, all matrices at one lambda.

    Args:
        planned: tensors of the file, matrices as float32.
        names: of the matrices.
        moments: of the inputs of linear maps; a matrix without one is taken to have independent inputs of unit
            variance.

    Attributes:
        num_weights: numbers in the matrices.
        without_moments: names of the matrices that have none.
    """

    def __init__(self, planned: Sequence[PlannedTensor], names: Collection[str], moments: Moments) -> None:
        self._planned = planned
        self._problems: dict[str, RateDistortion] = {}
        self.num_weights, self.without_moments = 0, set[str]()
        for tensor in planned:
            # pruning can leave a matrix without a number
            if tensor.name not in names or isinstance(tensor.value, Quantised) or not tensor.value.size:
                continue
            moment_II = moment_of(tensor, moments)
            if moment_II is None:
                self.without_moments.add(tensor.name)
            self._problems[tensor.name] = RateDistortion(tensor.value, moment_II, name=tensor.name)
            self.num_weights += tensor.value.size

    @cached_property
    def centre(self) -> float:
        """The lambda at which steps are about as wide as those of int6, units of D for each bit."""
        # tensors of zeros have no step
        widths = [found for each in self._problems.values() if (found := each.lambda_of(_CENTRE_SCHEME)) > 0]
        return float(np.exp(np.mean(np.log(widths)))) if widths else 1.0

    def at(self, lagrangian: float) -> tuple[list[PlannedTensor], float]:
        """Choose the symbols of all matrices; returns the tensors of the file, and D summed over the matrices."""
        choices = {name: problem.choose(lagrangian) for name, problem in self._problems.items()}
        tensors = [
            replace(tensor, value=found.quantised, scheme=found.quantised.scheme)
            if (found := choices.get(tensor.name))
            else tensor
            for tensor in self._planned
        ]
        return tensors, sum(choice.distortion for choice in choices.values())


def fill_bytes(
    rated: RatedTensors, target_bytes: int, write: Callable[[Sequence[PlannedTensor]], ArtifactSummary]
) -> ArtifactSummary:
    """Write the file whose size is nearest below a target: within 2% of it, after at most three corrections.

    A factor of four in lambda is a bit a weight, which foretells the first correction; later ones follow the last two
    files. Where none lands within 2% the largest below the target stays: `write` is called with it last.

    Args:
        rated: the network.
        target_bytes: what the file may take.
        write: writes a file over the one before.

    Raises:
        RunError: no file was small enough.
    """
    sizes: list[tuple[float, int]] = []  # bits a weight beyond those at the centre, bytes
    bits = 0.0
    for _ in range(1 + MAX_CORRECTIONS):
        summary = write(rated.at(rated.centre * 4.0**-bits)[0])
        if (1 - BYTES_TOLERANCE) * target_bytes <= summary.artifact_bytes <= target_bytes:
            return summary
        sizes.append((bits, summary.artifact_bytes))
        bits = _next_bits(sizes, target_bytes, rated.num_weights)
        if bits == sizes[-1][0]:
            break
    fitting = [(num_bytes, tried) for tried, num_bytes in sizes if num_bytes <= target_bytes]
    if not fitting:
        raise RunError(
            f"export.target_bytes={target_bytes:,}: the smallest file that was tried has "
            f"{min(num_bytes for _, num_bytes in sizes):,} bytes; train a smaller network, or store embeddings with "
            "fewer bits"
        )
    return write(rated.at(rated.centre * 4.0 ** -max(fitting)[1])[0])


def _next_bits(sizes: Sequence[tuple[float, int]], target_bytes: int, num_weights: int) -> float:
    """Foretell the bits a weight that give a file in the middle of the tolerance."""
    aim = target_bytes * (1 - BYTES_TOLERANCE / 2)
    last_bits, last_bytes = sizes[-1]
    slope = ideal = max(num_weights / 8, 1.0)
    if len(sizes) > 1 and last_bits != sizes[-2][0]:
        slope = (last_bytes - sizes[-2][1]) / (last_bits - sizes[-2][0])
    if slope < ideal / 8:  # where all symbols are zero, sizes differ by the digits of a step and foretell nothing
        slope = ideal
    bits = last_bits + (aim - last_bytes) / slope
    return min(max(bits, -_MOST_FEWER_BITS), _MOST_EXTRA_BITS)
