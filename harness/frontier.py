"""The rate-distortion frontier of a stored network, and how far plain integer formats lie above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.artifact.byte_coders import COMPRESSORS
from harness.artifact.container import Artifact
from harness.envelope import interpolate, lower_envelope
from harness.rated import Moments, RatedTensors
from harness.requantise import FileScore, StoredNetwork

BASELINE_SCHEMES = ("int8-row", "int7-row", "int6-row")
BYTE_CODERS = ("zlib", "zstd", "lzma")
BEST_CODER = "best of ours"
# The sweep, in bits a weight around the lambda at which steps are as wide as those of int6; a bit is a factor of 4.
_FEWER_BITS, _MORE_BITS = 3.25, 2.25


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontierPoint:
    """The whole network at one lambda.

    Attributes:
        lagrangian: lambda, units of D for each bit.
        distortion: D, summed over the matrices.
        stored: bytes and score of the file.
    """

    lagrangian: float
    distortion: float
    stored: FileScore


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselinePoint:
    """A plain format with one coder, against the frontier.

    Attributes:
        scheme: of the matrices.
        coder: of the whole file's numbers.
        artifact_bytes: size of the file with that coder.
        val_bpb: bits per byte of the tune split.
        frontier_bytes: most bytes that the frontier needs for that score; None where it does not reach it.
        frontier_bpb: score of the frontier within those bytes; None where it has no file as small.
    """

    scheme: str
    coder: str
    artifact_bytes: int
    val_bpb: float
    frontier_bytes: float | None
    frontier_bpb: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Frontier:
    """A sweep of lambda from many bytes to few, and the baselines."""

    points: tuple[FrontierPoint, ...]
    baselines: tuple[BaselinePoint, ...]


def sweep(network: StoredNetwork, moments: Moments, *, num_points: int) -> Frontier:
    """Store the network at a geometric row of lambdas, each one number for all matrices, and compare.

    Args:
        network: of a record.
        moments: of the inputs of its linear maps.
        num_points: lambdas, at least 2.
    """
    rated = RatedTensors(network.plan("fp32"), network.matrices, moments)
    network.without_moments |= rated.without_moments
    exponents = np.linspace(-_MORE_BITS, _FEWER_BITS, num_points)
    points = tuple(_store_at(network, rated, rated.centre * 4.0 ** float(exponent)) for exponent in exponents)
    measured = [found for scheme in BASELINE_SCHEMES for found in _measure_baseline(network, scheme)]
    return Frontier(points=points, baselines=tuple(_compare(points, *found) for found in measured))


def _store_at(network: StoredNetwork, rated: RatedTensors, lagrangian: float) -> FrontierPoint:
    tensors, distortion = rated.at(lagrangian)
    with network.written(tensors) as summary:
        stored = network.score(summary, "step, rate-distortion", f"lambda {lagrangian:.3g}")
    return FrontierPoint(lagrangian=lagrangian, distortion=distortion, stored=stored)


def _measure_baseline(network: StoredNetwork, scheme: str) -> list[tuple[FileScore, str, int]]:
    """Score a plain format once; returns the score with the bytes under every coder."""
    with network.written(network.plan(scheme)) as summary:
        score = network.score(summary, scheme, "rounding")
        artifact = Artifact.open(summary.path)
        raw = _raw_bytes(artifact)
        rest_bytes = artifact.artifact_bytes - sum(entry.stored_bytes for entry in artifact.entries)
    sizes = {coder: rest_bytes + len(COMPRESSORS[coder](raw)) for coder in BYTE_CODERS}
    return [(score, coder, num_bytes) for coder, num_bytes in {**sizes, BEST_CODER: score.artifact_bytes}.items()]


def _raw_bytes(artifact: Artifact) -> bytes:
    """Return symbols and scales of all tensors of a file in one row, as they are before any coder."""
    parts: list[bytes] = []
    for entry in artifact.entries:
        quantised = artifact.decode_quantised(entry.name)
        parts += [quantised.symbols.tobytes(), b"" if quantised.scale is None else quantised.scale.tobytes()]
    return b"".join(parts)


def _compare(points: Sequence[FrontierPoint], score: FileScore, coder: str, num_bytes: int) -> BaselinePoint:
    sizes, scores = lower_envelope([(point.stored.artifact_bytes, point.stored.val_bpb) for point in points])
    return BaselinePoint(
        scheme=score.scheme,
        coder=coder,
        artifact_bytes=num_bytes,
        val_bpb=score.val_bpb,
        frontier_bytes=interpolate(score.val_bpb, scores[::-1], sizes[::-1]),
        frontier_bpb=interpolate(num_bytes, sizes, scores),
    )
